"""The parts of the evidence that can be turned off, each beyond the test images as they are.

Takes what the core of the evidence has measured, gives a `Parts`: each part is None when
`evaluate` turns it off, and says what it found as metrics, figures and files.
"""

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from tasks.data.attributes import read_attributes
from tasks.data.shards import Shards
from tasks.evaluation.attacked import AdversarialFigures, adversarial_figures
from tasks.evaluation.candidates import Candidates
from tasks.evaluation.explanation.figures import Answers, ExplanationFigures
from tasks.evaluation.factors import factor_of, factors_of
from tasks.evaluation.groups import compare_all
from tasks.evaluation.ood import Strangeness
from tasks.evaluation.ood_table import OodFigures, ood_figures
from tasks.evaluation.robustness import measure_robustness
from tasks.evaluation.robustness_table import RobustnessFigures, robustness_figures
from tasks.evaluation.slices import search
from tasks.evaluation.slices_table import SlicesFigures, slices_figures
from tasks.metrics.classification import Ints
from tasks.params import check_groups
from tasks.schema import Evaluate

if TYPE_CHECKING:
    from tasks.evaluation.evidence import Measured


@dataclass(frozen=True)
class Parts:
    """What was found; None where a part is turned off."""

    robustness: RobustnessFigures | None
    slices: SlicesFigures | None
    explanation: ExplanationFigures | None
    adversarial: AdversarialFigures | None
    ood: OodFigures | None

    def as_metrics(self) -> dict[str, Any]:
        """For data/metrics/evaluate.json: a key a part, null where it is turned off."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: part and part.as_metrics() for name, part in found.items()}

    def headlines(self) -> dict[str, float]:
        """The figures that the training run is compared by, by their names there."""
        found = {}
        if self.robustness is not None:
            found["test_mean_corruption_error"] = self.robustness.error[0]
        if self.ood is not None:
            found["test_mean_ood_auroc"] = self.ood.means[self.ood.at]
        return found | (self.slices.headlines() if self.slices else {})


def measure_parts(
    shards: Shards,
    candidates: Candidates,
    deployed: "Measured",
    strange: Strangeness | None,
    params: Evaluate,
) -> Parts:
    """Measure every part that is turned on, on the frozen test split.

    `strange` was measured with the graph that is deployed, which holds its score.
    """
    return Parts(
        slices=_slices(shards, deployed.predicted, params),
        robustness=_robustness(shards, candidates, params),
        explanation=_explanation(shards, candidates, deployed, params),
        adversarial=_adversarial(shards, candidates, params),
        ood=ood_figures(strange, shards, params.ood.keep) if strange else None,
    )


def _slices(shards: Shards, predicted: Ints, params: Evaluate) -> SlicesFigures | None:
    if not params.slices.enabled:
        return None
    test, config = shards.split("test"), params.slices
    table = read_attributes(test.paths)
    check_groups(config.groups, table.columns)
    factors = factors_of(table, config.min_images)
    searched = search(
        *(predicted != test.labels, factors, config.min_images, config.depth),
        *(params.confidence, params.seed),
    )
    groups = [factor_of(name, table[name], config.min_images) for name in config.groups]
    answers = (test.labels, predicted, shards.classes)
    settings = (params.confidence, params.resamples, params.seed)
    compared = compare_all(groups, *answers, *settings)
    return slices_figures(searched, compared, shards, predicted, params)


def _robustness(
    shards: Shards, candidates: Candidates, params: Evaluate
) -> RobustnessFigures | None:
    if not params.robustness.enabled:
        return None
    models = {
        name: (candidates.file(name), candidates.named(name).runtime)
        for name in (candidates.chosen, candidates.fp32)
    }
    found = measure_robustness(shards.split("test"), models, params.robustness, params.seed)
    return robustness_figures(found, candidates.chosen, candidates.fp32, params)


def _explanation(
    shards: Shards, candidates: Candidates, deployed: "Measured", params: Evaluate
) -> ExplanationFigures | None:
    if not params.explanation.enabled:
        return None
    from tasks.evaluation.explanation.explain import measure_explanation  # brings PyTorch

    answers = Answers(deployed.probabilities, deployed.labels)
    return measure_explanation(shards, candidates, answers, params)


def _adversarial(
    shards: Shards, candidates: Candidates, params: Evaluate
) -> AdversarialFigures | None:
    if not params.adversarial.enabled:
        return None
    from tasks.evaluation.adversarial import measure_adversarial  # brings PyTorch
    from tasks.evaluation.pixel_networks import GraphClassifier, fp32_network

    chosen = candidates.chosen
    deployed = GraphClassifier(candidates.file(chosen), candidates.named(chosen).runtime)
    test, network = shards.split("test"), fp32_network(shards)
    found = measure_adversarial(test, network, deployed, params.adversarial, params.seed)
    return adversarial_figures(found, params.confidence)

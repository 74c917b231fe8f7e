"""Robustness as rows, figures and sentences, for the report, the model card and the metrics."""

from dataclasses import dataclass
from typing import Any

from tasks.evaluation.corruptions.names import ALL, FAMILIES
from tasks.evaluation.robustness import Corrupted
from tasks.metrics.bootstrap import mean_interval
from tasks.pages.render import data_uri, percent
from tasks.schema import Evaluate

_HARDEST = 3
_SAMPLE = 64  # pixels of the pictures


@dataclass(frozen=True)
class CorruptionRow:
    """One corruption: the deployed model's accuracy at each severity, its mean and fp32's."""

    family: str
    name: str
    accuracy: list[float]
    mean: float
    fp32: float
    sample: str
    """A data URI of an image under it, at the middle severity."""


@dataclass(frozen=True)
class RobustnessFigures:
    """Shares in 0..1, each (value, low, high), of the published corruptions at all severities."""

    found: Corrupted
    images: int
    clean: float
    error: tuple[float, float, float]
    """Mean corruption error of the deployed model."""
    difference: tuple[float, float, float]
    """Accuracy under corruption: the deployed model's less fp32's, on the same images."""
    fp32_error: float
    stable: float
    rows: list[CorruptionRow]

    @property
    def hardest(self) -> list[CorruptionRow]:
        """The corruptions that cost most."""
        return sorted(self.rows, key=lambda row: row.mean)[:_HARDEST]

    def as_metrics(self) -> dict[str, Any]:
        """For data/metrics/evaluate.json."""
        ends = ("value", "low", "high")
        return {
            "images": self.images,
            "accuracy_uncorrupted": self.clean,
            "mean_corruption_error": dict(zip(ends, self.error, strict=True)),
            "fp32_mean_corruption_error": self.fp32_error,
            "difference_from_fp32": dict(zip(ends, self.difference, strict=True)),
            "same_answer_after_a_shift_by_one_pixel": self.stable,
            "accuracy": {row.name: row.accuracy for row in self.rows},
        }

    def sentence(self) -> str:
        """What a reader must know, in two or three sentences."""
        value, low, high = (100 * share for share in self.difference)
        hardest = ", ".join(f"{_title(row.name)} ({percent(row.mean)})" for row in self.hardest)
        if low <= 0 <= high:
            told = "the images do not tell it from fp32"
        else:
            told = f"{'more' if low > 0 else 'less'} robust than fp32"
        return (
            f"On {self.images:,} test images under the fifteen common corruptions "
            f"{percent(1 - self.error[0])} of the answers are right, on the same images as they "
            f"are {percent(self.clean)}. Against fp32 that is {value:+.1f} points ({low:+.1f} to "
            f"{high:+.1f}): {told}. Hardest: {hardest}."
        )


def robustness_figures(
    found: Corrupted, deployed: str, fp32: str, params: Evaluate
) -> RobustnessFigures:
    """The figures of two of the models in `found`, with bootstrap intervals over images."""
    settings = (params.resamples, params.confidence, params.seed)
    wrong = 1 - found.published(deployed).mean(0)
    better = found.published(deployed).mean(0) - found.published(fp32).mean(0)
    accuracy, other = found.accuracy(deployed), found.accuracy(fp32)
    family = {name: title for title, names in FAMILIES.items() for name in names}
    return RobustnessFigures(
        found=found,
        images=len(found.rows),
        clean=float((found.clean[deployed] == found.labels).mean()),
        error=mean_interval(wrong, *settings),
        difference=mean_interval(better, *settings),
        fp32_error=found.error(fp32),
        stable=found.stable(deployed),
        rows=[
            CorruptionRow(
                family=family[name],
                name=name,
                accuracy=accuracy[index].tolist(),
                mean=float(accuracy[index].mean()),
                fp32=float(other[index].mean()),
                sample=data_uri(found.samples[name], tiny=_SAMPLE, side=_SAMPLE),
            )
            for index, name in enumerate(ALL)
        ],
    )


def _title(name: str) -> str:
    return name.replace("_", " ")

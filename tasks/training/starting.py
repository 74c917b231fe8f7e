"""Training that starts from given weights (train.weights) instead of random ones.

The backbone's must all fit. The head is kept where the classes are known to be the same, and
replaced where they are not. `tasks.training.weights` reads them.
"""

import logging
from collections.abc import Mapping

from torch import Tensor

from tasks.errors import TrainingError
from tasks.training.fitting import fitted
from tasks.training.models import Classifier, ModelSpec, Moments
from tasks.training.weights import IMAGENET, Start, read_imagenet, read_start

_MOMENTS: Moments = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # as torchvision's expect
_NAMED = 3  # weights at fault that a message lists
log = logging.getLogger(__name__)


def start_from(model: Classifier, spec: ModelSpec, weights: str) -> None:
    """Give `model`, built for `spec`, the weights that `weights` (train.weights) names.

    Stems and position embeddings of another image size are adapted. Raises TrainingError for
    weights that cannot be read, or that do not fit: all of the backbone's must.
    """
    if weights == IMAGENET:
        start = Start(read_imagenet(spec.architecture), None)
    else:
        start = read_start(weights)
    given = _our_names(start.tensors, spec)
    wanted = model.state_dict()
    keep_head = start.spec is not None and start.spec.classes == spec.classes
    needed = {k: v for k, v in wanted.items() if keep_head or k.startswith("backbone.")}
    adapted = {name: fitted(given[name], needed[name]) for name in needed if name in given}
    _check(adapted, needed, start, spec, weights)
    model.load_state_dict({**wanted, **adapted})
    log.info("start from %s, with %s head", weights, "its" if keep_head else "a new")
    if start.spec is not None and start.spec.activation != spec.activation:
        was = start.spec.activation
        log.warning(
            "%s was trained with train.activation %s, not %s", weights, was, spec.activation
        )


def expected_moments(weights: str) -> Moments | None:
    """How the weights expect their images normalised; None when that is not known."""
    if weights == IMAGENET:
        return _MOMENTS
    spec = read_start(weights).spec
    return (spec.mean, spec.std) if spec else None


def _our_names(tensors: Mapping[str, Tensor], spec: ModelSpec) -> dict[str, Tensor]:
    """Turn torchvision's names into ours."""
    if any(name.startswith("backbone.") for name in tensors) or spec.architecture == "resnet_small":
        return dict(tensors)
    from tasks.training.backbones import head_of

    head = head_of(spec.architecture) + "."
    return {
        f"head.{name.removeprefix(head)}" if name.startswith(head) else f"backbone.{name}": tensor
        for name, tensor in tensors.items()
    }


def _check(
    adapted: Mapping[str, Tensor],
    needed: Mapping[str, Tensor],
    start: Start,
    spec: ModelSpec,
    weights: str,
) -> None:
    """Raises TrainingError naming the weights that are missing or of another shape.

    Batch norms' counters of batches, which old files lack, may be missing.
    """
    absent = [name for name in needed if name not in adapted]
    wrong = [f"{name} is missing" for name in absent if not name.endswith("batches_tracked")]
    wrong += [
        f"{name} is {_shape(tensor)} instead of {_shape(needed[name])}"
        for name, tensor in adapted.items()
        if tensor.shape != needed[name].shape
    ]
    if not wrong:
        return
    more = f" and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
    raise TrainingError(
        f"train.weights: {weights} does not fit {_described(spec)}: "
        f"{'; '.join(wrong[:_NAMED])}{more}; {_way_out(start.spec)}"
    )


def _way_out(spec: ModelSpec | None) -> str:
    if spec is None:
        return "set train.architecture, width and depth to those of the weights"
    return f"the weights are of {_described(spec)}: set train.architecture, width and depth to it"


def _described(spec: ModelSpec) -> str:
    sizes = f" of width {spec.width} and depth {spec.depth}"
    return spec.architecture + (sizes if spec.architecture == "resnet_small" else "")


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a number"

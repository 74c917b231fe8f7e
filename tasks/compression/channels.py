"""Which channels a network can lose together, and the network without some of them.

Fang et al. 2023, "DepGraph: Towards Any Structural Pruning" (torch-pruning): what depends on a
channel (residual sums, depthwise convolutions, batch norms, the next layer) leaves with it. A
group of layers that share their channels goes by the name of its first.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tasks.errors import CompressionError
from tasks.training.models import Classifier, ModelSpec

_MULTIPLE, _SMALL_MULTIPLE, _NARROW = 8, 4, 16  # kernels work on 8 (or 4) channels at once
Scores = dict[str, Tensor]  # of each group, float64 [channels]
Widths = dict[str, int]  # of each group, channels


def multiple_of(model: nn.Module) -> int:
    """What numbers of channels are rounded to: 8, or 4 where layers have fewer than 16."""
    narrowest = min(m.out_channels for m in model.modules() if isinstance(m, nn.Conv2d))
    return _SMALL_MULTIPLE if narrowest < _NARROW else _MULTIPLE


def require_prunable(model: nn.Module) -> None:
    """Raises CompressionError for a vision transformer."""
    if any(isinstance(module, nn.MultiheadAttention) for module in model.modules()):
        raise CompressionError(
            "the heads of a vision transformer would have to leave whole, which is not supported"
        )


def widths(model: Classifier, spec: ModelSpec) -> Widths:
    """The channels of each group."""
    copied = copy.deepcopy(model).eval()
    groups = _groups(copied, _graph(copied, spec))
    return {name: len(group[0].idxs) for name, group in groups}


def score(model: Classifier, spec: ModelSpec, measure: Callable[[Any], Tensor | None]) -> Scores:
    """The importance of all channels that may leave, by `measure` of a torch-pruning group.

    Raises CompressionError for scores that are not finite.
    """
    scores = {}
    for name, group in _groups(model, _graph(model, spec)):
        values = measure(group)
        if values is None:  # nothing in the group that the measure looks at
            continue
        if not values.isfinite().all():
            raise CompressionError(f"the importance of the channels of {name} is not finite")
        scores[name] = values.double()
    return scores


def remove(model: Classifier, spec: ModelSpec, scores: Scores, keep: Widths) -> Classifier:
    """A copy of `model` with the `keep` most important channels of each group."""
    slim = copy.deepcopy(model).eval()
    graph = _graph(slim, spec)
    for name, group in list(_groups(slim, graph)):
        count = len(group[0].idxs) - keep.get(name, len(group[0].idxs))
        if count > 0:
            root, least = group[0].dep, scores[name].argsort(stable=True)[:count].tolist()
            graph.get_pruning_group(root.target.module, root.handler, sorted(least)).prune()
    return slim.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def keep_of_layers(
    scores: Scores, original: Mapping[str, int], multiple: int, share: float
) -> Widths:
    """What stays when `share` of the original channels leaves every group, rounded down."""
    return {
        name: min(len(values), _rounded((1 - share) * original[name], original[name], multiple))
        for name, values in scores.items()
    }


def keep_of_all(scores: Scores, original: Mapping[str, int], multiple: int, share: float) -> Widths:
    """What stays when the least important `share` of all present channels leaves, rounded down."""
    every = torch.cat(list(scores.values())).sort().values
    least = every[min(len(every) - 1, round(share * len(every)))]
    return {
        name: min(len(values), _rounded(int((values >= least).sum()), original[name], multiple))
        for name, values in scores.items()
    }


def _rounded(channels: float, original: int, multiple: int) -> int:
    """Down to a multiple, but never to none; a layer narrower than that stays whole."""
    whole = int(channels + 1e-9) // multiple * multiple
    return max(whole, min(multiple, original))


def _graph(model: Classifier, spec: ModelSpec) -> Any:
    import torch_pruning  # 3 s with its own imports; the distilled candidate does without

    example = torch.zeros(1, 3, spec.size, spec.size)
    return torch_pruning.DependencyGraph().build_dependency(model, example_inputs=example)


def _groups(model: Classifier, graph: Any) -> Iterator[tuple[str, Any]]:
    """All groups but those of the head, whose outputs are the classes, with their names."""
    names = {module: name for name, module in model.named_modules()}
    head = [layer for layer in model.head.modules() if isinstance(layer, nn.Linear)]
    for group in graph.get_all_groups(ignored_layers=head):
        yield names[group[0].dep.target.module], group

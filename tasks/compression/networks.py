"""The networks that may become candidates: by each technique, from the mildest to the strongest."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from tasks.compression.channels import require_prunable
from tasks.compression.context import Context, Network
from tasks.compression.distil import distil, untrained
from tasks.compression.prune import Pruner, prune
from tasks.compression.targets import removed_from

FP32 = "fp32"
Strength = TypeVar("Strength")


@dataclass(frozen=True)
class Plan:
    """A network: how it is made, and how its shape is had without training it."""

    name: str
    technique: str
    make: Callable[[Context], Network]
    shape: Callable[[Context], Network]


def original(context: Context) -> list[Plan]:
    """What is there without training: the network itself, and the soup where there is one."""
    given = [(FP32, "float32", (context.teacher, context.spec))]
    if context.soup is not None:
        given.append(("soup", "model soup", context.soup))
    return [_given(*row) for row in given]


def ladders(context: Context) -> list[list[Plan]]:
    """The strengths of each technique, the mildest first."""
    widths = {f"w{width}": width for width in sorted(context.params.distil.widths, reverse=True)}
    ratios = {f"{ratio:g}": ratio for ratio in sorted(context.params.prune.ratios)}
    return [
        _ladder("distilled", "knowledge distillation", widths, _distilled, _student),
        _ladder("pruned", "structured pruning", ratios, _pruned, _cut),
    ]


def _ladder(
    name: str,
    technique: str,
    strengths: Mapping[str, Strength],
    make: Callable[[Strength, Context], Network],
    shape: Callable[[Strength, Context], Network],
) -> list[Plan]:
    """A plan for each strength, by its name; a single one goes unsaid."""
    return [
        Plan(
            f"{name}-{said}" if len(strengths) > 1 else name,
            technique,
            partial(make, strength),
            partial(shape, strength),
        )
        for said, strength in strengths.items()
    ]


def _given(name: str, technique: str, network: Network) -> Plan:
    return Plan(name, technique, lambda _: network, lambda _: network)


def _distilled(width: int, context: Context) -> Network:
    return distil(
        context.mentor or context.teacher,
        context.spec,
        context.splits,
        context.training,
        context.params.distil,
        width,
        context.work / f"distilled-{width}.pt",
    )


def _student(width: int, context: Context) -> Network:
    return untrained(context.spec, context.params.distil, width, context.training.seed)


def _pruned(ratio: float, context: Context) -> Network:
    params = context.params
    model = prune(
        context.teacher,
        context.spec,
        context.splits,
        context.training,
        (params.prune, params.distil),
        ratio,
        context.work / f"pruned-{ratio:g}.pt",
        params.latency_runs,
    )
    return model, context.spec


def _cut(ratio: float, context: Context) -> Network:
    """The channels leave in one step, whatever `steps` is: the shape hardly differs."""
    params, spec = context.params, context.spec
    require_prunable(context.teacher)
    seed = context.training.seed
    pruner = Pruner(context.teacher, spec, context.train, params.prune, ratio, seed)
    with removed_from(context.teacher, spec, params.prune.target, params.latency_runs) as removed:
        return pruner.without(context.teacher, ratio, removed), spec

"""The networks that may become candidates: by each technique, from the mildest to the strongest."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from tasks.compression.channels import require_prunable
from tasks.compression.context import Context, Network
from tasks.compression.distil import distil, untrained
from tasks.compression.prune import Pruner, prune
from tasks.compression.targets import removed_from

FP32 = "fp32"


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
    widths = sorted(context.params.distil.widths, reverse=True)
    students = [
        Plan(
            _name("distilled", f"w{width}", len(widths)),
            "knowledge distillation",
            partial(_distilled, width=width),
            partial(_student, width=width),
        )
        for width in widths
    ]
    ratios = sorted(context.params.prune.ratios)
    pruned = [
        Plan(
            _name("pruned", f"{ratio:g}", len(ratios)),
            "structured pruning",
            partial(_pruned, ratio=ratio),
            partial(_cut, ratio=ratio),
        )
        for ratio in ratios
    ]
    return [students, pruned]


def _given(name: str, technique: str, network: Network) -> Plan:
    return Plan(name, technique, lambda _: network, lambda _: network)


def _name(technique: str, strength: str, strengths: int) -> str:
    return f"{technique}-{strength}" if strengths > 1 else technique


def _distilled(context: Context, width: int) -> Network:
    return distil(
        context.mentor or context.teacher,
        context.spec,
        context.splits,
        context.training,
        context.params.distil,
        width,
        context.work / f"distilled-{width}.pt",
    )


def _student(context: Context, width: int) -> Network:
    return untrained(context.spec, context.params.distil, width, context.training.seed)


def _pruned(context: Context, ratio: float) -> Network:
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


def _cut(context: Context, ratio: float) -> Network:
    """The channels leave in one step, whatever `steps` is: the shape hardly differs."""
    params, spec = context.params, context.spec
    require_prunable(context.teacher)
    seed = context.training.seed
    pruner = Pruner(context.teacher, spec, context.train, params.prune, ratio, seed)
    with removed_from(context.teacher, spec, params.prune.target, params.latency_runs) as removed:
        return pruner.without(context.teacher, ratio, removed), spec

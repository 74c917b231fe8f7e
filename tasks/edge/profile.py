"""What a model costs on this machine, node by node, and how near that is to the best possible.

The floor of a node is the roofline's: its multiply-accumulates at the best rate of this machine
at its precision, or its bytes at the best bandwidth, whichever takes longer (tasks/edge/machine).
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from tasks.compression.footprint import Footprint, footprint
from tasks.edge.machine import Machine, measure_machine
from tasks.edge.operators import Operator, operators
from tasks.errors import BundleError, RuntimeMissing
from tasks.runtime import RuntimeName, open_model, open_session

_WARM_UP = 5


@dataclass(frozen=True)
class Row:
    """An operator type, or one node: what all of it takes, and its floor, in milliseconds."""

    name: str
    type: str
    nodes: int
    ms: float
    share: float
    macs: int
    moved_bytes: int
    precision: str
    floor_ms: float
    bound: str


@dataclass(frozen=True)
class Profile:
    """Of one batch; median, best and 95th percentile are of whole runs without the profiler.

    These and the memory are of `runtime`, the operators always ONNX Runtime's.
    """

    model: str
    runtime: RuntimeName
    batch: int
    threads: int
    runs: int
    latency_ms: float
    best_ms: float
    p95_ms: float
    operators: list[Operator]
    memory: Footprint
    file_bytes: int
    machine: Machine

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one batch."""
        return sum(one.macs for one in self.operators)

    @property
    def weight_bytes(self) -> int:
        """Bytes of all constants, as the runtime holds them."""
        return sum(one.weight_bytes for one in self.operators)

    @property
    def operators_ms(self) -> float:
        """All nodes together, with the profiler on, which lengthens very small nodes."""
        return sum(one.ms for one in self.operators)

    @property
    def floor_ms(self) -> float:
        """The nodes' floors together."""
        return sum(row.floor_ms for row in self.nodes)

    @cached_property
    def nodes(self) -> list[Row]:
        """A row a node, the slowest first."""
        rows = [self._row(one.name, [one]) for one in self.operators]
        return sorted(rows, key=lambda row: -row.ms)

    @cached_property
    def types(self) -> list[Row]:
        """A row for each operator type and precision, the slowest first."""
        kinds = sorted(self.operators, key=lambda one: (one.type, one.precision))
        groups = groupby(kinds, key=lambda one: (one.type, one.precision))
        rows = [self._row(kind[0], list(many)) for kind, many in groups]
        return sorted(rows, key=lambda row: -row.ms)

    def as_json(self) -> dict[str, Any]:
        """As plain values."""
        totals = ("macs", "weight_bytes", "operators_ms", "floor_ms")
        plain = ("model", "runtime", "batch", "threads", "runs", "latency_ms", "best_ms", "p95_ms")
        return {
            **{name: getattr(self, name) for name in (*plain, *totals)},
            "file_bytes": self.file_bytes,
            "floor_share": self.floor_ms / self.best_ms,  # best beside best
            "memory": asdict(self.memory),
            "machine": asdict(self.machine),
            "types": [asdict(row) for row in self.types],
            "nodes": [asdict(row) for row in self.nodes],
        }

    def _row(self, name: str, many: list[Operator]) -> Row:
        taken = sum(one.ms for one in many)
        machine = self.machine
        floors = [machine.floor_s(one.macs, one.moved_bytes, one.precision) for one in many]
        computing = sum(one.macs / machine.macs_per_s(one.precision) for one in many)
        return Row(
            name=name,
            type=many[0].type,
            nodes=len(many),
            ms=taken,
            share=taken / (self.operators_ms or 1),
            macs=sum(one.macs for one in many),
            moved_bytes=sum(one.moved_bytes for one in many),
            precision=many[0].precision,
            floor_ms=1e3 * sum(floors),
            bound="compute" if 2 * computing > sum(floors) else "memory",
        )


def profile(
    model: Path, threads: int, batch: int, runs: int, runtime: RuntimeName = "onnxruntime"
) -> Profile:
    """Measure an ONNX file on `batch` random images, uint8 S×S×3, of the side S that it takes.

    Takes some seconds. Raises BundleError when the file cannot be run, RuntimeMissing.
    """
    try:
        sides = open_session(model, threads).get_inputs()[0].shape[1:]
        images = np.random.default_rng(0).integers(0, 256, (batch, *sides), np.uint8)
        run = open_model(model, runtime, threads)
        seconds = _seconds(lambda: run(images), runs)
        nodes = operators(model, images, threads, runs)
    except RuntimeMissing:
        raise
    except Exception as error:  # onnxruntime's exceptions share no base of their own
        raise BundleError(f"{model} cannot be run: {error}") from error
    best, median, p95 = np.percentile(np.array(seconds) * 1e3, [0, 50, 95])
    return Profile(
        model=str(model),
        runtime=runtime,
        batch=batch,
        threads=threads,
        runs=runs,
        latency_ms=float(median),
        best_ms=float(best),
        p95_ms=float(p95),
        operators=nodes,
        memory=footprint(model, threads, images.shape, runtime),
        file_bytes=model.stat().st_size,
        machine=measure_machine(threads, _working_set(nodes)),
    )


def _working_set(nodes: list[Operator]) -> int:
    """Bytes that are touched again in each run: all constants, and the largest activations."""
    constants = sum(node.weight_bytes for node in nodes)
    return constants + max(node.moved_bytes - node.weight_bytes for node in nodes)


def _seconds(run: Callable[[], object], runs: int) -> list[float]:
    for _ in range(_WARM_UP):
        run()
    taken = []
    for _ in range(runs):
        started = time.perf_counter()
        run()
        taken.append(time.perf_counter() - started)
    return taken

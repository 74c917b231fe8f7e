"""What this machine can do at best: multiply-accumulates and bytes a second, measured.

The two ceilings of the roofline model (S. Williams, A. Waterman, D. Patterson, "Roofline: an
insightful visual performance model for multicore architectures", CACM 52(4), 2009). Both are
what a program reaches, not what a data sheet says: ONNX Runtime's own matrix products, and
copies in memory. A short measurement, some tenths of a second; the best of many tries counts.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tasks.runtime import open_session

Precision = Literal["int8", "float32"]

_SHAPES = ((256, 1024, 1024), (512, 512, 512))  # rows, depth, columns of the products tried
_TRIES = 20
_OWN_CACHE = 1 << 20  # bytes; what is smaller lies in the cache of each core
_SMALLEST = 1 << 14  # bytes of a copy: below, the call itself would be measured
_LEAST_SECONDS = 2e-4  # of one timing of copies


@dataclass(frozen=True)
class Machine:
    """Best rates with `threads` threads; the bandwidth is that of a working set in bytes."""

    threads: int
    int8_macs_per_s: float
    float32_macs_per_s: float
    working_set_bytes: int
    bytes_per_s: float

    def floor_s(self, macs: int, moved: int, precision: Precision) -> float:
        """Seconds that so many multiply-accumulates and moved bytes take at the least."""
        return max(macs / self.macs_per_s(precision), moved / self.bytes_per_s)

    def macs_per_s(self, precision: Precision) -> float:
        """The best rate at this precision."""
        return self.int8_macs_per_s if precision == "int8" else self.float32_macs_per_s


def measure_machine(threads: int, working_set_bytes: int) -> Machine:
    """Measure both ceilings with that many threads, the bandwidth on so large a working set."""
    return Machine(
        threads=threads,
        int8_macs_per_s=_best_product("int8", threads),
        float32_macs_per_s=_best_product("float32", threads),
        working_set_bytes=working_set_bytes,
        bytes_per_s=_bandwidth(working_set_bytes, threads),
    )


def _best_product(precision: Precision, threads: int) -> float:
    """Multiply-accumulates a second of the fastest matrix product tried."""
    return max(
        rows * depth * columns / _fastest(_product(precision, rows, depth, columns, threads))
        for rows, depth, columns in _SHAPES
    )


def _product(
    precision: Precision, rows: int, depth: int, columns: int, threads: int
) -> Callable[[], object]:
    """A product with constant weights in ONNX Runtime: uint8 × int8, or float32."""
    random = np.random.default_rng(0)
    left = random.integers(0, 256, (rows, depth), np.uint8)
    right = random.integers(-127, 128, (depth, columns), np.int8)
    operator, result = "MatMulInteger", TensorProto.INT32
    given: Any = (left, right)
    if precision == "float32":
        operator, result = "MatMul", TensorProto.FLOAT
        given = (left.astype(np.float32), right.astype(np.float32))
    graph = helper.make_graph(
        [helper.make_node(operator, ["a", "b"], ["y"])],
        "product",
        [
            helper.make_tensor_value_info(
                "a", onnx.helper.np_dtype_to_tensor_dtype(given[0].dtype), left.shape
            )
        ],
        [helper.make_tensor_value_info("y", result, (rows, columns))],
        [numpy_helper.from_array(given[1], "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    session = open_session(model.SerializeToString(), threads)
    return lambda: session.run(None, {"a": given[0]})


def _bandwidth(working_set: int, threads: int) -> float:
    """Bytes read and written a second by copying one half of the working set to the other.

    What fits into a core's own cache is copied in one thread and counted for each.
    """
    shared = working_set >= _OWN_CACHE
    half = max(_SMALLEST, working_set // 2 // (threads if shared else 1))
    pairs = [(np.ones(half, np.uint8), np.zeros(half, np.uint8)) for _ in range(threads)]
    if not shared:
        return threads * 2 * half / _copy_seconds(*pairs[0])
    with ThreadPoolExecutor(threads) as pool:
        taken = list(pool.map(lambda pair: _copy_seconds(*pair), pairs))
    return sum(2 * half / seconds for seconds in taken)


def _copy_seconds(source: Any, target: Any) -> float:
    """Seconds of one copy, the best of some tries of many copies each."""
    once = _fastest(lambda: np.copyto(target, source))
    times = max(1, round(_LEAST_SECONDS / once))

    def many() -> None:
        for _ in range(times):
            np.copyto(target, source)

    return _fastest(many) / times


def _fastest(run: Callable[[], object]) -> float:
    run()
    best = float("inf")
    for _ in range(_TRIES):
        started = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - started)
    return best

"""Which layers int8 costs most, and which go back to float until the budget holds.

The cost of a layer is the error of the logits with that layer alone in int8, on training
images; whether the budget holds is asked on validation images. The layers go back in the order
of their cost, as few as will do: the number is sought by doubling and halving, so that a
network of fifty layers is tried about ten times, not fifty.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from tasks.compression.calibration import Range
from tasks.compression.int8 import layers, to_int8
from tasks.compression.runtime import logit_error, run_logits
from tasks.pixels import Pixels
from tasks.runtime import Floats, open_session

Holds = Callable[[Any], bool]
log = logging.getLogger(__name__)


def costs(graph: Any, ranges: dict[str, Range], images: Pixels, wanted: Floats) -> dict[str, float]:
    """By node, the most costly first: the logit error with that node alone in int8.

    `wanted` float32 N×C are the float graph's logits of `images`, uint8 N×S×S×3.
    """
    found = {}
    for node in layers(graph):
        alone = to_int8(graph, ranges, only=[node])
        session = open_session(alone.SerializeToString(), 1)
        found[node] = logit_error(run_logits(session, images), wanted)
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def put_back(
    graph: Any, ranges: dict[str, Range], order: Sequence[str], holds: Holds
) -> list[str] | None:
    """The fewest first nodes of `order` with which in float the int8 graph holds, by `holds`.

    None when it does not hold even with a single layer left in int8.
    """
    most = len(order) - 1

    def enough(count: int) -> bool:
        return holds(to_int8(graph, ranges, floats=order[:count]))

    low, high = 0, 1  # `low` does not hold
    while not enough(min(high, most)):
        if high >= most:
            return None
        low, high = high, 2 * high
    high = min(high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return list(order[:high])

"""One of the corruptions, by its name, applied to images."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from tasks.evaluation.corruptions import blur, digital, noise, scene, weather
from tasks.evaluation.corruptions.levels import Levels, levels_for
from tasks.evaluation.corruptions.names import FAMILIES, SEVERITIES
from tasks.pixels import Pixels

_VALUES = 1 << 22  # of a batch: the intermediates of one stay in the hundreds of MB
_MODULES = {
    "noise": noise,
    "blur": blur,
    "weather": weather,
    "digital": digital,
    "viewpoint": scene,
    "scene": scene,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    name: getattr(_MODULES[family], name) for family, names in FAMILIES.items() for name in names
}


def corrupt(
    images: Pixels, name: str, severity: int, seed: int, levels: Levels | None = None
) -> Pixels:
    """uint8 N×S×S×3 to the same; the same images, name, severity and seed give the same pixels.

    Raises ValueError for a name or a severity that there is not.
    """
    if severity not in SEVERITIES:
        raise ValueError(f"no severity {severity}; there are {SEVERITIES[0]} to {SEVERITIES[-1]}")
    if name not in _FUNCTIONS:
        raise ValueError(f"no corruption {name!r}; there are {', '.join(_FUNCTIONS)}")
    function = _FUNCTIONS[name]
    parameters = (levels or levels_for(images.shape[1]))[name][severity - 1]
    draw = torch.Generator().manual_seed(seed)

    def changed(part: Pixels) -> Pixels:
        if function in digital.ON_BYTES:
            return np.asarray(function(part, draw, *parameters))
        return digital.as_bytes(function(digital.as_floats(part), draw, *parameters))

    size = max(1, _VALUES // images[0].size) if len(images) else 1
    parts = (np.asarray(images[at : at + size]) for at in range(0, len(images), size))
    with torch.inference_mode():
        return np.concatenate([images[:0], *map(changed, parts)])

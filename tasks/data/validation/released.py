"""What the last released dataset looked like, as its release bundle remembers it.

The release is state outside the DVC graph: the steps look it up when they run, and say in
their results which one it was. A promotion does not make a step run again.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.bundle import open_bundle
from tasks.params import load_settings
from tasks.releases import current


@dataclass(frozen=True)
class Released:
    """A release's name, its classes, and the image statistics of its held-out images."""

    name: str
    classes: tuple[str, ...]
    statistics: dict[str, npt.NDArray[np.float64]]
    """By name of tasks.pixels.STATISTICS, float64 [N]: test, then validation images."""


def last_released() -> Released | None:
    """The release that is served from <home>/releases, or None before the first promotion.

    Raises BundleError when it is damaged or not signed by a trusted key.
    """
    settings = load_settings()
    release = current(settings)
    if release is None:
        return None
    bundle = open_bundle(release.path, settings)
    reference = bundle.reference()
    columns = np.asarray(reference["statistics"], np.float64).T
    names = [str(name) for name in reference["statistic_names"]]
    return Released(
        f"release v{release.version} ({release.digest})",
        tuple(bundle.info.classes),
        dict(zip(names, columns, strict=True)),
    )

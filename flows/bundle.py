"""The bundle that a command is about: the named one, that in production, or the newest."""

from pathlib import Path

from tasks.bundle import Bundle, open_bundle
from tasks.errors import BundleError
from tasks.params import Settings
from tasks.releases import current

BUILT = Path("data/bundle")


def chosen_bundle(given: Path | None, settings: Settings) -> Bundle:
    """Verify and open it; raises BundleError when there is none, or it was altered."""
    if given is not None:
        return open_bundle(given, settings)
    release = current(settings)
    if release is not None:
        return open_bundle(release.path, settings)
    if not BUILT.is_dir():
        raise BundleError(
            f"no release in {settings.releases} and no {BUILT}; `visionloop run` makes both, or "
            "name a bundle"
        )
    return open_bundle(BUILT, settings)

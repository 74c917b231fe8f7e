"""The bundle that a command is about: the named one, that in production, or the newest."""

import os
from pathlib import Path

from tasks.bundle import Bundle, open_bundle
from tasks.errors import BundleError
from tasks.params import Settings
from tasks.releases import current

BUILT = Path("data/bundle")
_CHAMPION = "champion"
_IN_REGISTRY = ("previous", "challenger")


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


def named_bundle(name: str, settings: Settings) -> Bundle:
    """A folder's bundle, a registered version's (3, v3), or champion's, previous', challenger's.

    The champion is the release in production here. What is not kept here comes from MLflow, for
    which a server is started where none runs. Raises BundleError for an altered bundle and for a
    name that is none of these, RegistryError for a version or alias that there is not.
    """
    if Path(name).is_dir():
        return open_bundle(name, settings)
    if name == _CHAMPION and (release := current(settings)) is not None:
        return open_bundle(release.path, settings)
    number = name.removeprefix("v")
    if not number.isdigit() and name not in (_CHAMPION, *_IN_REGISTRY):
        raise BundleError(
            f"{name!r} is no folder with a bundle, no version (as 3), and none of {_CHAMPION}, "
            f"{', '.join(_IN_REGISTRY)}"
        )
    kept = sorted(settings.releases.glob(f"v{number}-*")) if number.isdigit() else []
    return open_bundle(kept[0], settings) if len(kept) == 1 else _from_registry(name, settings)


def place_of(name: str) -> str:
    """A name that stays what it is in another working directory: of a folder its full path."""
    folder = Path(os.path.expanduser(name))
    return str(folder.resolve()) if folder.is_dir() else name


def title_of(name: str) -> str:
    """A name as a reader of a page wants it: of a number that it is a version."""
    return f"version {name.removeprefix('v')}" if name.removeprefix("v").isdigit() else name


def _from_registry(name: str, settings: Settings) -> Bundle:
    from tasks.errors import RegistryError
    from tasks.registry.server import temporary_server
    from tasks.registry.versions import fetch, status

    with temporary_server(settings) as reachable:
        number = name.removeprefix("v")
        version = int(number) if number.isdigit() else getattr(status(reachable), name)
        if version is None:
            raise RegistryError(f"there is no {name} yet; `visionloop status` shows what there is")
        return fetch(version, reachable)

"""The local release directory: promotion writes it, the server follows it.

<home>/releases/v<version>-<digest>/   a bundle
<home>/releases/current                a symbolic link, replaced in one rename
"""

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from tasks.bundle import Bundle, open_bundle
from tasks.errors import BundleError
from tasks.files import write_directory, write_text
from tasks.params import Settings
from tasks.signing import GATE

_CURRENT = "current"
_NAME = re.compile(r"v(?P<version>\d+)-(?P<digest>[0-9a-f]{12})")


@dataclass(frozen=True)
class Release:
    """A published bundle, the registry version it is, and the start of its digest."""

    version: int
    digest: str
    path: Path


def publish(bundle: Bundle, version: int, settings: Settings) -> Release:
    """Copy the bundle into the release directory, verify the copy, and make it current.

    Of a bundle that was released before only the gate's decision is copied again.
    """
    target = settings.releases / f"v{version}-{bundle.digest[:12]}"
    if not target.exists():
        write_directory(target, lambda to: _copy(bundle.path, to))
    elif (decision := bundle.path / GATE).exists():
        write_text(target / GATE, decision.read_text(encoding="utf-8"))
    if open_bundle(target, settings).digest != bundle.digest:
        raise BundleError(f"{target} is not the bundle of version {version}; remove it and retry")
    link = settings.releases / f".{_CURRENT}.{uuid4().hex[:8]}"
    link.symlink_to(target.name)
    os.replace(link, settings.releases / _CURRENT)
    return Release(version, bundle.digest[:12], target)


def current(settings: Settings) -> Release | None:
    """The release to serve, or None before the first promotion; cheap enough to poll."""
    try:
        name = os.readlink(settings.releases / _CURRENT)
    except OSError:
        return None
    match = _NAME.fullmatch(name)
    if match is None:
        raise BundleError(f"{settings.releases / _CURRENT} points to {name!r}, not to a release")
    return Release(int(match["version"]), match["digest"], settings.releases / name)


def find(digest: str, settings: Settings) -> Release | None:
    """A bundle that was released, by its digest; None when it is not there (any more)."""
    for path in sorted(settings.releases.glob(f"v*-{digest[:12]}")):
        if match := _NAME.fullmatch(path.name):
            return Release(int(match["version"]), match["digest"], path)
    return None


def _copy(source: Path, target: Path) -> None:
    for path in source.iterdir():
        shutil.copy2(path, target / path.name)

"""`visionloop export`: a bundle as a folder for a device, or in another runtime's format."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from flows.bundle import chosen_bundle
from tasks.bundle import Bundle
from tasks.edge.folder import check_output, export_edge, fill_edge
from tasks.edge.targets import CONVERTED, REFUSED
from tasks.errors import BundleError
from tasks.params import Settings, load_settings

EDGE = "edge"
TARGETS = (EDGE, *CONVERTED)


@dataclass(frozen=True)
class Exported:
    """What was written, or with `dry` would be: bytes by file name; how it was checked."""

    target: str
    bundle: str
    output: str
    dry: bool
    files: Mapping[str, int]
    comparison: Mapping[str, Any] | None = None
    environment: str | None = None
    notes: Sequence[str] = ()

    def as_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def export(
    given: Path | None, target: str, output: Path, images: Path | None, force: bool, dry: bool
) -> Exported:
    """Export a bundle; with `dry` check everything that can be, and write nothing.

    Raises BundleError, DataError or ServiceError, and then leaves what was at `output` as it was.
    """
    settings = load_settings()
    if target in REFUSED:
        raise BundleError(f"no export to {target}: {REFUSED[target]}")
    if target not in TARGETS:
        raise BundleError(f"no target {target!r}; there are {', '.join(TARGETS)}")
    if target == EDGE and images is not None:
        raise BundleError("--images verifies a conversion; --target edge copies the model as it is")
    output = output.resolve()
    check_output(output, force)
    bundle = chosen_bundle(given, settings)
    if target == EDGE:
        return _edge(bundle, output, dry)
    return _converted(bundle, target, output, images, dry, settings)


def _edge(bundle: Bundle, output: Path, dry: bool) -> Exported:
    if dry:
        with tempfile.TemporaryDirectory() as scratch:
            fill_edge(bundle, Path(scratch))
            return _exported(EDGE, bundle, output, _sizes(Path(scratch)), dry)
    export_edge(bundle, output)
    return _exported(EDGE, bundle, output, _sizes(output), dry)


def _converted(
    bundle: Bundle, target: str, output: Path, given: Path | None, dry: bool, settings: Settings
) -> Exported:
    from tasks.edge.convert import convert, notes, verification_images
    from tasks.edge.environments import environment, named

    images, told = verification_images(bundle, given), notes(bundle, target)
    if dry:
        folder = environment(target, settings)
        missing = None if folder.is_dir() else f"{named(target)} into {folder}"
        return _exported(target, bundle, output, {}, dry, environment=missing, notes=told)
    found = asdict(convert(bundle, target, images, output, settings))
    return _exported(target, bundle, output, _sizes(output), dry, comparison=found, notes=told)


def _exported(
    target: str, bundle: Bundle, output: Path, files: Mapping[str, int], dry: bool, **more: Any
) -> Exported:
    return Exported(target, str(bundle.path), str(output), dry, files, **more)


def _sizes(folder: Path) -> dict[str, int]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.stat().st_size for path in files}


def show(done: Exported, console: Console) -> None:
    """Print the folder, its files, and the comparison."""
    console.print(f"bundle {done.bundle}", markup=False)
    verb = "would write" if done.dry else "wrote"
    console.print(f"{verb} {done.output}", markup=False)
    for name, size in done.files.items():
        console.print(f"  {name:24s} {size:>12,} bytes", markup=False)
    if done.environment:
        console.print(f"would install {done.environment}", markup=False)
    if done.comparison:
        found = done.comparison
        of = CONVERTED[done.target]
        what = "the PyTorch program that it was made from" if of.elsewhere else "verified"
        console.print(
            f"{what} on {found['images']} images against the bundle: largest probability "
            f"difference {found['max_difference']:.2g}, same answer on {found['agreement']:.2%}"
        )
    for note in done.notes:
        console.print(note, markup=False)
    if done.target == EDGE and not done.dry:
        console.print(f"try it: [bold]python {done.output}/run.py IMAGE...[/]")

"""A release bundle → another runtime's format, compared with the bundle on real images.

The converter is a script of its own (tasks/edge/converters/<target>.py) that runs in an isolated
environment. It writes the converted model and, where the format's runtime is in that environment,
what the converted model answers on the images given; else what the PyTorch program answers that
the format was made from.
"""

import logging
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tasks.bundle import MODEL, Bundle
from tasks.data.shards import SHARDS, open_shards
from tasks.edge.environments import CONVERTERS, interpreter, pinned
from tasks.edge.folder import write_about
from tasks.edge.targets import CONVERTED
from tasks.errors import BundleError, DataError
from tasks.files import remove_leftovers, write_directory
from tasks.params import Settings
from tasks.pixels import Pixels, UnreadableImage

FLOAT_DIFFERENCE = 1e-3  # largest probability difference of a float model: as for our exports
INT8_AGREEMENT = 0.99  # least share of equal answers of an int8 model, whose sums round otherwise
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
_MOST = 512  # images compared
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Comparison:
    """Converted model against the bundle's own: largest probability difference, equal answers."""

    images: int
    max_difference: float
    agreement: float


def verification_images(bundle: Bundle, given: Path | None) -> Pixels:
    """Up to 512 images as the model's input: those under the folder `given`, else validation's.

    Raises DataError when there are none that fit the bundle.
    """
    if given is not None:
        return _from_files(bundle, given)
    shards = open_shards(SHARDS)
    if shards.contract != bundle.info.input:
        raise DataError(
            f"the images in {SHARDS} were prepared for another model than {bundle.path}; give "
            "a folder of images with --images"
        )
    images = shards.split("validation").images
    return np.asarray(images[_spread(len(images))])


def convert(
    bundle: Bundle, target: str, images: Pixels, output: Path, settings: Settings
) -> Comparison:
    """Write the converted model with model.json to `output`, atomically.

    Where the format's runtime is not here, the comparison is of the PyTorch program that it was
    made from, and `notes` says so. Nothing is written when the answers are not the bundle's:
    BundleError. Raises ServiceError when the converter's environment cannot be installed.
    """
    python = interpreter(target, settings)
    comparisons: list[Comparison] = []

    def fill(folder: Path) -> None:
        answers = _run(python, target, bundle, images, folder)
        found = compare(bundle, images, answers)
        _require_equal(bundle, target, found)
        models = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
        told = _told(bundle, target, found)
        write_about(folder, bundle, target, models, **told, packages=pinned(target))
        comparisons.append(found)

    remove_leftovers(output)
    write_directory(output, fill)
    return comparisons[0]


def notes(bundle: Bundle, target: str) -> list[str]:
    """What a user must know of the bundle in this format, beside the comparison."""
    of = CONVERTED[target]
    found = []
    if of.elsewhere:
        found.append(f"converted, not verified here: {of.elsewhere}")
    if not of.int8 and is_quantized(bundle.path / MODEL):
        found.append(f"int8 layers became float32: {of.title} is made of the float equivalent")
    return found


def _told(bundle: Bundle, target: str, found: Comparison) -> dict[str, Any]:
    """For model.json: the comparison under what it was of, and the notes."""
    elsewhere = CONVERTED[target].elsewhere
    about: dict[str, Any] = {"verified": None if elsewhere else asdict(found)}
    if elsewhere:
        about["program"] = asdict(found)
    return {**about, "notes": notes(bundle, target)}


def compare(bundle: Bundle, images: Pixels, answers: Pixels) -> Comparison:
    """Probabilities N×C of the converted model beside the bundle's, on the same N images."""
    wanted = np.concatenate([bundle.predict(part)[0] for part in _parts(images)])
    if answers.shape != wanted.shape or not np.isfinite(answers).all():
        raise BundleError(
            f"the converted model answers {answers.shape}, not {wanted.shape} numbers"
        )
    return Comparison(
        images=len(images),
        max_difference=float(np.abs(answers - wanted).max()),
        agreement=float((answers.argmax(1) == wanted.argmax(1)).mean()),
    )


def _require_equal(bundle: Bundle, target: str, found: Comparison) -> None:
    int8 = is_quantized(bundle.path / MODEL)
    same = found.agreement >= INT8_AGREEMENT if int8 else found.max_difference <= FLOAT_DIFFERENCE
    if not same:
        allowed = f"agreement {INT8_AGREEMENT}" if int8 else f"difference {FLOAT_DIFFERENCE}"
        raise BundleError(
            f"the {target} model does not answer as {bundle.path} does: on {found.images} images "
            f"the largest probability difference is {found.max_difference:.3g}, the agreement "
            f"{found.agreement:.4f} (allowed: {allowed}); nothing was written"
            + _way_out(target, int8)
        )


def _way_out(target: str, int8: bool) -> str:
    if not int8 or CONVERTED[target].int8:
        return ""
    return ". Its int8 layers become float32 in this format: export a float model, or to executorch"


def is_quantized(model: Path) -> bool:
    """Whether an ONNX file has int8 layers."""
    import onnx

    nodes = onnx.load(model).graph.node
    return any(node.op_type == "QuantizeLinear" or "QLinear" in node.op_type for node in nodes)


def _run(python: Path, target: str, bundle: Bundle, images: Pixels, folder: Path) -> Pixels:
    """Run the converter; its probabilities on the images."""
    with tempfile.TemporaryDirectory() as scratch:
        given, answers = Path(scratch, "images.npy"), Path(scratch, "probabilities.npy")
        np.save(given, images)
        script = CONVERTERS / f"{target}.py"
        words: Sequence[Path] = (script, (bundle.path / MODEL).resolve(), given, folder, answers)
        done = subprocess.run([python, "-I", *words], cwd=scratch, capture_output=True, text=True)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["it said nothing"]
            log.debug("%s", done.stderr)
            raise BundleError(f"{target} cannot take {bundle.path / MODEL}: {lines[-1]}")
        found: Pixels = np.load(answers, allow_pickle=False)
        return found


def _from_files(bundle: Bundle, folder: Path) -> Pixels:
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
    if not paths:
        raise DataError(f"no image files ({', '.join(_SUFFIXES)}) under {folder}")
    try:
        return np.stack([bundle.pixels(paths[index]) for index in _spread(len(paths))])
    except UnreadableImage as error:
        raise DataError(f"an image under {folder} cannot be read: {error}") from None


def _spread(count: int) -> np.ndarray:
    """At most _MOST indices, evenly over all."""
    return np.unique(np.linspace(0, count - 1, min(count, _MOST)).round().astype(int))


def _parts(images: Pixels) -> list[Pixels]:
    return [images[start : start + 64] for start in range(0, len(images), 64)]

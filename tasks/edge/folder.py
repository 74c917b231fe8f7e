"""A release bundle → a folder that a device runs with onnxruntime, numpy and pillow alone.

model.onnx              the bundle's, unchanged
model.json              target, classes, input contract, thresholds, threads, SHA-256, digest of
                        the bundle
run.py                  image files → answers (tasks/edge/run.py)
tasks/pixels.py, ...    file → pixels → answer, the same files that the server uses
requirements.txt        the three packages, in the versions of the machine that exported
"""

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tasks.bundle import MODEL, Bundle
from tasks.errors import BundleError
from tasks.files import remove_leftovers, sha256, write_directory, write_json, write_text
from tasks.runtime import version_of

ABOUT, RUNNER, REQUIREMENTS = "model.json", "run.py", "requirements.txt"
_ROOT = Path(__file__).parents[2]
_MODULES = ("__init__", "decision", "errors", "normalise", "pixels")
_PACKAGES = ("numpy", "onnxruntime", "pillow")


def check_output(output: Path, force: bool) -> None:
    """Raise BundleError when something is at `output` that may not be replaced.

    With `force` an earlier export may be; a folder of anything else never.
    """
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not (output / ABOUT).is_file():
        raise BundleError(f"{output} exists and is no earlier export; name another folder")
    if not force:
        raise BundleError(f"{output} holds an earlier export; --force replaces it")


def export_edge(bundle: Bundle, output: Path) -> None:
    """Write the folder, atomically."""
    remove_leftovers(output)
    write_directory(output, lambda folder: fill_edge(bundle, folder))


def fill_edge(bundle: Bundle, folder: Path) -> None:
    """Write every file into an empty folder."""
    shutil.copyfile(bundle.path / MODEL, folder / MODEL)
    for name in [f"tasks/{module}.py" for module in _MODULES]:
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(_ROOT / name, folder / name)
    shutil.copyfile(Path(__file__).with_name("run.py"), folder / RUNNER)
    pins = "".join(f"{name}=={version_of(name)}\n" for name in _PACKAGES)
    write_text(folder / REQUIREMENTS, pins)
    write_about(folder, bundle, "edge", [MODEL])


def write_about(folder: Path, bundle: Bundle, target: str, models: list[str], **more: Any) -> None:
    """Write model.json for the model files named, which are in `folder`."""
    info = bundle.info
    about = {
        "target": target,
        "bundle": bundle.digest,
        "architecture": info.architecture,
        "classes": info.classes,
        "input": info.input.model_dump(),
        "ood_score": info.ood_score,
        "decision": info.decision and asdict(info.decision),
        "threads": info.runtime.intra_op_threads,
        "sha256": {name: sha256(folder / name) for name in models},
        **more,
    }
    write_json(folder / ABOUT, about)

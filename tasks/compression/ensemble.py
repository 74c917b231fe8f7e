"""The step `ensemble`: the best trials or folds as one network, which teaches the students.

Takes the shards and data/tune (trials; their weights are in the sweep's own state) or
data/cross_validation (folds), gives data/ensemble (ensemble.json, the members, ensemble.onnx:
one file that averages inside) and data/metrics/ensemble.json; of kind none, it says so there.
"""

import logging
from pathlib import Path

from tasks.files import write_directory, write_json
from tasks.params import load_params
from tasks.step import run_step

ENSEMBLE, METRICS = Path("data/ensemble"), Path("data/metrics/ensemble.json")
ONNX = "ensemble.onnx"
log = logging.getLogger(__name__)


def main() -> None:
    """The step."""
    params = load_params()
    if params.ensemble.kind != "none":
        from tasks.compression.combine import run  # PyTorch: seconds that "none" does without

        run(params)
        return
    write_directory(ENSEMBLE, lambda folder: write_json(folder / "ensemble.json", {"kind": "none"}))
    write_json(METRICS, {"members": 0})
    log.info("ensemble.kind is none: nothing to do")


if __name__ == "__main__":
    run_step(main)

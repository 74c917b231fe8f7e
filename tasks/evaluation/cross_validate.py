"""The step `cross_validate`: how good the training is, on every image outside the test split.

Takes the shards and data/tune/best.yaml, gives data/cross_validation (a model a fold, the
out-of-fold probabilities, the scores and the label suspects with a page each) and
data/metrics/cross_validate.json; off, it says so there. Each fold is a recorded run below the
cross-validation's. Killed and run again, it goes on in the fold it was in.
"""

import logging
from pathlib import Path

from tasks.files import write_directory, write_json
from tasks.params import load_params
from tasks.step import run_step

TARGET, METRICS = Path("data/cross_validation"), Path("data/metrics/cross_validate.json")
RESULT = "result.json"
log = logging.getLogger(__name__)


def main() -> None:
    """The step."""
    params = load_params()
    if params.cross_validate.enabled:
        from tasks.evaluation.fold_training import run  # PyTorch: seconds that "off" does without

        run(params)
        return
    write_directory(TARGET, lambda folder: write_json(folder / RESULT, {"folds": []}))
    write_json(METRICS, {"folds": 0})
    log.info("cross_validate.enabled is false: nothing to do")


if __name__ == "__main__":
    run_step(main)

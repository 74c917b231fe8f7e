"""What the training steps record of every run: the data set, the code, the epochs."""

import shutil
import subprocess

from tasks.data.shards import SPLITS, Shards
from tasks.tracking import RunLog
from tasks.training.loop import Epoch


def record_origin(run: RunLog, shards: Shards, source: str) -> None:
    """The shards (their digest and image counts), where the images came from, the commit."""
    counts = {name: len(shards.split(name)) for name in SPLITS}
    run.dataset("shards", shards.digest, source, counts)
    commit = git_commit()
    if commit:
        run.tags({"git_commit": commit})


def record_epoch(run: RunLog, epoch: Epoch) -> None:
    """The epoch's losses, accuracy and learning rate."""
    values = {
        "train_loss": epoch.train_loss,
        "validation_loss": epoch.validation_loss,
        "validation_accuracy": epoch.validation_accuracy,
        "lr": epoch.lr,
    }
    run.metrics(values, step=epoch.epoch)


def git_commit() -> str | None:
    """The commit checked out in the working directory; None outside a repository."""
    git = shutil.which("git")
    if git is None:
        return None
    found = subprocess.run([git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return found.stdout.strip() if found.returncode == 0 else None

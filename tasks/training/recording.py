"""What the training steps record of every run: the data set, the code, the epochs."""

import logging
import shutil
import subprocess
from dataclasses import asdict

from tasks.data.shards import SPLITS, Shards
from tasks.tracking import RunLog
from tasks.training.fitness import Fitness
from tasks.training.loop import Epoch, StepHealth

log = logging.getLogger(__name__)


def record_origin(run: RunLog, shards: Shards, source: str) -> None:
    """The shards (their digest and image counts), where the images came from, the commit."""
    counts = {name: len(shards.split(name)) for name in SPLITS}
    run.dataset("shards", shards.digest, source, counts)
    commit = git_commit()
    if commit:
        run.tags({"git_commit": commit})


def record_epoch(run: RunLog, epoch: Epoch) -> None:
    """The epoch's losses, accuracy, learning rate, gradient norm, throughput, memory and cost."""
    values = {name: value for name, value in asdict(epoch).items() if value is not None}
    run.metrics(values, step=values.pop("epoch"))


def record_step(run: RunLog, health: StepHealth) -> None:
    """What training measured of itself over the last steps, as steps/loss, steps/lr, ..."""
    values = asdict(health)
    step = values.pop("step")
    run.metrics({f"steps/{name}": value for name, value in values.items()}, step=step)


def record_fitness(run: RunLog, fitness: Fitness) -> None:
    """How the network does on training images as they are; over- and underfitting are warned of."""
    values = {
        "training_images_loss": fitness.train_loss,
        "training_images_accuracy": fitness.train_accuracy,
    }
    run.metrics(values)
    run.tags({"fit": fitness.warning or fitness.state})
    if fitness.warning:
        log.warning("%s", fitness.warning)


def git_commit() -> str | None:
    """The commit checked out in the working directory; None outside a repository."""
    git = shutil.which("git")
    if git is None:
        return None
    found = subprocess.run([git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return found.stdout.strip() if found.returncode == 0 else None

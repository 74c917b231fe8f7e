"""False alarms and power of the drift check, beside Evidently's preset with its defaults.

Takes the bundle, the splits and the images that `dvc repro` leaves in data/. Windows of 300
images are drawn at random, clean (each kind of clean) or corrupted, and both methods decide
on the same columns.
"""

import argparse
import json
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.presets import DataDriftPreset
from PIL import Image, ImageFilter

from tasks.bundle import Bundle, open_bundle
from tasks.data.images import image_files, read_image, source_folders
from tasks.errors import DataError
from tasks.monitoring.drift import check_drift, columns
from tasks.params import load_params, load_settings
from tasks.pixels import statistics
from tasks.schema import Drift, Ingest

WINDOW = 300
OUR_REPEATS = 200
PEER_REPEATS = 10  # most of a second each

RNG = np.random.default_rng(0)


class Images(NamedTuple):
    """Decoded originals with their labels and what the model and the statistics say of them."""

    originals: list[np.ndarray]
    labels: np.ndarray
    probabilities: np.ndarray
    statistics: np.ndarray

    def take(self, rows: np.ndarray) -> "Images":
        """The chosen rows."""
        return Images(
            [self.originals[row] for row in rows],
            self.labels[rows],
            self.probabilities[rows],
            self.statistics[rows],
        )


Case = Callable[[], tuple[Images, Images]]  # a reference and a window


def measure(bundle: Bundle, originals: list[np.ndarray], labels: np.ndarray) -> Images:
    contract = bundle.info.input
    pixels = np.stack([contract.fit(image) for image in originals])
    batches = [bundle.predict(pixels[start : start + 64])[0] for start in range(0, len(pixels), 64)]
    described = np.stack([statistics(image) for image in originals])
    return Images(originals, labels, np.concatenate(batches), described)


def noise(image: np.ndarray) -> np.ndarray:
    grey = RNG.normal(0, 0.1 * 255, image.shape[:2])[..., None]
    return np.clip(image + grey, 0, 255).astype(np.uint8)


def blur(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(0.7)))


def invert(image: np.ndarray) -> np.ndarray:
    return 255 - image


def brighten(image: np.ndarray) -> np.ndarray:
    return np.clip(image.astype(int) + 25, 0, 255).astype(np.uint8)


CORRUPTIONS = {
    "noise, sigma 0.1": noise,
    "blur, radius 0.7": blur,
    "inverted": invert,
    "brightness +0.1": brighten,
}


def clean_cases(held_out: Images, training: Images) -> dict[str, Case]:
    def unseen() -> tuple[Images, Images]:
        rows = RNG.permutation(len(held_out.labels))
        return held_out.take(rows[WINDOW:]), held_out.take(rows[:WINDOW])

    def seen() -> tuple[Images, Images]:
        rows = RNG.choice(len(training.labels), WINDOW, replace=False)
        return held_out, training.take(rows)

    return {"held-out images": unseen, "training images": seen}


def proportion_case(held_out: Images, factor: float) -> Case:
    def case() -> tuple[Images, Images]:
        favourite = RNG.choice(held_out.labels)
        weights = np.where(held_out.labels == favourite, factor, 1.0)
        rows = RNG.choice(len(weights), WINDOW, p=weights / weights.sum())
        return held_out, held_out.take(rows)

    return case


def corrupted_case(
    bundle: Bundle, held_out: Images, corrupt: Callable[[np.ndarray], np.ndarray], share: float
) -> Case:
    def case() -> tuple[Images, Images]:
        rows = RNG.permutation(len(held_out.labels))
        window = held_out.take(rows[:WINDOW])
        changed = [
            corrupt(image) if index < share * WINDOW else image
            for index, image in enumerate(window.originals)
        ]
        return held_out.take(rows[WINDOW:]), measure(bundle, changed, window.labels)

    return case


def ours(reference: Images, window: Images, classes: list[str], params: Drift) -> bool:
    arrays = {"probabilities": reference.probabilities, "statistics": reference.statistics}
    sample = SimpleNamespace(probabilities=window.probabilities, statistics=window.statistics)
    return check_drift(arrays, sample, params, classes).outcome == "drift"


def peer(reference: Images, window: Images, classes: list[str]) -> bool:
    """DataDriftPreset's own decision: at least half of the columns drifted."""
    frames = [
        pd.DataFrame(columns(images.probabilities, images.statistics, classes))
        for images in (window, reference)
    ]
    definition = DataDefinition(numerical_columns=list(frames[0]))
    datasets = [Dataset.from_pandas(frame, data_definition=definition) for frame in frames]
    result = json.loads(Report([DataDriftPreset()]).run(*datasets).json())
    drifted = next(m for m in result["metrics"] if m["metric_name"].startswith("DriftedColumns"))
    return bool(drifted["value"]["share"] >= 0.5)


def compare(case: Case, classes: list[str], params: Drift) -> tuple[float, float]:
    """The shares of windows that ours and the peer call drift, interleaved."""
    mine, theirs = [], []
    for repeat in range(OUR_REPEATS):
        reference, window = case()
        mine.append(ours(reference, window, classes, params))
        if repeat < PEER_REPEATS:
            theirs.append(peer(reference, window, classes))
    return float(np.mean(mine)), float(np.mean(theirs))


def load(bundle: Bundle, ingest: Ingest) -> tuple[Images, Images]:
    """Held-out (test and validation) and training images."""
    splits = pd.read_parquet("data/splits.parquet")
    folders = source_folders(ingest, load_settings().home)
    groups = []
    for names in (["test", "validation"], ["train"]):
        chosen = splits[splits["split"].isin(names)]
        files = image_files(chosen, folders)
        originals = [read_image(file, ingest.max_pixels) for file in files]
        groups.append(measure(bundle, originals, chosen["label"].to_numpy()))
    if len(groups[0].labels) < 2 * WINDOW:
        raise DataError(f"{len(groups[0].labels)} held-out images; this needs {2 * WINDOW}")
    return groups[0], groups[1]


def main() -> None:
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    # Evidently correlates columns that are constant in a window, thousands of times.
    warnings.filterwarnings("ignore", category=RuntimeWarning, module="numpy")
    params = load_params()
    bundle = open_bundle("data/bundle", load_settings())
    classes = bundle.info.classes
    held_out, training = load(bundle, params.ingest)

    def rows(cases: dict[str, Case]) -> list[tuple[float, float]]:
        found = []
        for name, case in cases.items():
            found.append(compare(case, classes, params.drift))
            print(f"| {name} | {found[-1][0]:.3f} | {found[-1][1]:.2f} |", flush=True)
        return found

    print(f"| windows of {WINDOW} called drift | ours | Evidently's default |\n| --- | --- | --- |")
    alarms = np.mean(rows(clean_cases(held_out, training)), axis=0)
    rows(
        {f"one class {factor}x as often": proportion_case(held_out, factor) for factor in (2, 3, 9)}
    )
    for share, title in ((1.0, "all"), (1 / 3, "a third")):
        cases = {
            f"{name}, {title} of the images": corrupted_case(bundle, held_out, corrupt, share)
            for name, corrupt in CORRUPTIONS.items()
        }
        powers = np.mean(rows(cases), axis=0)
        if share == 1.0:
            power = powers
    right = (power + 1 - alarms) / 2  # balanced accuracy
    result = {
        "benchmark": "drift",
        "ours": round(right[0], 4),
        "peer": round(right[1], 4),
        "ratio": round(right[0] / right[1], 3),
        "false_alarm_rate": alarms[0],
        "power": power[0],
        "peer_false_alarm_rate": alarms[1],
        "peer_power": power[1],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()

"""What a folder of images decides of the parameters, and why: the rules behind `init`.

Sizes and epochs aim at a whole loop of some ten minutes on two CPU cores; a machine with a
GPU, or more patience, can take larger ones.
"""

from collections.abc import Mapping
from typing import Any

from flows.survey import Survey

Changes = dict[str, tuple[object, str | None]]

_SMALL_SIDE = 64
_COLOURED = 0.05  # median saturation (0..1) of a set in colour
_UNEQUAL = 5  # times as many images in the largest class as in the smallest
_PRESETS_OWN = ("shift", "rotate", "scale", "brightness", "contrast")  # of a preset alone


def recommend(found: Survey, preset: Mapping[str, Any]) -> Changes:
    """Dotted key → (value, reason or None to keep the preset's comment), for `found`.

    `preset` holds a whole params file's plain values.
    """
    return {
        **_validate(found, preset),
        **_clean(found, preset["clean"]),
        **_prepare(found, preset["prepare"]),
        **_train(found, preset),
        **_budget(found, preset),
    }


def _validate(found: Survey, whole: Mapping[str, Any]) -> Changes:
    preset, splits = whole["validate"], whole["split"]
    smallest = min(found.counts, key=lambda label: found.counts[label])
    # cleaning may drop some: the smallest class shall not fail for a few duplicates
    sure = int(0.8 * found.counts[smallest])
    fewest = max(3, min(preset["min_per_class"], sure))
    # a third of what a split is expected to draw of it
    drawn = int(min(splits["validation"], splits["test"]) * sure / 3)
    longest = max(preset["max_side"], int(max(found.widths.max(), found.heights.max())))
    ratio = round(1.5 * max(found.counts.values()) / found.counts[smallest], 1)
    imbalance = preset["max_imbalance"]
    return {
        "validate.labels": (list(found.counts), "the class folders found; null: any set"),
        "validate.min_per_class": (
            fewest,
            f"the smallest class, {smallest!r}, has {found.counts[smallest]}",
        ),
        "validate.min_per_split": (max(1, min(preset["min_per_split"], drawn)), None),
        "validate.max_imbalance": (imbalance and max(imbalance, ratio), None),
        "validate.max_side": (longest, None),
    }


def _clean(found: Survey, preset: Mapping[str, Any]) -> Changes:
    """Thresholds that flag what is odd in this folder, not what is usual in it."""
    dark = min(preset["dark"], _rounded(found.percentile("brightness", 1) / 2))
    bright = max(preset["bright"], round((1 + found.percentile("brightness", 99)) / 2, 3))
    blurry = _rounded(found.percentile("sharpness", 5) / 10)
    flat = min(preset["low_contrast"], _rounded(found.percentile("contrast", 1) / 2))
    empty = min(preset["low_information"], _rounded(found.percentile("entropy", 1) / 2))
    return {
        "clean.dark": (dark, None),
        "clean.bright": (bright, None),
        "clean.low_contrast": (flat, None),
        "clean.low_information": (empty, None),
        "clean.blurry": (
            blurry,
            "sharpness below this: a tenth of what all but 5 % of the sample have",
        ),
    }


def _prepare(found: Survey, preset: Mapping[str, Any]) -> Changes:
    low, high = found.aspect_ratios
    shapes = f"width / height runs from {low:.2f} to {high:.2f}"
    if found.shapes_vary:
        resize: tuple[str, str] = ("letterbox", f"{shapes}: kept, and padded to a square")
    else:
        resize = ("stretch", f"{shapes}: alike enough to make all square")
    return {"prepare.size": _size(found, preset), "prepare.resize": resize}


def _size(found: Survey, preset: Mapping[str, Any]) -> tuple[int, str]:
    own = max(16, 8 * round(found.long_side / 8 + 0.49))
    if own <= _SMALL_SIDE:
        return own, "the images' own size; images become size x size x 3"
    size = preset["size"] if found.images <= 5_000 else min(preset["size"], _SMALL_SIDE)
    return min(own, size), "images become size x size x 3; twice the side takes four times as long"


def _train(found: Survey, preset: Mapping[str, Any]) -> Changes:
    """More images: a wider model, larger batches, fewer epochs.

    Small sets take small batches: what a network from scratch needs first is enough steps. Widths
    are multiples of 16, which the kernels work on: 24 channels take as long as 32.
    """
    scale = [(2_000, 16, 16, 60, 20), (10_000, 16, 64, 24, 12), (30_000, 16, 64, 24, 8)]
    fitting = [row for limit, *row in scale if found.images <= limit]
    width, batch, epochs, tuning = fitting[0] if fitting else (32, 128, 10, 5)
    return {
        "train.width": (width, None),
        "train.batch_size": (batch, f"for {found.images:,} images"),
        "train.epochs": (epochs, f"for {found.images:,} images; early stopping may end sooner"),
        **_augment(found),
        **_imbalance(found),
        "tune.epochs": (min(preset["tune"]["epochs"], tuning), None),
        "compress.distil.widths": ([max(8, width // 2)], None),
        "compress.distil.epochs": (epochs, None),
        "compress.prune.epochs": (max(4, epochs // 3), None),
    }


def _augment(found: Survey) -> Changes:
    """Flips for photographs; small coloured ones take the changes usual for such sets."""
    small = found.long_side <= _SMALL_SIDE
    coloured = found.percentile("saturation", 50) > _COLOURED
    if small and not coloured:
        why = "left-right; off: small grey images are often symbols, which a mirror changes"
        return {"train.augment.flip": (False, why)}
    mirror = "left-right; a photographed object is the same in a mirror; set false if yours is not"
    if not small:
        return {"train.augment.flip": (True, mirror)}
    own: Changes = {f"train.augment.{key}": (None, None) for key in _PRESETS_OWN}
    preset = "small and in colour: flips and padding crops; a null below takes the preset's value"
    return own | {"train.augment.preset": ("light", preset), "train.augment.flip": (True, mirror)}


def _imbalance(found: Survey) -> Changes:
    """The best of eight remedies over two sets, and the epoch to keep: see docs/benchmarks.md."""
    ratio = max(found.counts.values()) / max(1, min(found.counts.values()))
    if ratio < _UNEQUAL:
        return {}
    why = f"the largest class has {ratio:.0f} times the images of the smallest"
    kept = "the epoch with the best macro_f1: few images of a rare class say little by their loss"
    return {
        "train.keep_by": ("macro_f1", kept),
        "train.imbalance.class_weights": ("effective_number", why),
        "train.imbalance.focal_gamma": (2.0, "as above; 0: cross-entropy"),
        "tune.objectives": (["macro_f1"], None),
    }


def _budget(found: Survey, preset: Mapping[str, Any]) -> Changes:
    """No finer than the splits can tell: two images of the smaller one."""
    share = min(preset["split"]["validation"], preset["split"]["test"])
    resolution = _rounded(2 / (share * found.images))
    drop = max(preset["budget"]["max_accuracy_drop"], resolution)
    margin = max(preset["gate"]["margin"], resolution)
    reason = f"two images of about {share * found.images:.0f}"
    return {
        "budget.max_accuracy_drop": (
            drop,
            f"against the fp32 model, on validation images: {reason}"
            if drop == resolution
            else None,
        ),
        "gate.margin": (
            margin,
            f"accuracy the challenger may lose: {reason}" if margin == resolution else None,
        ),
    }


def _rounded(value: float) -> float:
    """To two significant digits."""
    return float(f"{value:.2g}")

"""Whether two thumbnails show the same picture: laid over each other, then compared in detail.

What is compared is the second derivative (Laplacian), in which two pictures of the same kind,
or two plain backgrounds, have little in common, while copies keep their details however they
were lit. Copies that were cropped, rotated or stretched a little are aligned first.
"""

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Reals = npt.NDArray[np.float32]

SIDE = 32
_ALIGNED = ((16, 4), (32, 2))  # side of the thumbnails, iterations: coarse to fine
_FARTHEST = 0.15  # of half a side: how far an alignment may move, scale, shear
_BLOCKS = 4  # a side
_COMPARED = 12  # of 16 blocks: a watermark or black corners spoil some, and those do not count
_ROUNDING = 0.1  # squared grey levels: the Laplacian of what rounding to 8 bits leaves
_NOISE = 4.0  # grey levels of the smoothed thumbnails: encoding, noise and resampling leave this
_TOGETHER = 128  # pairs: what a processor keeps in its cache


def similarity(left: Bytes, right: Bytes) -> Reals:
    """How surely pairs of grey thumbnails uint8 P×32×32 show the same picture, float32 [P] ≤ 1.

    The correlation of their Laplacians, over the three quarters of the picture that agree best,
    after an affine alignment of `right` with `left` by the inverse compositional algorithm
    (Baker & Matthews 2004, "Lucas-Kanade 20 years on"), or without it if that agrees better. It
    is reduced where grey values differ by more than encoding and noise explain: simple bold
    shapes correlate even when they are not the same. A pair's value does not depend on others.
    """
    parts = [
        _similarity(_smooth(left[k : k + _TOGETHER]), _smooth(right[k : k + _TOGETHER]))
        for k in range(0, len(left), _TOGETHER)
    ]
    return np.concatenate([np.empty(0, np.float32), *parts])


def _similarity(left: Reals, right: Reals) -> Reals:
    motion = np.zeros((len(left), 2, 3), np.float32)
    for side, iterations in _ALIGNED:
        motion = _align(_reduce(left, side), _reduce(right, side), motion, iterations)
    aligned = _warp(right, motion).reshape(left.shape)
    moved, still = _correlation(left, aligned), _correlation(left, right)
    best = np.where((moved > still)[:, None, None], aligned, right)
    explained = np.minimum(1, _NOISE / np.maximum(_difference(left, best), _NOISE))
    similar: Reals = np.maximum(moved, still) * explained
    return similar


def _correlation(left: Reals, right: Reals) -> Reals:
    """Of the Laplacians, weighted towards the centre, over the blocks that agree best."""
    ours, theirs, weights = _laplacian(left), _laplacian(right), _window(SIDE)
    products = _by_block(ours * theirs * weights)
    rounding = _ROUNDING * _by_block(weights[None])
    norms = _by_block(ours * ours * weights) + rounding
    others = _by_block(theirs * theirs * weights) + rounding
    best = np.argsort(-products / np.sqrt(norms * others), axis=1, kind="stable")[:, :_COMPARED]
    product, norm, other = (
        np.take_along_axis(values, best, axis=1).sum(axis=1) for values in (products, norms, others)
    )
    correlation: Reals = product / np.sqrt(norm * other)
    return correlation


def _difference(left: Reals, right: Reals) -> Reals:
    """Root mean square, in grey levels at the pair's contrast, over the blocks that agree best."""
    weights = _window(SIDE)
    ours, our_contrast = _normalised(left.reshape(len(left), -1), weights.ravel())
    theirs, their_contrast = _normalised(right.reshape(len(right), -1), weights.ravel())
    squares = np.square(ours - theirs).reshape(left.shape) * weights
    by_block = np.sort(_by_block(squares) / _by_block(weights[None]), axis=1)
    contrast = np.sqrt(our_contrast * their_contrast)[:, 0]
    difference: Reals = np.sqrt(by_block[:, :_COMPARED].mean(axis=1)) * contrast
    return difference


def _align(left: Reals, right: Reals, motion: Reals, iterations: int) -> Reals:
    """Refine the affine motion P×2×3 (beyond identity, in half sides) that takes left to right."""
    weights = _window(left.shape[1]).ravel()
    target, spread = _normalised(left.reshape(len(left), -1), weights)
    steepest = _steepest(left) / spread[:, None]
    # brightness and contrast are fitted along: what they explain is no motion
    steepest -= (steepest * weights).sum(axis=2, keepdims=True)
    weighted = target * weights
    steepest -= (steepest @ weighted[:, :, None]) * target[:, None, :]
    pulled = steepest * weights
    inverse = np.linalg.inv(pulled @ steepest.transpose(0, 2, 1) + 0.01 * np.eye(6))
    solve = inverse.astype(np.float32) @ pulled
    for _ in range(iterations):
        seen, _ = _normalised(_warp(right, motion), weights)
        step = (solve @ (seen - target)[:, :, None]).reshape(-1, 2, 3)
        motion = np.clip(_compose(motion, step), -_FARTHEST, _FARTHEST)
    return motion


def _compose(motion: Reals, step: Reals) -> Reals:
    """The motion after undoing a small step first: (1 + motion)(1 - step) - 1."""
    composed: Reals = motion - step - motion[:, :, :2] @ step
    return composed


def _steepest(images: Reals) -> Reals:
    """What a unit of each of the six parameters changes in every pixel, P×6×pixels."""
    side = images.shape[1]
    down, right = np.gradient(images, axis=(1, 2))
    y, x = _grid(side)
    slopes = (right.reshape(len(images), -1), down.reshape(len(images), -1))
    parts = [slope * factor for slope in slopes for factor in (x, y, np.ones_like(x))]
    return np.stack(parts, axis=1) * np.float32(side / 2)


def _warp(images: Reals, motion: Reals) -> Reals:
    """Bilinear samples P×pixels where the motion takes every pixel; the border is repeated."""
    count, side, _ = images.shape
    y, x = _grid(side)
    places = motion @ np.stack([x, y, np.ones_like(x)]) + np.stack([x, y])
    places = np.clip((places + 1) * np.float32(side / 2) - np.float32(0.5), 0, side - 1.001)
    whole = places.astype(np.int32)
    part = places - whole.astype(np.float32)
    start = (whole[:, 1] * side + whole[:, 0]).astype(np.intp)
    start += np.arange(count)[:, None] * side**2
    flat = images.ravel()

    def at(offset: int) -> Reals:
        values: Reals = flat[offset:].take(start, mode="clip")  # all are inside: no check
        return values

    upper, lower = at(0), at(side)
    upper += part[:, 0] * (at(1) - upper)
    lower += part[:, 0] * (at(side + 1) - lower)
    warped: Reals = upper + part[:, 1] * (lower - upper)
    return warped


def _normalised(values: Reals, weights: Reals) -> tuple[Reals, Reals]:
    """Values P×pixels with weighted mean 0 and variance 1, and what they were divided by."""
    centred = values - (values * weights).sum(axis=1, keepdims=True)
    spread = np.sqrt((centred * centred * weights).sum(axis=1, keepdims=True)) + np.float32(1e-3)
    return centred / spread, spread


def _grid(side: int) -> tuple[Reals, Reals]:
    """Vertical and horizontal place of every pixel, the picture being -1 to 1."""
    places = ((np.arange(side) + 0.5) / (side / 2) - 1).astype(np.float32)
    return np.repeat(places, side), np.tile(places, side)


def _window(side: int) -> Reals:
    sine = np.sin(np.pi * (np.arange(side) + 0.5) / side)
    window: Reals = (np.outer(sine, sine) / sine.sum() ** 2).astype(np.float32)
    return window


def _smooth(thumbnails: Bytes) -> Reals:
    """1-2-1 in both directions: what JPEG and noise change most is left out."""
    padded = np.pad(thumbnails.astype(np.float32), ((0, 0), (1, 1), (1, 1)), mode="edge")
    quarter = np.float32(0.25)
    rows = (padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]) * quarter
    smooth: Reals = (rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]) * quarter
    return smooth


def _laplacian(images: Reals) -> Reals:
    laplacian = np.zeros_like(images)
    ring = images[:, :-2, 1:-1] + images[:, 2:, 1:-1] + images[:, 1:-1, :-2] + images[:, 1:-1, 2:]
    laplacian[:, 1:-1, 1:-1] = ring - 4 * images[:, 1:-1, 1:-1]
    return laplacian


def _reduce(images: Reals, side: int) -> Reals:
    factor = images.shape[1] // side
    if factor == 1:
        return images
    reduced: Reals = images.reshape(-1, side, factor, side, factor).mean(axis=(2, 4))
    return reduced


def _by_block(values: Reals) -> Reals:
    size = SIDE // _BLOCKS
    summed: Reals = values.reshape(-1, _BLOCKS, size, _BLOCKS, size).sum(axis=(2, 4))
    return summed.reshape(-1, _BLOCKS**2)

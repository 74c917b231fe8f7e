"""Weights of one image size made to fit another: filters of the stem, position embeddings."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def fitted(given: Tensor, wanted: Tensor) -> Tensor:
    """`given` in the shape of `wanted` where only the size of the images differs; else as it is.

    Filters that overlap (odd sides) are cropped to their middle or padded with zeros, so colours
    and edges stay. Patches are resized so that a resized image gives what it gave (Beyer et al.
    2023, "FlexiViT"), position embeddings interpolated (Dosovitskiy et al. 2021).
    """
    if given.shape == wanted.shape or given.ndim != wanted.ndim:
        return given
    if given.ndim == 4 and given.shape[:2] == wanted.shape[:2]:
        old, new = given.shape[-1], wanted.shape[-1]
        return _middle(given, new) if old % 2 and new % 2 else _resized_patch(given, new)
    if given.ndim == 3 and given.shape[2] == wanted.shape[2] and given.shape[0] == 1:
        return _interpolated(given, wanted.shape[1])
    return given


def _middle(filters: Tensor, side: int) -> Tensor:
    margin = (side - filters.shape[-1]) // 2
    return F.pad(filters, (margin,) * 4)  # a negative margin crops


def _resized_patch(filters: Tensor, side: int) -> Tensor:
    """The pseudo-inverse of resizing an image patch, applied to the filters O×I×K×K."""
    old = filters.shape[-1]
    pixels = torch.eye(old**2).reshape(old**2, 1, old, old)
    resize = F.interpolate(pixels, size=(side, side), mode="bilinear", antialias=True)
    inverse = torch.linalg.pinv(resize.reshape(old**2, side**2))
    outputs, inputs = filters.shape[:2]
    return torch.matmul(filters.flatten(2), inverse.T).reshape(outputs, inputs, side, side)


def _interpolated(embedding: Tensor, length: int) -> Tensor:
    """A class token and a square of positions, 1×L×D, for another square."""
    old, new = math.isqrt(embedding.shape[1] - 1), math.isqrt(length - 1)
    if old**2 != embedding.shape[1] - 1:
        return embedding
    grid = embedding[:, 1:].transpose(1, 2).reshape(1, -1, old, old)
    grid = F.interpolate(grid, size=(new, new), mode="bicubic", antialias=True)
    return torch.cat([embedding[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)

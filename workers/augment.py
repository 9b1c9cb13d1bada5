"""Augmentation as arithmetic: which window of an image to read, and whether to mirror it, for every sample of
an epoch.

A window depends on the key of (seed, epoch) and on the sample's original index alone, so it is the same
whatever batch, order, thread or pack the sample comes in. All is NumPy; `workers.decoders` then carries it
out, and draws nothing. Image sides are in pixels. A window may reach over the edge: what lies outside is
black (0), before normalisation.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from workers.randomness import GOLDEN, mix

AUGMENTATIONS = ("none", "crop-flip", "resized-crop-flip", "center-crop")
PADDING = 4
CENTER_RATIO = 224 / 256
AREA_RANGE, ASPECT_RANGE, ATTEMPTS = (
    (0.08, 1.0),
    (3 / 4, 4 / 3),
    10,
)  # torchvision.transforms.RandomResizedCrop

Integers = NDArray[np.int64]


def windows(augmentation: str, indices: Integers, heights: Integers, widths: Integers, *, augment_key: int) -> Integers:
    """What to read of each sample: int64[m, 6] of (index, top, left, height, width, mirrored).

    Args:
        augmentation: "none" (all of it), "center-crop" (the central square of 224/256 of the shorter side),
            "crop-flip" (all of it, moved by up to 4 pixels each way, mirrored at random), "resized-crop-flip"
            (8 to 100 % of the area at a random place, aspect ratio 3/4 to 4/3, mirrored at random).
        indices: original indices, int64[m]. heights, widths: the sides of these images, int64[m].
        augment_key: `randomness.key("augment", seed, epoch=epoch)`.
    """
    tops, lefts = np.zeros_like(indices), np.zeros_like(indices)
    mirrored = np.zeros_like(indices)
    if augmentation == "crop-flip":
        random = sample_bits(indices, augment_key)
        tops, lefts = (_below(2 * PADDING + 1, random >> np.uint64(shift)) - PADDING for shift in (0, 24))
        mirrored = (random >> np.uint64(63)).astype(np.int64)
    elif augmentation == "resized-crop-flip":
        random = sample_bits(indices, augment_key)
        mirrored = (random >> np.uint64(63)).astype(np.int64)
        tops, lefts, heights, widths = _resized_crops(random, heights, widths)
    elif augmentation == "center-crop":
        side = np.maximum(1, (CENTER_RATIO * np.minimum(heights, widths)).astype(np.int64))
        tops, lefts, heights, widths = (heights - side) // 2, (widths - side) // 2, side, side
    return np.stack([indices, tops, lefts, heights, widths, mirrored], axis=1)


def sample_bits(indices: Integers, augment_key: int) -> NDArray[np.uint64]:
    """64 random bits a sample: what `randomness.bits("augment", seed, indices, epoch=epoch)` gives for its
    key."""
    return mix((indices.astype(np.uint64) + np.uint64(1)) * np.uint64(GOLDEN) + np.uint64(augment_key))


def _below(count: int, random: NDArray[np.uint64]) -> Integers:
    """Integers in [0, count) from the low 24 bits: each equally likely up to count/2**24."""
    return ((random & np.uint64(0xFFFFFF)) * np.uint64(count) >> np.uint64(24)).astype(np.int64)


def _uniform(random: NDArray[np.uint64], draw: int) -> NDArray[np.float64]:
    """The `draw`-th uniform number in [0, 1) of each sample."""
    position = np.uint64((draw + 1) * GOLDEN % 2**64)
    return (mix(random + position) >> np.uint64(11)).astype(np.float64) / 2**53


def _resized_crops(random: NDArray[np.uint64], heights: Integers, widths: Integers) -> tuple[Integers, ...]:
    """torchvision's RandomResizedCrop: try ten windows, then fall back to the largest central one of allowed
    aspect."""
    aspect = np.clip(widths / heights, *ASPECT_RANGE)
    crop_heights = np.minimum(heights, np.rint(widths / aspect).astype(np.int64))
    crop_widths = np.minimum(widths, np.rint(heights * aspect).astype(np.int64))
    tops, lefts = (heights - crop_heights) // 2, (widths - crop_widths) // 2

    open_samples = np.arange(len(random))
    for attempt in range(ATTEMPTS):
        bits, height, width = random[open_samples], heights[open_samples], widths[open_samples]
        area, log_aspect, down, across = (_uniform(bits, 4 * attempt + draw) for draw in range(4))
        area = height * width * (AREA_RANGE[0] + (AREA_RANGE[1] - AREA_RANGE[0]) * area)
        ratio = np.exp(np.log(ASPECT_RANGE[0]) + np.log(ASPECT_RANGE[1] / ASPECT_RANGE[0]) * log_aspect)
        crop_width, crop_height = (np.rint(np.sqrt(area * by)).astype(np.int64) for by in (ratio, 1 / ratio))
        fits = (crop_width >= 1) & (crop_width <= width) & (crop_height >= 1) & (crop_height <= height)
        fitting = open_samples[fits]
        crop_heights[fitting], crop_widths[fitting] = crop_height[fits], crop_width[fits]
        tops[fitting] = (down * (height - crop_height + 1)).astype(np.int64)[fits]
        lefts[fitting] = (across * (width - crop_width + 1)).astype(np.int64)[fits]
        open_samples = open_samples[~fits]
    return tops, lefts, crop_heights, crop_widths

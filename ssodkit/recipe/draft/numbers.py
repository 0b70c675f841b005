"""Numbers of a recipe that follow from its pictures and boxes: the size of views, anchors, counts per image, steps."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ssodkit.data.survey import best_anchor_ious, box_sides

Boxes = NDArray[np.floating]
"""(n, 4): xyxy in pixels."""

SMALLEST_BOX = 12.0
"""Pixels: the side that the smallest boxes should have in a view, about half the finest anchors."""
RATIOS = (1.0, 0.5, 2.0, 0.33, 3.0, 0.2, 5.0, 0.12, 8.0)
"""Heights over widths that anchors may have; the plainer ones are tried first."""
COVERED = 0.97
"""Share of the boxes that should have an anchor of an IoU above the matcher's threshold."""
MOST_RATIOS = 5
IOU = 0.5
"""From which on an anchor learns from a box, in the light detectors."""
CENTER = 0.5
"""Where anchors lie in their cells there."""
LEVELS = (2, 3, 4, 5)
FIRST_SIDES = np.geomspace(8.0, 32.0, 9)
"""Pixels of the finest level's first side, at stride 4."""
SAMPLE = 5000
LEVEL_SIDES = (1.0, math.sqrt(2.0))
"""Sides of a level's anchors, as multiples of its first; those of the next level are twice as large."""


def view_size(sizes: NDArray[np.int32], boxes: Boxes, pixels: int) -> tuple[int, int]:
    """The short and the long side to which pictures are resized, neither above the median picture's.

    `sizes` (n, 2) are the pictures', `pixels` how many a view may have. Where the smallest boxes (the fifth
    percentile of their sides) would shrink below 12 pixels, a view has up to four times as many.
    """
    short, long = float(np.median(sizes.min(axis=1))), float(np.median(sizes.max(axis=1)))
    scale = math.sqrt(pixels / (short * long))
    if len(boxes):
        small = float(np.percentile(box_sides(boxes), 5))
        scale = max(scale, min(2.0 * scale, SMALLEST_BOX / small))
    scale = min(1.0, scale)
    return max(32, round(short * scale)), max(32, round(long * scale))


@dataclass(frozen=True)
class AnchorChoice:
    """Anchors for some boxes, and how well they meet."""

    sides: tuple[tuple[float, ...], ...]
    """Per level, from stride 4 on, in pixels of the view."""
    ratios: tuple[float, ...]
    covered: float
    """Share of the boxes with an anchor of IoU 0.5 or more."""


def choose_anchors(boxes: Boxes) -> AnchorChoice:
    """The fewest levels and ratios with which 97 % of the boxes, in pixels of the view, have an anchor.

    Of many boxes 5,000, evenly spaced, are looked at. Where no choice reaches the share, the best one is taken;
    without boxes, the usual one of three levels.
    """
    if not len(boxes):
        return AnchorChoice(_sides(16.0, 3), (1.0,), 0.0)
    some = boxes[np.linspace(0, len(boxes) - 1, min(SAMPLE, len(boxes))).astype(np.int64)]
    choices: list[AnchorChoice] = []
    for levels in LEVELS:
        choices += [_with_ratios(some, _sides(float(first), levels)) for first in FIRST_SIDES]
        if max(choice.covered for choice in choices) >= COVERED:
            break
    return max(choices, key=lambda choice: (min(choice.covered, COVERED), -len(choice.ratios), choice.covered))


def _sides(first: float, levels: int) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(round(first * 2.0**level * side, 1) for side in LEVEL_SIDES) for level in range(levels))


def _with_ratios(boxes: Boxes, sides: tuple[tuple[float, ...], ...]) -> AnchorChoice:
    """Ratios one by one, each time the one that covers most boxes more, until enough are covered or none helps."""
    strides = [4 * 2**level for level in range(len(sides))]
    meets = {ratio: best_anchor_ious(boxes, sides, (ratio,), strides, CENTER) >= IOU for ratio in RATIOS}
    chosen: list[float] = []
    covered = np.zeros(len(boxes), dtype=bool)
    while covered.mean() < COVERED and len(chosen) < MOST_RATIOS:
        gains = {ratio: int((meets[ratio] & ~covered).sum()) for ratio in RATIOS if ratio not in chosen}
        ratio = max(gains, key=lambda each: gains[each])  # the first, and plainest, of equal ones
        if gains[ratio] < 0.01 * len(boxes):
            break
        chosen.append(ratio)
        covered |= meets[ratio]
    return AnchorChoice(sides, tuple(sorted(chosen)) or (1.0,), float(covered.mean()))

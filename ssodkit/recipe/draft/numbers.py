"""Numbers of a recipe that follow from its pictures and boxes: the size of views, and anchors."""

import math

import numpy as np
from numpy.typing import NDArray

from ssodkit.data.anchor_choice import COVERED, AnchorChoice, choose_anchors
from ssodkit.data.survey import box_sides

Boxes = NDArray[np.floating]
"""(n, 4): xyxy in pixels."""

SMALLEST_BOX = 12.0
"""Pixels: the side that the smallest boxes should have in a view, about half the finest anchors."""
LEVELS = (2, 3, 4, 5)
"""Of the light detectors, from stride 4 on."""
SIDES = 2
"""Of the anchors of each level there."""
IOU = 0.5
"""From which on an anchor learns from a box there."""
LARGEST = 8.0
"""Strides of the finest level that its anchors may have at most: a cell sees little beyond."""
CENTER = 0.5
"""Where anchors lie in their cells there."""


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


def light_anchors(boxes: Boxes) -> AnchorChoice:
    """Anchors of a light detector, of the fewest levels with which 97 % of the boxes, in pixels of the view, have one.

    Where no number of levels reaches the share, the choice that covers most; without boxes, three levels.
    """
    if not len(boxes):
        return _choose(boxes, 3)
    choices = []
    for levels in LEVELS:
        choices.append(_choose(boxes, levels))
        if choices[-1].covered >= COVERED:
            return choices[-1]
    return max(choices, key=lambda choice: choice.covered)


def _choose(boxes: Boxes, levels: int) -> AnchorChoice:
    return choose_anchors(boxes, strides_of(levels), SIDES, IOU, CENTER, growths=(2.0,), largest=LARGEST)


def strides_of(levels: int) -> list[int]:
    """Pixels between neighboring cells of a light detector's levels."""
    return [4 * 2**level for level in range(levels)]

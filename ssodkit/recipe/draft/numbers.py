"""Numbers of a recipe that follow from its pictures and boxes: the size of views, anchors, steps and limits."""

import math

import numpy as np
from numpy.typing import NDArray

from ssodkit.data.anchor_choice import COVERED, AnchorChoice, choose_anchors
from ssodkit.data.survey import box_sides

Boxes = NDArray[np.floating]
"""(n, 4): xyxy in pixels."""

PIXELS = 44_000
"""Of a view, where a CPU trains: 240 x 180."""
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

SHORT, LONG = 800, 1333
"""Pixels of the largest pictures that networks with pre-trained weights are usually given."""
PYRAMID = (4, 8, 16, 32, 64)
"""Strides of bases/detectors/faster_rcnn.yaml."""
PYRAMID_IOU = 0.7
"""From which on an anchor learns from a box there; one that is met at two sides a level, not at one."""
PYRAMID_CENTER = 0.0
GIGABYTES = 2.0
"""That the training of a picture of that size takes: a ResNet-50 in fp32, as mmdetection's model zoo gives them."""


def small_size(sizes: NDArray[np.int32], boxes: Boxes) -> tuple[int, int]:
    """The short and the long side to which pictures are resized for a CPU, neither above the median picture's.

    `sizes` (n, 2) are the pictures'. Where the smallest boxes (the fifth percentile of their sides) would shrink below
    12 pixels, a view has up to four times as many pixels as otherwise.
    """
    short, long = _median_sides(sizes)
    scale = math.sqrt(PIXELS / (short * long))
    if len(boxes):
        small = float(np.percentile(box_sides(boxes), 5))
        scale = max(scale, min(2.0 * scale, SMALLEST_BOX / small))
    scale = min(1.0, scale)
    return max(32, round(short * scale)), max(32, round(long * scale))


def usual_size(sizes: NDArray[np.int32], boxes: Boxes) -> tuple[int, int]:
    """The sides of the median picture, of `sizes` (n, 2), shrunk to 800 and 1333 pixels where they are larger."""
    short, long = _median_sides(sizes)
    scale = min(1.0, SHORT / short, LONG / long)
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


def pyramid_anchors(boxes: Boxes) -> AnchorChoice:
    """Anchors of bases/detectors/faster_rcnn.yaml for boxes in pixels of the view."""
    return choose_anchors(boxes, PYRAMID, SIDES, PYRAMID_IOU, PYRAMID_CENTER, growths=(2.0,), largest=LARGEST)


def strides_of(levels: int) -> list[int]:
    """Pixels between neighboring cells of a light detector's levels."""
    return [4 * 2**level for level in range(levels)]


def limit(most: int) -> int:
    """Detections of a picture where the labels have up to so many: twice as many, in tens, at least 30."""
    return max(30, 10 * -(-2 * most // 10))


def light_steps(labeled: int) -> int:
    """Steps of four labeled pictures: 1,000 for twenty, 3,000 for ninety, and ten rounds of more than 1,200."""
    return max(800, min(3000, 400 + 30 * labeled), 5 * labeled // 2) // 100 * 100


def pretrained_steps(labeled: int) -> int:
    """Steps of eight labeled pictures: 15 for each picture, as Soft Teacher makes on 10 % of COCO, 2,000 to 180,000."""
    return max(2000, min(180_000, 15 * labeled)) // 100 * 100


def average_over(steps: int) -> float:
    """The momentum of a teacher that is an average over a tenth of the run, and over 1,000 steps of a longer one."""
    return round(1.0 - 10.0 / min(steps, 10_000), 4)


def images_at_once(pixels: int, memory: int, labeled: int, unlabeled: int) -> int:
    """How many images of a step fit into a GPU's bytes in one forward: all of them, or an equal share of both kinds."""
    fit = 0.9 * memory / (1e9 * GIGABYTES * pixels / (SHORT * LONG))
    shares = [share for share in range(1, labeled + 1) if labeled % share == unlabeled % share == 0]
    images = [(labeled + unlabeled) // share for share in shares]
    return next((count for count in images if count <= fit), images[-1])


def _choose(boxes: Boxes, levels: int) -> AnchorChoice:
    return choose_anchors(boxes, strides_of(levels), SIDES, IOU, CENTER, growths=(2.0,), largest=LARGEST)


def _median_sides(sizes: NDArray[np.int32]) -> tuple[float, float]:
    return float(np.median(sizes.min(axis=1))), float(np.median(sizes.max(axis=1)))

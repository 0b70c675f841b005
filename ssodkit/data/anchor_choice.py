"""Anchors for given boxes: the plainest with which nearly all of them overlap enough."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ssodkit.data.survey import best_anchor_ious

RATIOS = (1.0, 0.5, 2.0, 0.33, 3.0, 0.2, 5.0, 0.12, 8.0)
"""Heights over widths that anchors may have; the plainer ones are tried first."""
MOST_RATIOS = 5
COVERED = 0.97
"""Share of the boxes that should have an anchor that overlaps enough."""
FIRST_SIDES = np.geomspace(2.0, 16.0, 13)
"""Of the finest level, in its strides."""
GROWTHS = (2.0, 1.5, 2.5)
"""From a level to the next; the first is taken where both meet enough boxes."""
SAMPLE = 5000
"""Boxes, evenly spaced, that stand for more of them."""


@dataclass(frozen=True)
class AnchorChoice:
    """Anchors for some boxes, and how well they meet."""

    sides: tuple[tuple[float, ...], ...]
    """Per level, finest first, in pixels of the view."""
    ratios: tuple[float, ...]
    """Height / width."""
    covered: float
    """Share of the boxes with an anchor that overlaps enough."""


def choose_anchors(
    boxes: NDArray[np.float32],
    strides: Sequence[int],
    per_level: int,
    iou: float,
    center: float,
    growths: Sequence[float] = GROWTHS,
    largest: float = math.inf,
) -> AnchorChoice:
    """The fewest ratios with which 97 % of the boxes (k, 4), in pixels of the view, have an anchor of this IoU.

    Levels have so many sides each, evenly between its first and the next level's, which is `growths` times as large;
    `center` is that of an `AnchorConfig`, `largest` the most strides of the finest level that its first side may have.
    Where no choice reaches the share, the one that covers most is taken; without boxes, sides of four strides.
    """
    if not len(boxes):
        return AnchorChoice(_sides(4.0 * strides[0], len(strides), per_level), (1.0,), 0.0)
    some = boxes[np.linspace(0, len(boxes) - 1, min(SAMPLE, len(boxes))).astype(np.int64)]
    choices = [
        _with_ratios(some, _sides(float(first) * strides[0], len(strides), per_level, growth), strides, iou, center)
        for growth in growths
        for first in FIRST_SIDES[largest >= FIRST_SIDES]
    ]
    return max(choices, key=lambda choice: (min(choice.covered, COVERED), -len(choice.ratios), choice.covered))


def _sides(first: float, levels: int, per_level: int, growth: float = GROWTHS[0]) -> tuple[tuple[float, ...], ...]:
    steps = [growth ** (place / per_level) for place in range(per_level)]
    return tuple(tuple(round(first * growth**level * step, 1) for step in steps) for level in range(levels))


def _with_ratios(
    boxes: NDArray[np.float32],
    sides: tuple[tuple[float, ...], ...],
    strides: Sequence[int],
    iou: float,
    center: float,
) -> AnchorChoice:
    """Ratios one by one, each time the one that covers most boxes more, until enough are covered or none helps."""
    meets = {ratio: best_anchor_ious(boxes, sides, (ratio,), strides, center) >= iou for ratio in RATIOS}
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

"""Whether the numbers of a recipe meet its boxes: anchors, sizes, and how many boxes an image may have.

All of it follows from labels and geometry; no pixel is read. A run warns of what is found here before its first step.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ssodkit.assigners.selectors.base import SelectorConfig
from ssodkit.data.anchor_choice import choose_anchors
from ssodkit.data.sets import DataSets
from ssodkit.data.survey import (
    ViewedBoxes,
    best_anchor_ious,
    box_sides,
    boxes_in_view,
    is_learned,
    spread,
)
from ssodkit.detectors.anchors import Anchored
from ssodkit.detectors.base import Detector
from ssodkit.detectors.rpn import Proposals
from ssodkit.detectors.rules import DetectionRule, StageRule
from ssodkit.engine.doctor.findings import Finding
from ssodkit.recipe.fit import walk
from ssodkit.recipe.model import Recipe
from ssodkit.recipe.validate import dotted
from ssodkit.reliability.base import Asks

UNMET = 0.3
"""Share of boxes whose best anchor may stay below the matcher's threshold: they learn from that anchor alone."""
BETTER = 0.8
"""Other anchors are named where no more than this share of the unmet boxes would be left."""
SCALE = 1.5
"""By which factor boxes may be larger or smaller in the test view than in training."""


@dataclass(frozen=True)
class Limit:
    """A field that limits how many boxes of an image go on."""

    key: str
    value: int
    enough: int
    """From which value on it limits nothing that is there."""
    of: str
    """Of what it is a number."""


def check_meeting(recipe: Recipe, sets: DataSets, networks: Mapping[str, Detector]) -> list[Finding]:
    """What does not meet the labeled boxes as the training sees them; nothing where there is no box."""
    views = recipe.views
    labeled = next(iter(views.maker(views.labeled).views.values()))
    trained = boxes_in_view(sets.labeled, labeled, views.minimum_visible, views.labeled_mosaic)
    tested = boxes_in_view(sets.labeled, views.sized(views.test), views.minimum_visible)
    if not len(trained.boxes):
        return []
    anchored = next(iter(networks.values())).anchored
    findings = [] if anchored is None else _check_anchors(recipe, trained, anchored)
    return [*findings, *_check_scale(trained, tested), *_check_limits(recipe, sets)]


def _check_anchors(recipe: Recipe, trained: ViewedBoxes, anchored: Anchored) -> list[Finding]:
    config, strides = anchored.config, anchored.strides
    matcher = recipe.detector.stages[anchored.stage].matcher
    threshold = matcher.learns_from if matcher is not None else None
    sides = box_sides(trained.boxes)
    findings = []
    small = float((sides < strides[0]).mean())
    if small > 0.05:
        what = (
            f"{_percent(small)} of the labeled boxes are smaller than a cell of the finest level, {strides[0]} pixels"
        )
        findings.append(Finding("warning", "sizes", "views.size", what, "Train at a larger size"))
    if threshold is None:
        return findings
    ious = best_anchor_ious(trained.boxes, config.sides, config.ratios, strides, config.center)
    unmet = float((ious < threshold).mean())
    if unmet <= UNMET:
        return findings
    has, all_sides = spread(sides), [side for level in config.sides for side in level]
    what = (
        f"{_percent(unmet)} of the labeled boxes overlap no anchor by an IoU of {threshold:g}, from which on it learns "
        f"from them (detector.stages.{anchored.stage}.matcher): in the training view the boxes have sides of "
        f"{_range(has.low, has.high)} pixels, and anchors {_range(min(all_sides), max(all_sides))}"
    )
    how = _better_anchors(trained.boxes, anchored, threshold, unmet)
    return [
        *findings,
        Finding("warning", "anchors", "detector.anchors", what, f"{how}{_better_size(trained, config.sides)}"),
    ]


def _better_anchors(boxes: NDArray[np.float32], anchored: Anchored, threshold: float, unmet: float) -> str:
    config = anchored.config
    choice = choose_anchors(boxes, anchored.strides, len(config.sides[0]), threshold, config.center)
    left = 1.0 - choice.covered
    if left > BETTER * unmet:
        return "Take anchors on more levels, or of more sides; `ssodkit init` chooses some"
    return f"Set sides: {_listed(choice.sides)}, ratios: {_listed(choice.ratios)}, which leaves {_percent(left)}"


def _better_size(trained: ViewedBoxes, sides: tuple[tuple[float, ...], ...]) -> str:
    """Where boxes and anchors are of other sizes, the size at which the boxes would be as large as the anchors."""
    anchors = np.exp(np.log([side for level in sides for side in level]).mean())
    factor = float(anchors / np.median(box_sides(trained.boxes)))
    if 1 / SCALE < factor < SCALE:
        return ""
    short = max(32, round(float(np.median(trained.sizes.min(axis=1))) * factor))
    change = f"or {'shrink' if factor < 1 else 'enlarge'} the images"
    return f"; {change}, `views.size: {{type: resize, short: {short}}}` would bring most boxes to these anchors' size"


def _check_scale(trained: ViewedBoxes, tested: ViewedBoxes) -> Iterator[Finding]:
    if not len(tested.boxes):
        return
    before, after = (float(np.median(box_sides(each.boxes))) for each in (trained, tested))
    seen = spread(trained.scales / tested.scales)  # 1 where training sees an image as large as the test does
    if not (1 / SCALE < after / before < SCALE or seen.low < 1.0 < seen.high):
        what = f"the boxes have a median side of {after:.0f} pixels in the test view, and {before:.0f} in training"
        yield Finding("warning", "sizes", "views", what, "Resize both alike: `views.size` is for all views")


def _check_limits(recipe: Recipe, sets: DataSets) -> list[Finding]:
    counts = [images.boxes_per_image(is_learned(images)) for images in (sets.labeled, sets.test)]
    labeled, most = spread(counts[0]), round(max(each.max(initial=0) for each in counts))
    low = [limit for limit in _limits(recipe, round(labeled.high), most) if limit.value < limit.enough]
    if not low:
        return []
    has = "; ".join(f"{limit.key} {limit.value}, {limit.of}" for limit in low)
    what = (
        f"labeled images have {labeled.median:g} boxes in the median, and one labeled or test image has {most}; few "
        f"for that are {has}"
    )
    how = ", ".join(f"{limit.key}={_round_up(limit.enough)}" for limit in low)
    return [Finding("warning", "limits", "", what, f"Set {how}, or more")]


def _limits(recipe: Recipe, usual: int, most: int) -> Iterator[Limit]:
    """Every limit in the detector and the method; `usual` is how many boxes all but 5 % of the labeled images have."""
    for path, config in walk(recipe):
        key = dotted(path)
        match config:
            case DetectionRule():
                yield Limit(f"{key}.at_most", config.at_most, max(most, 2 * usual), "detections")
            case Proposals():
                yield Limit(f"{key}.keep", config.keep, 2 * most, "proposals")
            case SelectorConfig():
                yield Limit(f"{key}.at_most", config.at_most, usual, "pseudo-boxes")
            case Asks():
                yield Limit(f"{key}.at_most", config.at_most, usual, "detections that a scorer asks about")
            case StageRule() if config.sampler is not None and config.sampler.positive_share and not config.one_class:
                key, share = f"{key}.sampler.per_image", config.sampler.positive_share
                enough = int(np.ceil(usual / share))
                yield Limit(key, config.sampler.per_image, enough, f"candidates, {share:.0%} of them positive")


def _round_up(count: int) -> int:
    return -(-count // 10) * 10


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _range(low: float, high: float) -> str:
    return f"{low:.0f}" if round(low) == round(high) else f"{low:.0f} to {high:.0f}"


def _listed(values: object) -> str:
    return str(values).replace("(", "[").replace(")", "]").replace(",]", "]")

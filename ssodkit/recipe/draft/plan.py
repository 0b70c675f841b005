"""What a first recipe for one's own pictures says, and why: each line with the reason that the data gives for it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssodkit.data.anchor_choice import AnchorChoice
from ssodkit.data.config import BatchConfig
from ssodkit.data.sets import DataSets
from ssodkit.data.survey import Survey, is_learned, survey
from ssodkit.detectors.torchvision_weights import KNOWN
from ssodkit.recipe.draft.numbers import (
    PYRAMID_IOU,
    Boxes,
    average_over,
    images_at_once,
    light_anchors,
    light_steps,
    limit,
    pretrained_steps,
    pyramid_anchors,
    small_size,
    strides_of,
    usual_size,
)
from ssodkit.recipe.draft.weights import Start


@dataclass(frozen=True)
class Preset:
    """A method as `init` offers it."""

    base: str
    words: str

    @property
    def learns_unlabeled(self) -> bool:
        """Whether it uses the unlabeled pictures."""
        return self.base != "supervised"


PRESETS: Mapping[str, Preset] = {
    "mean_teacher": Preset("label_distribution", "a teacher labels, as many boxes as the labels let expect"),
    "supervised": Preset("supervised", "the labels alone teach"),
}
"""By the names that `--method` takes; the first is the default."""


@dataclass(frozen=True)
class Scale:
    """What the size of a network decides."""

    detector: str
    schedule: str
    """Bases."""
    schedule_words: str
    labeled: int
    """Images of a step."""
    size: Callable[[NDArray[np.int32], Boxes], tuple[int, int]]
    """Sizes of the pictures, and boxes in them -> short and long side of views."""
    anchors: Callable[[Boxes], AnchorChoice]
    """By the boxes in a view."""
    meets: str
    """How much a box and its anchor overlap at least."""
    steps: Callable[[int], int]
    """By the number of labeled pictures."""


LIGHT = Scale(
    detector="faster_rcnn_light",
    schedule="own",
    schedule_words="all step numbers are shares of engine.steps",
    labeled=4,
    size=small_size,
    anchors=light_anchors,
    meets="half",
    steps=light_steps,
)
LARGE = Scale(
    detector="faster_rcnn",
    schedule="own_pretrained",
    schedule_words="rates as papers have them, in shares of engine.steps; not tuned",
    labeled=8,
    size=usual_size,
    anchors=pyramid_anchors,
    meets=f"{PYRAMID_IOU:g}",
    steps=pretrained_steps,
)


UPRIGHT = ("bases/views/photographs.yaml", "mirrored, too: where that changes meaning, take out flips and ensemble")
"""Base of the views, and what to know of it."""
ANY_WAY_UP = ("bases/views/any_way_up.yaml", "no upright: pictures are seen upside down as well")
"""The same for pictures that have no upright."""
PATIENCE = 6
"""Of the ten evaluations of a run: the rate has begun to fall before it ends."""


@dataclass(frozen=True)
class Line:
    """A key of the recipe, its value, and the reason."""

    key: str
    """Dotted, such as `views.size`."""
    value: Any
    reason: str = ""


@dataclass
class Plan:
    """What is written."""

    head: tuple[str, ...]
    """Sentences at the head of the file."""
    extends: tuple[tuple[str, str], ...]
    """Bases, and what each brings."""
    lines: list[Line] = field(default_factory=list)

    def add(self, key: str, value: Any, reason: str = "") -> None:
        """One more line."""
        self.lines.append(Line(key, value, reason))


def scale_of(start: Start) -> Scale:
    """Networks with pre-trained weights are large ones."""
    return LIGHT if start.is_new else LARGE


def batch_of(method: str, start: Start) -> BatchConfig:
    """The images of a step."""
    labeled = scale_of(start).labeled
    return BatchConfig(labeled=labeled, unlabeled=labeled if PRESETS[method].learns_unlabeled else 0)


def plan_recipe(
    name: str,
    method: str,
    start: Start,
    sets: DataSets,
    data: tuple[Line, ...],
    head: tuple[str, ...],
    any_way_up: bool = False,
) -> Plan:
    """The recipe of a method for the pictures that `sets` holds; `data` are the lines that say where they lie.

    Pictures that are right `any_way_up` are learned upside down as well.
    """
    preset, scale, seen = PRESETS[method], scale_of(start), survey(sets.labeled)
    boxes, batch = sets.labeled.boxes[is_learned(sets.labeled)], batch_of(method, start)
    short, long = scale.size(sets.labeled.sizes, boxes)
    factor = short / max(1.0, seen.short_sides.median)
    detector = scale.detector if start.detector is None else KNOWN[start.detector].preset
    plan = Plan(
        head=(*head, _describe(seen, sets)),
        extends=(
            (f"bases/detectors/{detector}.yaml", f"weights: {start.describe()}"),
            ANY_WAY_UP if any_way_up else UPRIGHT,
            (f"bases/methods/{preset.base}.yaml", preset.words),
            (f"bases/schedules/{scale.schedule}.yaml", scale.schedule_words),
        ),
    )
    plan.add("name", name)
    plan.lines += data
    plan.add("data.batch", {"labeled": batch.labeled, "unlabeled": batch.unlabeled})
    plan.add("views.size", {"type": "resize", "short": short, "long": long}, _why_size(seen, factor))
    if start.detector is None:
        _add_anchors(plan, scale, scale.anchors(boxes * factor))
    most = round(seen.per_image.most)
    plan.add("detector.test.at_most", limit(most), f"a labeled picture has up to {most} boxes")
    if preset.learns_unlabeled:
        plan.add("method.selector.at_most", limit(most), "the same")
        also = ["mirrored", "upside_down", "turned"] if any_way_up else ["mirrored"]
        plan.add("method.ensemble.views", also, "the teacher looks in these ways as well")
    steps = scale.steps(len(sets.labeled))
    plan.add("engine.steps", steps, f"for {len(sets.labeled)} labeled pictures")
    if sets.validation is not None:
        plan.add("engine.evaluate_every", steps // 10, "on the validation pictures")
        plan.add("engine.patience", PATIENCE, "it ends where so many of these in a row are no better than the best")
        plan.add("evaluation.checkpoint", "best", "by them")
    if not start.is_new:
        _add_weights(plan, start, steps)
    if start.gpu is not None and scale is LARGE:
        at_once = images_at_once(short * long, start.gpu, batch.labeled, batch.unlabeled)
        why = f"of the {batch.slots} of a step: a guess for {start.gpu / 1e9:.0f} GB"
        plan.add("engine.images_per_device", at_once, why)
    return plan


def _add_anchors(plan: Plan, scale: Scale, anchors: AnchorChoice) -> None:
    levels = len(anchors.sides)
    if scale is LIGHT and levels != 3:
        plan.add("detector.backbone.channels", [24, 48, *[96] * (levels - 2)], f"strides 4 to {strides_of(levels)[-1]}")
        plan.add("detector.roi.levels", levels, "regions are read from all of them")
    why = f"{100 * anchors.covered:.0f} % of the boxes overlap one of these by {scale.meets} or more"
    plan.add("detector.anchors.sides", [list(level) for level in anchors.sides], why)
    plan.add("detector.anchors.ratios", list(anchors.ratios), "height / width")


def _add_weights(plan: Plan, start: Start, steps: int) -> None:
    file = None if start.file is None else str(start.file)
    if start.detector is not None:
        plan.add("detector.weights", file or start.detector, "of torchvision; anchors stay as they learned them")
    else:
        plan.add("detector.backbone.name", start.network, "of timm")
        if file is not None:
            plan.add("detector.backbone.weights", file)
    why = "the teacher is an average over a tenth of the run, or 1,000 steps"
    plan.add("method.teacher.momentum.cap", average_over(steps), why)


def _why_size(seen: Survey, scale: float) -> str:
    sizes = f"pictures have sides of {seen.short_sides.median:.0f} and {seen.long_sides.median:.0f} (median)"
    if not seen.boxes:
        return sizes
    return f"{sizes}; 95 % of the boxes are then larger than {seen.sides.low * scale:.0f} pixels"


def _describe(seen: Survey, sets: DataSets) -> str:
    classes = ", ".join(f"{each.name} {each.boxes}" for each in seen.classes)
    unlabeled = 0 if sets.unlabeled is None else len(sets.unlabeled)
    return (
        f"{seen.images} labeled pictures with {seen.boxes} boxes ({classes}), {unlabeled} unlabeled, {len(sets.test)} "
        "for the test."
    )

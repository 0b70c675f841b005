"""What a first recipe for one's own pictures says, and why: each line with the reason that the data gives for it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ssodkit.data.sets import DataSets
from ssodkit.data.survey import Survey, is_learned, survey
from ssodkit.recipe.draft.numbers import AnchorChoice, choose_anchors, view_size


@dataclass(frozen=True)
class Preset:
    """A method as `init` offers it."""

    detector: str
    """Base of the detector that learns from new weights."""
    base: str
    words: str

    @property
    def learns_unlabeled(self) -> bool:
        """Whether it uses the unlabeled pictures."""
        return self.base != "supervised"


PRESETS: Mapping[str, Preset] = {
    "mean_teacher": Preset(
        "faster_rcnn_light",
        "label_distribution",
        "a teacher labels, as many boxes as the labels let expect",
    ),
    "supervised": Preset("faster_rcnn_light", "supervised", "the labels alone teach"),
}
"""By the names that `--method` takes; the first is the default."""

PIXELS = 44_000
"""Of a view, where a CPU trains: 240 x 180."""


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


def plan_recipe(name: str, method: str, sets: DataSets, data: tuple[Line, ...], head: tuple[str, ...]) -> Plan:
    """The recipe of a method for the pictures that `sets` holds; `data` are the lines that say where they lie."""
    preset, seen = PRESETS[method], survey(sets.labeled)
    boxes = sets.labeled.boxes[is_learned(sets.labeled)]
    short, long = view_size(sets.labeled.sizes, boxes, PIXELS)
    scale = short / max(1.0, seen.short_sides.median)
    plan = Plan(
        head=(*head, _describe(seen, sets)),
        extends=(
            (f"bases/detectors/{preset.detector}.yaml", "learns from new weights, also on a CPU"),
            (
                "bases/views/photographs.yaml",
                "take out what changes meaning, such as flips of writing",
            ),
            (f"bases/methods/{preset.base}.yaml", preset.words),
            ("bases/schedules/own.yaml", "all step numbers are shares of engine.steps"),
        ),
    )
    plan.add("name", name)
    plan.lines += data
    plan.add("data.batch", {"labeled": 4, "unlabeled": 4 if preset.learns_unlabeled else 0})
    plan.add("views.size", {"type": "resize", "short": short, "long": long}, _why_size(seen, scale))
    _add_anchors(plan, choose_anchors(boxes * scale))
    most = round(seen.per_image.most)
    plan.add("detector.test.at_most", limit(most), f"a labeled picture has up to {most} boxes")
    if preset.learns_unlabeled:
        plan.add("method.selector.at_most", limit(most), "the same")
    plan.add("engine.steps", steps_for(len(sets.labeled)), f"for {len(sets.labeled)} labeled pictures")
    return plan


def limit(most: int) -> int:
    """Detections of a picture where the labels have up to so many: twice as many, in tens, at least 30."""
    return max(30, 10 * -(-2 * most // 10))


def steps_for(labeled: int) -> int:
    """Steps of four labeled pictures: 800 for twenty, 2,400 for a hundred, and ten rounds of a thousand or more."""
    return max(800, min(2400, 400 + 20 * labeled), 5 * labeled // 2) // 100 * 100


def _add_anchors(plan: Plan, anchors: AnchorChoice) -> None:
    levels = len(anchors.sides)
    if levels != 3:
        plan.add("detector.backbone.channels", [24, 48, *[96] * (levels - 2)], f"strides 4 to {2 ** (levels + 1)}")
        plan.add("detector.roi.levels", levels, "regions are read from all of them")
    why = f"{100 * anchors.covered:.0f} % of the boxes overlap one of these by half or more"
    plan.add("detector.anchors.sides", [list(level) for level in anchors.sides], why)
    plan.add("detector.anchors.ratios", list(anchors.ratios), "height / width")


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

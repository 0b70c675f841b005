"""Pseudo-label health: what the teacher finds, what the filters leave, and how right it is against hidden labels.

Hidden labels are joined with the steps' reports here, by image id, outside the step; nothing else in a run sees
them. Labeled images that are also in the unlabeled stream are left out.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64, Shaped
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import one_hot

from ssodkit.data.annotations import ImageSet
from ssodkit.engine.alarms import Advice, number_alarm
from ssodkit.ops.boxes import pairwise_iou
from ssodkit.ops.collect import sum_over_processes
from ssodkit.structures.geometry import carry_labels
from ssodkit.structures.records import join
from ssodkit.structures.run import Report, Selection
from ssodkit.structures.teaching import Targets
from ssodkit.structures.views import View

BINS = 20
"""Of the histogram of confidences, between 0 and 1."""
LAST_SHARE = 0.1
"""The share of the run, at its end, that the end table speaks of."""
CHUNK = 256
"""Images that are compared with their hidden labels at once: bounds the memory."""

Counts = dict[str, Tensor]
"""Name -> sums over images and processes: `steps`, `images`, `found`, `histogram`, `passed` (one per filter), and one
per class: `taught`, `right`, `hidden`. For each of a selector's numbers, `taught/NAME` sums it over pseudo-labels and
`found/NAME` over the detections of each class, of which there are `found_per_class`."""
Summary = dict[str, Any]
"""Counts as a reader wants them: plain numbers, lists and dicts."""


class Health:
    """Collects the reports of steps, and counts them every so often."""

    def __init__(
        self,
        labeled: ImageSet,
        hidden: ImageSet | None,
        labeled_too: NDArray[np.int64],
        steps: int,
        quiet_after: int,
        device: torch.device,
        advice: Advice,
    ) -> None:
        """`hidden` are the images of the unlabeled stream with their labels, None where these do not exist, and
        `labeled_too` the ids of those that are labeled images as well."""
        self.names = tuple(category.name for category in labeled.categories)
        self.hidden = hidden
        self.labeled_too = torch.from_numpy(labeled_too)
        self.labeled_boxes_per_image = _boxes_per_image(labeled)
        self.last_begins = steps - max(1, round(LAST_SHARE * steps))
        self.quiet_after = quiet_after
        self.device = device
        self.advice = advice
        self.filters: tuple[str, ...] = ()
        self._waiting: list[Report] = []
        self._speaks_of_last = False
        self._recent: Counts = {}
        self._last: Counts = {}
        self._quiet_steps = 0
        self._numbers: list[float] = []
        self._told: list[str] = []

    def add(self, step: int, reports: Sequence[Report]) -> None:
        """Take note of the reports of update number `step`; the host waits for nothing."""
        if step > self.last_begins and not self._speaks_of_last:
            self.settle()
            self._speaks_of_last = True
        if reports:
            self.filters = tuple(reports[0].selection.passed)
            self._waiting.append(join(list(reports)))

    def settle(self) -> None:
        """Count what waits, over all processes. The host waits for the device."""
        if not self._waiting:
            return
        steps, report = len(self._waiting), join(_of_one_moment(self._waiting))
        self._waiting = []
        counts = {"steps": torch.tensor([float(steps)])} | self._count(report)
        self._recent = _add(self._recent, counts)
        if self._speaks_of_last:
            self._last = _add(self._last, counts)

    def report(self, teaches: bool = True) -> tuple[Summary | None, str | None]:
        """A summary of the steps since the last one, and a warning where their pseudo-boxes ask for one.

        Whether there are few or many is judged only where they teach; each kind of warning about it is given once.
        """
        self.settle()
        counts, self._recent = self._recent, {}
        if not counts:
            return None, None
        self._quiet_steps = 0 if counts["taught"].sum() else self._quiet_steps + int(counts["steps"])
        summary, warning = self._summarize(counts), None
        if self._quiet_steps >= self.quiet_after:
            warning = _explain_silence(self._quiet_steps, counts, self.filters)
            self._quiet_steps = 0
        elif teaches:
            warning = self._judge(summary["boxes_per_image"])
        return summary, warning

    def _judge(self, boxes_per_image: float) -> str | None:
        self._numbers.append(boxes_per_image)
        alarm = number_alarm(self._numbers, self.labeled_boxes_per_image, self.advice)
        if alarm is None or alarm[0] in self._told:
            return None
        self._told.append(alarm[0])
        return alarm[1]

    def last(self) -> Summary | None:
        """A summary of the last 10 % of the run."""
        self.settle()
        return self._summarize(self._last) if self._last else None

    def state_dict(self) -> dict[str, Any]:
        """What a restart needs; call `settle` first."""
        assert not self._waiting
        return {
            "recent": self._recent,
            "last": self._last,
            "quiet_steps": self._quiet_steps,
            "filters": list(self.filters),
            "speaks_of_last": self._speaks_of_last,
            "numbers": list(self._numbers),
            "told": list(self._told),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self._recent, self._last = state["recent"], state["last"]
        self._quiet_steps = state["quiet_steps"]
        self.filters = tuple(state["filters"])
        self._speaks_of_last = state["speaks_of_last"]
        self._numbers = list(state.get("numbers", ()))  # absent in checkpoints of earlier versions
        self._told = list(state.get("told", ()))

    def _count(self, report: Report) -> Counts:
        ids = report.view.image_ids.cpu()
        counted = ~torch.isin(ids, self.labeled_too)
        total: Counts = {}
        for start in range(0, len(ids), CHUNK):
            rows = slice(start, start + CHUNK)
            truth = self._look_up(ids[rows], report.view[rows])
            total = _add(total, count(report[rows], truth, counted[rows].to(self.device), len(self.names)))
        lengths = [len(part) for part in total.values()]
        summed = sum_over_processes(torch.cat(list(total.values()))).cpu()
        return dict(zip(total, summed.split(lengths), strict=True))

    def _look_up(self, ids: Tensor, view: View) -> Targets | None:
        """The hidden labels of these images, in the frame of `view`."""
        if self.hidden is None:
            return None
        truth = self.hidden.targets(self.hidden.positions(ids.numpy())).to(self.device)
        return carry_labels(truth.where(truth.weight > 0), view)

    def _summarize(self, counts: Counts) -> Summary:
        images = max(1.0, float(counts["images"]))
        found = max(1.0, float(counts["found"]))
        taught = counts["taught"]
        summary: Summary = {
            "steps": int(counts["steps"]),
            "images": int(counts["images"]),
            "found_per_image": float(counts["found"]) / images,
            "boxes_per_image": float(taught.sum()) / images,
            "labeled_boxes_per_image": self.labeled_boxes_per_image,
            "boxes_per_class": dict(zip(self.names, map(int, taught.tolist()), strict=True)),
            "passed": {
                name: share / found for name, share in zip(self.filters, counts["passed"].tolist(), strict=True)
            },
            "score_histogram": [int(number) for number in counts["histogram"].tolist()],
        }
        if "found_per_class" in counts:
            summary["numbers"] = self._summarize_numbers(counts)
        if "hidden" in counts:
            summary["precision"] = _share(counts["right"].sum(), taught.sum())
            summary["recall"] = _share(counts["right"].sum(), counts["hidden"].sum())
        return summary

    def _summarize_numbers(self, counts: Counts) -> Summary:
        """Of each of the selector's numbers the mean over pseudo-labels, and over the detections of each class."""
        summary = {}
        for name in (key.removeprefix("taught/") for key in counts if key.startswith("taught/")):
            per_class = zip(self.names, counts[f"found/{name}"], counts["found_per_class"], strict=True)
            summary[name] = {
                "mean": _share(counts[f"taught/{name}"].sum(), counts["taught"].sum()),
                "per_class": {each: _share(part, whole) for each, part, whole in per_class},
            }
        return summary


def describe_stored(
    stored: ImageSet | None, hidden: ImageSet | None, labeled: ImageSet, labeled_too: NDArray[np.int64]
) -> Summary | None:
    """What stored boxes of unlabeled images are worth, before any step; None where none are stored.

    `hidden` are the same images with their own labels, where these exist. Those that are labeled images as well, with
    the ids `labeled_too`, are left out.
    """
    if stored is None or not len(stored.boxes):
        return None
    places = np.flatnonzero(~np.isin(stored.ids, labeled_too))
    names, images = [category.name for category in labeled.categories], max(1, len(places))
    counts: Counts = {"taught": torch.zeros(len(names)), "right": torch.zeros(len(names)), "hidden": torch.zeros(1)}
    for start in range(0, len(places), CHUNK):
        taught = stored.targets(places[start : start + CHUNK])
        found = {"taught": _per_class(taught.labels, taught.valid, len(names))}
        if hidden is not None:
            truth = hidden.targets(hidden.positions(stored.ids[places[start : start + CHUNK]]))
            truth = truth.where(truth.weight > 0)
            right = match_one_to_one(taught, truth)
            found |= {"right": _per_class(taught.labels, right, len(names)), "hidden": truth.valid.sum()[None]}
        counts |= {name: counts[name] + number for name, number in found.items()}
    summary: Summary = {
        "images": len(places),
        "boxes_per_image": float(counts["taught"].sum()) / images,
        "labeled_boxes_per_image": _boxes_per_image(labeled),
        "boxes_per_class": dict(zip(names, map(int, counts["taught"].tolist()), strict=True)),
    }
    if hidden is not None:
        summary["precision"] = _share(counts["right"].sum(), counts["taught"].sum())
        summary["recall"] = _share(counts["right"].sum(), counts["hidden"].sum())
    return summary


def count(report: Report, truth: Targets | None, counted: Bool[Tensor, "batch"], num_classes: int) -> Counts:
    """The numbers of one report, of the images that are `counted`; all on the device, float64.

    Pseudo-labels are what teaches classes with a weight above 0.
    """
    found, classes = report.found, report.selection.supervision.classes
    is_found = found.valid & counted[:, None]
    is_taught = classes.valid & (classes.weight > 0) & counted[:, None]
    bins = one_hot((found.confidence * BINS).long().clamp(0, BINS - 1), BINS)
    counts = {
        "images": counted.sum()[None],
        "found": is_found.sum()[None],
        "histogram": (bins * is_found[..., None]).sum(dim=(0, 1)),
        "passed": torch.stack([(mask & is_found).sum() for mask in report.selection.passed.values()])
        if report.selection.passed
        else is_found.new_zeros(0),
        "taught": _per_class(classes.labels, is_taught, num_classes),
    }
    numbers = report.selection.numbers
    if numbers:
        counts["found_per_class"] = _per_class(found.labels, is_found, num_classes)
    for name, number in numbers.items():
        counts[f"taught/{name}"] = (number * is_taught).sum()[None]
        counts[f"found/{name}"] = _per_class(found.labels, number * is_found, num_classes)
    if truth is not None:
        right = match_one_to_one(classes.where(is_taught), truth)
        counts["right"] = _per_class(classes.labels, right, num_classes)
        counts["hidden"] = _per_class(truth.labels, truth.valid & counted[:, None], num_classes)
    return {name: number.double() for name, number in counts.items()}


def match_one_to_one(pseudo: Targets, truth: Targets, iou: float = 0.5) -> Bool[Tensor, "batch boxes"]:
    """Which pseudo-boxes find a true box of their class that overlaps by `iou` or more and is nobody else's yet.

    In the order of the rows: each takes the free box with which it overlaps most.
    """
    overlaps = pairwise_iou(pseudo.boxes, truth.boxes)
    fits = (pseudo.labels[:, :, None] == truth.labels[:, None]) & pseudo.valid[:, :, None] & truth.valid[:, None]
    overlaps = torch.where(fits & (overlaps >= iou), overlaps, 0.0)
    right = torch.zeros_like(pseudo.valid)
    if truth.valid.shape[1] == 0:
        return right
    for row in range(pseudo.valid.shape[1]):
        best, place = overlaps[:, row].max(dim=1)
        right[:, row] = best > 0
        taken = one_hot(place, truth.valid.shape[1]).bool() & right[:, row, None]
        overlaps = overlaps.masked_fill(taken[:, None], 0.0)
    return right


def _of_one_moment(reports: list[Report]) -> list[Report]:
    """The same reports, as if all were of the last step: they are counted together."""
    progress = reports[-1].selection.supervision.progress

    def dated(selection: Selection) -> Selection:
        return replace(selection, supervision=replace(selection.supervision, progress=progress))

    return [replace(report, selection=dated(report.selection)) for report in reports]


def _boxes_per_image(labeled: ImageSet) -> float:
    return float((~(labeled.crowd | labeled.difficult)).sum()) / max(1, len(labeled))


def _per_class(
    labels: Int64[Tensor, "batch boxes"], values: Shaped[Tensor, "batch boxes"], num_classes: int
) -> Float64[Tensor, "classes"]:
    sums = torch.zeros(num_classes, dtype=torch.float64, device=labels.device)
    return sums.scatter_add_(0, labels.flatten(), values.flatten().double())


def _add(first: Counts, second: Counts) -> Counts:
    return {name: first[name] + number for name, number in second.items()} if first else second


def _share(part: Tensor, whole: Tensor) -> float | None:
    return float(part / whole) if whole else None


def _explain_silence(steps: int, counts: Counts, filters: Sequence[str]) -> str:
    found = int(counts["found"])
    if found == 0:
        return (
            f"No pseudo-box for {steps} steps: the teacher finds nothing at all. Give it more steps on labeled images "
            "before the unlabeled weight rises, or check that the labeled loss falls."
        )
    removed = ", ".join(
        f"`{name}` {found - int(passed)}" for name, passed in zip(filters, counts["passed"].tolist(), strict=True)
    )
    best = (int(counts["histogram"].nonzero().max()) + 1) / BINS
    return (
        f"No pseudo-box for {steps} steps. Of the teacher's last {found} detections, all below a confidence of "
        f"{best:.2f}, the filters removed: {removed}. Try lower thresholds in `method.selector`, or more steps on "
        "labeled images before the unlabeled weight rises."
    )

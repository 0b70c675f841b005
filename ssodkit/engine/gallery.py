"""The gallery of a run: the same few images looked at now and then, to see what is found, taught and true in them.

Every moment is one line of `gallery/moments.jsonl`, with the names of the classes; the images lie beside it, as the
teacher sees them. The picture
sheet shows the last moment.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from ssodkit.data.annotations import ImageSet
from ssodkit.data.files import written_whole
from ssodkit.data.loader import batches_in_order
from ssodkit.engine.evaluate import evaluating, test_views
from ssodkit.engine.logging import MetricsFile
from ssodkit.engine.pictures import Boxes, Row, make_sheet
from ssodkit.engine.precision import autocast
from ssodkit.engine.session import Session
from ssodkit.structures.geometry import carry_labels
from ssodkit.structures.predictions import Detections
from ssodkit.structures.progress import Progress
from ssodkit.structures.run import Report
from ssodkit.structures.teaching import Targets
from ssodkit.structures.views import View

FOLDER, MOMENTS = "gallery", "moments.jsonl"
KEPT = 0.3
"""Detections of the networks above this score are written."""
SHOWN = 0.5
"""And above this one drawn on the sheet."""

Shown = dict[str, Any]
"""One image at one moment, in plain numbers: `id`, `size` (height, width), and lists in the image's pixels:
`truth` (boxes, labels; None where nobody knows it), `found` (boxes, labels, `scores` by name, `numbers` of the selector
by name, `verdict` on the class, `places`; None where nothing is pseudo-labeled), and by network `detections` (boxes,
labels, scores)."""


class Gallery:
    """Looks at its images when it is time, and writes what it saw; all processes must call it, the first one writes."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.folder = session.run / FOLDER
        steps, config = session.recipe.engine.steps, session.recipe.watch.gallery
        self.images = max(config.images, session.recipe.watch.pictures)
        self.times = {round(steps * part / config.moments) for part in range(1, config.moments + 1)}
        self._file = None
        if session.processes.is_first and self.images:
            self.folder.mkdir(exist_ok=True)
            # The last moment is looked at after the last step, also where a finished run is scored again.
            self._file = MetricsFile(self.folder / MOMENTS, session.step - (session.step == steps))
            session.log.note_foreign(self._file)
        self._written = session.step if self._file is not None and self._file.has("moment", session.step) else -1
        """The last moment's step: a run that ends at one of its moments writes it once."""

    def is_due(self) -> bool:
        """Whether the step just made is a moment before the run's end."""
        return self.session.step in self.times and self.session.step < self.session.recipe.engine.steps

    def look(self) -> list[tuple[NDArray[np.uint8], Shown]]:
        """Write what is to be seen now; pixels (height, width, 3) with each image."""
        with self.session.pace.paused():
            seen = list(_look(self.session, self.images))[: self.images]
            if self._file is not None and self._written != self.session.step:
                self._written = self.session.step
                self._file.append(
                    {
                        "kind": "moment",
                        "step": self.session.step,
                        "classes": self._class_names(),
                        "images": [image for _, image in seen],
                    }
                )
                for pixels, image in seen:
                    path = self.folder / f"{image['id']}.png"
                    if not path.exists():
                        with written_whole(path) as stream:
                            Image.fromarray(pixels).save(stream, format="PNG")
        return seen

    def conclude(self) -> Path | None:
        """Look a last time, and draw the sheet; None where the recipe wants no pictures."""
        if self.images == 0:
            return None
        seen = self.look()[: self.session.recipe.watch.pictures]
        if not seen:
            return None
        path = self.session.run / "pictures" / "sheet.png"
        if self.session.processes.is_first:
            path.parent.mkdir(exist_ok=True)
            sheet = make_sheet([Row(pixels, _columns(image, self._class_names())) for pixels, image in seen])
            with written_whole(path) as stream:
                sheet.save(stream, format="PNG")
        return path

    def _class_names(self) -> list[str]:
        """By label."""
        return [category.name for category in self.session.sets.categories]


@torch.no_grad()
def _look(session: Session, wanted: int) -> Iterator[tuple[NDArray[np.uint8], Shown]]:
    """Unlabeled images of the run's last steps; test images where a step has no weak view.

    Of as many steps as it takes, the same on all processes: a method may compute together.
    """
    recipe, steps = session.recipe, session.recipe.engine.steps
    each = max(1, recipe.data.batch.unlabeled // session.processes.count)
    labeled_too = torch.from_numpy(session.sets.labeled_too)
    is_unlabeled, now = False, Progress(min(session.step, steps - 1), steps)
    numbers = range(max(0, steps - math.ceil(wanted / each)), steps)
    for batches in session.processes.together(lambda: list(session.batches_of(numbers, workers=0))):
        for batch in batches:
            if batch.unlabeled is None or "weak" not in batch.unlabeled.views:
                continue
            is_unlabeled = True
            view = batch.unlabeled.views["weak"]
            with (
                evaluating([session.method]),
                _unchanged(session.method),
                autocast(recipe.engine.precision, session.processes.device),
            ):
                report = session.method(batch, now).report
            is_new = ~torch.isin(view.image_ids.cpu(), labeled_too)
            yield from _describe(session, view, session.sets.hidden, report, is_new)
    if not is_unlabeled:
        streams = batches_in_order(
            session.sets.test, test_views(recipe), recipe.evaluation.images, device=session.processes.device
        )
        first = islice(streams, math.ceil(wanted / recipe.evaluation.images))
        for stream in session.processes.together(lambda: list(first)):
            (view,) = stream.views.values()
            everything = torch.ones(len(view.image_ids), dtype=torch.bool)
            yield from _describe(session, view, session.sets.test, None, everything)


@contextmanager
def _unchanged(method: nn.Module) -> Iterator[None]:
    """Afterwards every buffer is as it was: selectors note what they see, for an update that never comes here."""
    kept = [buffer.clone() for buffer in method.buffers()]
    yield
    for buffer, before in zip(method.buffers(), kept, strict=True):
        buffer.copy_(before)


def _describe(
    session: Session, view: View, images: ImageSet | None, report: Report | None, keep: Tensor
) -> Iterator[tuple[NDArray[np.uint8], Shown]]:
    """Each image of a view that is to be kept, with its pixels."""
    truth = None if images is None else _truth(images, view).to("cpu")
    detections = {name: found.to("cpu") for name, found in _detections(session, view).items()}
    report = None if report is None else report.to("cpu")
    pixels, sizes = view.pixels.cpu(), view.sizes.tolist()
    for row in keep.nonzero().flatten().tolist():
        height, width = sizes[row]
        yield (
            pixels[row, :, :height, :width].permute(1, 2, 0).contiguous().numpy(),
            {
                "id": int(view.image_ids[row]),
                "size": [height, width],
                "truth": None if truth is None else _boxes(truth, truth.valid[row], row),
                "found": None if report is None else describe_found(report, row),
                "detections": {
                    name: {
                        **_boxes(found, found.valid[row], row),
                        "scores": _rounded(found.confidence[row], found.valid[row]),
                    }
                    for name, found in detections.items()
                },
            },
        )


def describe_found(report: Report, row: int) -> dict[str, Any]:
    """What the teacher found in one image of a report on the host, and what became of it.

    The `verdict` is `taught` where a box teaches classes, `ignored` where its candidates learn nothing, else the first
    filter that it did not pass. `places` says whether it teaches places, which other filters may decide.
    """
    found, selection = report.found, report.selection
    classes, boxes, keep = selection.supervision.classes, selection.supervision.boxes, report.found.valid[row]
    filters = {name: mask[row] for name, mask in selection.passed.items() if name not in ("objectness", "boxes")}
    verdicts = []
    for place in keep.nonzero().flatten().tolist():
        if bool(classes.valid[row, place]):
            verdicts.append("taught" if classes.weight[row, place] > 0 else "ignored")
        else:
            verdicts.append(next((name for name, mask in filters.items() if not mask[place]), "unused"))
    return {
        **_boxes(found, keep, row),
        "scores": {name: _rounded(score[row], keep) for name, score in found.scores.items()},
        "numbers": {name: _rounded(number[row], keep) for name, number in selection.numbers.items()},
        "verdict": verdicts,
        "places": (boxes.valid & (boxes.weight > 0))[row][keep].tolist(),
    }


def _boxes(boxes: Detections | Targets, keep: Tensor, row: int) -> dict[str, Any]:
    corners = (boxes.boxes[row][keep].double() * 10).round() / 10
    return {"boxes": corners.tolist(), "labels": boxes.labels[row][keep].tolist()}


def _rounded(values: Tensor, keep: Tensor) -> list[float]:
    return ((values[keep].double() * 1e4).round() / 1e4).tolist()


def _detections(session: Session, view: View) -> dict[str, Detections]:
    networks, found = session.method.networks(), {}
    with evaluating(networks.values()), autocast(session.recipe.engine.precision, view.pixels.device):
        for name, network in sorted(networks.items()):
            found[name] = network.detect(network.predict(network.extract(view)), KEPT, progress=session.tested)
    return found


def _truth(images: ImageSet, view: View) -> Targets:
    """True boxes in the frame of a view."""
    targets = images.targets(images.positions(view.image_ids.cpu().numpy())).to(view.homography.device)
    return carry_labels(targets, view)


def _columns(seen: Shown, names: list[str]) -> Mapping[str, Boxes]:
    """What the sheet shows of an image: title -> boxes."""
    columns = {}
    if seen["truth"] is not None:
        title = "labels" if seen["found"] is None else "hidden labels"
        columns[title] = _drawn(seen["truth"], names)
    if seen["found"] is not None:
        found = seen["found"]
        taught = [verdict == "taught" for verdict in found["verdict"]]
        columns["pseudo-labels"] = _drawn(found, names, found["scores"]["confidence"], taught)
    for name, found in seen["detections"].items():
        columns[name] = _drawn(found, names, found["scores"], [score > SHOWN for score in found["scores"]])
    return columns


def _drawn(
    boxes: Mapping[str, Any], names: list[str], scores: list[float] | None = None, keep: list[bool] | None = None
) -> Boxes:
    rows = [row for row in range(len(boxes["labels"])) if keep is None or keep[row]]
    corners = np.array([boxes["boxes"][row] for row in rows], dtype=np.float32).reshape(-1, 4)
    labels = np.array([boxes["labels"][row] for row in rows], dtype=np.int64)
    return Boxes(corners, labels, names, None if scores is None else [scores[row] for row in rows])

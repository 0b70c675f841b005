"""The picture sheet of a run: what is true, what the teacher taught, what the networks see."""

import math
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from ssodkit.data.annotations import ImageSet
from ssodkit.data.loader import test_batches
from ssodkit.engine.evaluate import evaluating, test_views
from ssodkit.engine.pictures import Boxes, Row, make_sheet
from ssodkit.engine.precision import autocast
from ssodkit.engine.session import Session
from ssodkit.structures.geometry import carry_labels
from ssodkit.structures.predictions import Detections
from ssodkit.structures.progress import Progress
from ssodkit.structures.run import Report
from ssodkit.structures.views import View

SHOWN = 0.5
"""Detections above this score are drawn."""


@torch.no_grad()
def draw_sheet(session: Session) -> Path | None:
    """Draw unlabeled images of the run's last steps, or test images where a step has no pseudo-labels.

    None where the recipe wants no pictures. All processes must call it; the first one writes.
    """
    wanted = session.recipe.watch.pictures
    if wanted == 0:
        return None
    rows = list(_unlabeled_rows(session)) or list(islice(_test_rows(session), wanted))
    path = session.run / "pictures" / "sheet.png"
    if session.processes.is_first:
        path.parent.mkdir(exist_ok=True)
        make_sheet(rows[:wanted]).save(path)
    return path


def _unlabeled_rows(session: Session) -> Iterator[Row]:
    """Of as many steps as it takes, the same on all processes: a method may compute together."""
    recipe, steps = session.recipe, session.recipe.engine.steps
    each = max(1, recipe.data.batch.unlabeled // session.processes.count)
    needed = math.ceil(recipe.watch.pictures / each)
    labeled = torch.from_numpy(session.sets.labeled.ids)
    for batches in session.batches_of(range(max(0, steps - needed), steps)):
        for batch in batches:
            with evaluating([session.method]), autocast(recipe.engine.precision, session.processes.device):
                report = session.method(batch, Progress(steps - 1, steps)).report
            if report is None or batch.unlabeled is None:
                return
            view = batch.unlabeled.views["weak"]
            columns = {"pseudo-labels": pseudo_labels(report), **_detections(session, view)}
            if session.sets.hidden is not None:
                columns = {"hidden labels": _truth(session.sets.hidden, view), **columns}
            is_new = ~torch.isin(view.image_ids.cpu(), labeled)
            yield from _rows(view, columns, is_new, session)


def _test_rows(session: Session) -> Iterator[Row]:
    images, recipe, device = session.sets.test, session.recipe, session.processes.device
    for stream in test_batches(images, test_views(recipe), recipe.evaluation.images, device=device):
        (view,) = stream.views.values()
        columns = {"labels": _truth(images, view), **_detections(session, view)}
        yield from _rows(view, columns, torch.ones(len(view.image_ids), dtype=torch.bool), session)


def _rows(view: View, columns: Mapping[str, Detections], keep: Tensor, session: Session) -> Iterator[Row]:
    names = [category.name for category in session.sets.categories]
    pixels, on_host = view.pixels.cpu(), {title: boxes.to("cpu") for title, boxes in columns.items()}
    for row in keep.nonzero().flatten().tolist():
        height, width = view.sizes[row].tolist()
        yield Row(
            pixels[row, :, :height, :width].permute(1, 2, 0).contiguous().numpy(),
            {title: boxes_of(boxes, row, names) for title, boxes in on_host.items()},
        )


def boxes_of(found: Detections, row: int, names: list[str]) -> Boxes:
    """What is drawn over one image of a batch: classes, with scores where they have any."""
    keep = found.valid[row]
    labels = found.labels[row][keep]
    scores = found.scores["confidence"][row][keep].tolist() if "confidence" in found.scores else [None] * len(labels)
    captions = [
        names[label] if score is None else f"{names[label]} {score:.2f}"
        for label, score in zip(labels.tolist(), scores, strict=True)
    ]
    return Boxes(found.boxes[row][keep].float().numpy(), labels.numpy(), captions)


def _detections(session: Session, view: View) -> dict[str, Detections]:
    networks, columns = session.method.networks(), {}
    with evaluating(networks.values()), autocast(session.recipe.engine.precision, view.pixels.device):
        for name, network in sorted(networks.items()):
            columns[name] = network.detect(network.predict(network.extract(view)), SHOWN)
    return columns


def pseudo_labels(report: Report) -> Detections:
    """What teaches classes, with the confidence of the detection that each box came from."""
    taught = report.selection.supervision.classes
    return Detections(taught.boxes, taught.labels, taught.valid & (taught.weight > 0), report.found.scores)


def _truth(images: ImageSet, view: View) -> Detections:
    """True boxes in the frame of a view, as detections without a score."""
    targets = images.targets(images.positions(view.image_ids.cpu().numpy())).to(view.homography.device)
    truth = carry_labels(targets, view)
    return Detections(truth.boxes, truth.labels, truth.valid)

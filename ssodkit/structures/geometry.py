"""The streams that views travel in, and boxes carried from view to view."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from ssodkit.ops.boxes import box_area, clip_boxes, has_area
from ssodkit.ops.homography import moved_sides, relate, warp_boxes
from ssodkit.structures.predictions import Detections
from ssodkit.structures.records import Record, join
from ssodkit.structures.teaching import Supervision, Targets
from ssodkit.structures.views import View

OF_SIDES = frozenset({"uncertainty"})
"""Extras of four numbers, of the left, top, right and bottom side."""

Boxed = TypeVar("Boxed", Targets, Detections)
Carried = TypeVar("Carried", Targets, Detections, Supervision)


@dataclass(frozen=True)
class Stream(Record):
    """Images of one kind: row i is one image in every view."""

    views: Mapping[str, View]
    targets: Mapping[str, Targets]
    """The labels carried into each view; empty for images without labels."""

    def only(self, name: str) -> "Stream":
        """The same images in this one view."""
        return Stream({name: self.views[name]}, {name: self.targets[name]})

    def joined(self) -> tuple[View, Targets]:
        """All views as rows of one batch, with their targets: every labeled view teaches."""
        names = list(self.views)
        return join([self.views[name] for name in names]), join([self.targets[name] for name in names])


@dataclass(frozen=True)
class SemiBatch(Record):
    """What one training step gets."""

    labeled: Stream
    unlabeled: Stream | None
    """None where the method asks for no unlabeled view, or the step's unlabeled weight is 0."""


def carry(record: Carried, source: View, goal: View, visible: float = 0.0) -> Carried:
    """Take boxes from one view's frame to another's view of the same images.

    A box becomes the hull of its four corners, clipped to the goal's size. What has no area left, or less than
    `visible` (a fraction) of its carried area, loses `valid`; no row moves. Target sets that are one object stay one.
    """
    homography = relate(source.homography, goal.homography)
    if isinstance(record, Supervision):
        return record.map(lambda targets: move_boxes(targets, homography, goal.sizes, visible))
    return move_boxes(record, homography, goal.sizes, visible)


def carry_boxes(boxes: Float[Tensor, "batch boxes 4"], source: View, goal: View) -> Float[Tensor, "batch boxes 4"]:
    """Bare boxes from one view's frame to another's, clipped to the goal's size."""
    return clip_boxes(warp_boxes(boxes.float(), relate(source.homography, goal.homography)), goal.sizes)


def carry_labels(targets: Targets, view: View, visible: float = 0.0) -> Targets:
    """What is true of the original images, in the frame of a view of them; clipped and dropped as `carry` does."""
    return move_boxes(targets, view.homography, view.sizes, visible)


def move_boxes(record: Boxed, homography: Tensor, sizes: Tensor, visible: float) -> Boxed:
    """Boxes moved by homographies (batch, 3, 3) into frames of `sizes`; clipped and dropped as by `carry`.

    What is said of their sides goes with the sides: a mirror makes the left one the right one.
    """
    whole = warp_boxes(record.boxes.float(), homography)
    boxes = clip_boxes(whole, sizes)
    stays = has_area(boxes) & (box_area(boxes) >= visible * box_area(whole))
    boxes = torch.where(stays[..., None], boxes, torch.zeros_like(boxes))
    extra = dict(record.extra)
    for name in extra.keys() & OF_SIDES:
        sides = moved_sides(homography)[:, None].expand(-1, extra[name].shape[1], 4)
        extra[name] = extra[name].gather(2, sides)
    return replace(record, boxes=boxes, valid=record.valid & stays, extra=extra)

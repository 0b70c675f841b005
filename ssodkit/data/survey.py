"""What labeled images are like, in numbers: sides, shapes and counts of boxes, sizes of images, and classes.

Only boxes that can be learned count: no crowd, none that is tagged difficult. What a network meets are not the
annotated boxes but those of its views, which `boxes_in_view` draws without reading a pixel.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ssodkit.data.annotations import ImageSet
from ssodkit.data.augment.base import draw_view
from ssodkit.data.mosaic import MosaicConfig, mosaic_targets
from ssodkit.data.views import ViewConfig
from ssodkit.ops.random import make_key
from ssodkit.structures.geometry import move_boxes

SAMPLE = 2000
"""Images, evenly spaced, that stand for more of them."""


class Spread(NamedTuple):
    """How a number is distributed; all are 0 where there is none."""

    least: float = 0.0
    low: float = 0.0
    """5 % lie below it."""
    median: float = 0.0
    high: float = 0.0
    """5 % lie above it."""
    most: float = 0.0


class ClassCount(NamedTuple):
    """How often a class is shown."""

    name: str
    images: int
    boxes: int


@dataclass(frozen=True)
class Survey:
    """A set of labeled images in numbers."""

    images: int
    empty: int
    """Images without a box."""
    boxes: int
    short_sides: Spread
    """Of the images, in pixels."""
    long_sides: Spread
    sides: Spread
    """Roots of the boxes' areas, in pixels."""
    ratios: Spread
    """Height / width of the boxes."""
    per_image: Spread
    """Boxes of an image."""
    classes: tuple[ClassCount, ...]
    """In the order of the labels."""

    def as_json(self) -> dict[str, Any]:
        """In plain types."""
        plain = {name: value._asdict() if isinstance(value, Spread) else value for name, value in vars(self).items()}
        return {**plain, "classes": [each._asdict() for each in self.classes]}


@dataclass(frozen=True)
class ViewedBoxes:
    """Boxes as a view shows them."""

    boxes: NDArray[np.float32]
    """(k, 4): xyxy in pixels of the view."""
    per_image: NDArray[np.int64]
    """(n,): how many of them each image has."""
    sizes: NDArray[np.int64]
    """(n, 2): height and width of the view's images."""
    scales: NDArray[np.float64]
    """(n,): pixels of the view along a pixel of each image."""


def survey(images: ImageSet) -> Survey:
    """The numbers of a set, boxes in pixels of the original images; an empty set has zeros."""
    learned = is_learned(images)
    boxes, per_image = images.boxes[learned], images.boxes_per_image(learned)
    owners = np.repeat(np.arange(len(images)), images.boxes_per_image())[learned]
    labels = images.labels[learned].astype(np.int64)
    count = len(images.categories)
    shown = np.unique(owners * max(count, 1) + labels) % max(count, 1)  # each pair of image and class once
    in_images, in_boxes = (np.bincount(each, minlength=count).tolist() for each in (shown, labels))
    return Survey(
        images=len(images),
        empty=int(np.count_nonzero(per_image == 0)),
        boxes=len(boxes),
        short_sides=spread(images.sizes.min(axis=1, initial=2**31 - 1) if len(images) else ()),
        long_sides=spread(images.sizes.max(axis=1, initial=0)),
        sides=spread(box_sides(boxes)),
        ratios=spread(box_ratios(boxes)),
        per_image=spread(per_image),
        classes=tuple(
            ClassCount(category.name, *counts)
            for category, *counts in zip(images.categories, in_images, in_boxes, strict=True)
        ),
    )


def is_learned(images: ImageSet) -> NDArray[np.bool_]:
    """Which boxes (k,) of a set can be learned."""
    return ~(images.crowd | images.difficult)


def spread(values: Sequence[float] | NDArray[np.generic]) -> Spread:
    """The quantiles of some numbers."""
    numbers = np.asarray(values, dtype=np.float64)
    return Spread(*np.quantile(numbers, (0.0, 0.05, 0.5, 0.95, 1.0)).tolist()) if len(numbers) else Spread()


def box_sides(boxes: NDArray[np.float32]) -> NDArray[np.float64]:
    """The sides of squares with the areas of boxes (k, 4), in pixels."""
    width, height = _lengths(boxes)
    return np.sqrt(width * height)


def box_ratios(boxes: NDArray[np.float32]) -> NDArray[np.float64]:
    """Height / width of boxes (k, 4) that have an area."""
    width, height = _lengths(boxes)
    return height / width


def boxes_in_view(
    images: ImageSet,
    view: ViewConfig,
    minimum_visible: float,
    mosaic: MosaicConfig | None = None,
    at_most: int = SAMPLE,
) -> ViewedBoxes:
    """The boxes of up to so many images, evenly spaced, where one draw of a view's geometry takes them.

    With a mosaic the view is one of it, laid of these images. The sizes of all images are known. A box of which less
    than `minimum_visible` stays inside is gone, as in training.
    """
    places = np.unique(np.linspace(0, len(images) - 1, min(at_most, len(images))).round().astype(np.int64))
    chosen = images.with_boxes(is_learned(images)).subset(places)
    keys = torch.tensor([make_key("survey", number) for number in chosen.ids.tolist()], dtype=torch.int64)
    sizes, targets = torch.from_numpy(chosen.sizes.astype(np.int64)), chosen.targets(range(len(chosen)))
    scales = torch.ones(len(chosen), dtype=torch.float64)
    if mosaic is not None:
        laid = mosaic.draw(keys, len(chosen))
        four = torch.cat([torch.arange(len(chosen))[:, None], laid.partners], dim=1)
        targets = mosaic_targets(chosen, four, sizes[four], laid, minimum_visible)
        scales = torch.where(laid.happens, mosaic.side / sizes.amax(dim=1), scales)
        sizes = torch.where(laid.happens[:, None], 2 * mosaic.side, sizes)
    drawn = draw_view(view.transforms, sizes, keys, targets, minimum_visible)
    moved = move_boxes(targets, drawn.homography.float(), drawn.sizes, minimum_visible)
    scales *= drawn.homography[:, :2, :2].det().abs().sqrt()
    boxes, per_image = moved.boxes[moved.valid], moved.valid.sum(dim=1)
    return ViewedBoxes(boxes.numpy(), per_image.numpy(), drawn.sizes.numpy(), scales.numpy())


def best_anchor_ious(
    boxes: NDArray[np.float32],
    sides: Sequence[Sequence[float]],
    ratios: Sequence[float],
    strides: Sequence[int],
    center: float = 0.0,
) -> NDArray[np.float64]:
    """The highest IoU (k,) that any anchor has with each box (k, 4).

    Anchors are those of an `AnchorConfig`, laid over an endless image: `sides` for each of the pyramid's `strides`.
    """
    width, height = _lengths(boxes)
    middles = (boxes[:, :2].astype(np.float64) + boxes[:, 2:]) / 2
    best = np.zeros(len(boxes))
    for stride, of_level in zip(strides, sides, strict=True):
        # Of equal anchors the one whose middle is nearest in x and in y overlaps the most.
        cells = np.maximum(np.round(middles / stride - center), 0.0)
        away = np.abs(middles - (cells + center) * stride)
        for side in of_level:
            for ratio in ratios:
                best = np.maximum(best, _shifted_iou(width, height, side / ratio**0.5, side * ratio**0.5, away))
    return best


def drawn_twice(images: ImageSet, iou: float = 0.95) -> list[int]:
    """Places of images in which two boxes of one class overlap by more than this IoU."""
    found = []
    for place in np.flatnonzero(images.boxes_per_image() > 1).tolist():
        rows = slice(images.offsets[place], images.offsets[place + 1])
        boxes, labels = images.boxes[rows].astype(np.float64), images.labels[rows]
        low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
        high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
        shared = np.clip(high - low, 0.0, None).prod(axis=-1)
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
        is_twin = (shared > iou * (areas[:, None] + areas[None] - shared)) & (labels[:, None] == labels[None])
        if np.count_nonzero(is_twin) > len(boxes):  # each is its own twin
            found.append(place)
    return found


def _lengths(boxes: NDArray[np.float32]) -> NDArray[np.float64]:
    """Width and height, (2, k)."""
    corners = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    return (corners[:, 2:] - corners[:, :2]).T


def _shifted_iou(
    width: NDArray[np.float64],
    height: NDArray[np.float64],
    anchor_width: float,
    anchor_height: float,
    away: NDArray[np.float64],
) -> NDArray[np.float64]:
    """The IoU of boxes with an anchor whose middle is `away` (k, 2) from theirs in x and y."""
    shared = np.ones(len(width))
    for axis, (own, anchors) in enumerate(((width, anchor_width), (height, anchor_height))):
        within = np.minimum((own + anchors) / 2 - away[:, axis], np.minimum(own, anchors))
        shared *= np.maximum(within, 0.0)
    return shared / (width * height + anchor_width * anchor_height - shared)

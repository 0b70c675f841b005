"""Images with boxes in flat arrays: what a worker process shares with its parent instead of copying it.

A Python object per image or box would be copied into every worker as soon as its reference count is touched
(118,287 images with 860,001 boxes are about 1 GB so); arrays are 25 MB in all, and stay shared after a fork.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ssodkit.structures.teaching import Targets

Column = NDArray[Any] | Sequence[Any]
"""Values of one kind, one per image or box."""


class Category(NamedTuple):
    """A class as its data set knows it; its place in the table is the label that networks learn."""

    id: int
    name: str


@dataclass(frozen=True, eq=False)
class ImageSet:
    """n images with k boxes in all; the boxes of image i are the rows `offsets[i]` to `offsets[i + 1]`."""

    root: Path
    """The folder that names are relative to."""
    name_bytes: NDArray[np.uint8]
    """All file names, one behind the other."""
    name_offsets: NDArray[np.int64]
    ids: NDArray[np.int64]
    sizes: NDArray[np.int32]
    """(n, 2): annotated height and width in pixels; 0 where nobody annotated them."""
    offsets: NDArray[np.int64]
    boxes: NDArray[np.float32]
    """(k, 4): xyxy in pixels of the original image, inside it."""
    labels: NDArray[np.int16]
    """0 .. len(categories) - 1."""
    areas: NDArray[np.float32]
    """Square pixels as annotated, of the outline where there is one: what COCO's size ranges go by."""
    crowd: NDArray[np.bool_]
    difficult: NDArray[np.bool_]
    scores: NDArray[np.float32]
    """How sure a network was of each box; 1 where somebody annotated it."""
    categories: tuple[Category, ...]
    notes: tuple[str, ...] = ()
    """What reading changed, in sentences."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def category_ids(self) -> NDArray[np.int64]:
        """Label -> the data set's own category id."""
        return np.array([category.id for category in self.categories], dtype=np.int64)

    def name(self, index: int) -> str:
        """The file name of an image, relative to `root`."""
        start, end = self.name_offsets[index : index + 2]
        return os.fsdecode(self.name_bytes[start:end].tobytes())

    def path(self, index: int) -> Path:
        """The file of an image."""
        return self.root / self.name(index)

    def describe_files(self) -> str:
        """How many images, and a hash of their names: files may be mended between two parts of a run, or exchanged."""
        names = hashlib.blake2b(self.name_bytes.tobytes() + self.name_offsets.tobytes(), digest_size=4)
        return f"{len(self)} ({names.hexdigest()})"

    def positions(self, ids: Column) -> NDArray[np.int64]:
        """Places of images by their ids. Raises KeyError for an id that no image has."""
        wanted = np.asarray(ids, dtype=np.int64)
        order = np.argsort(self.ids, kind="stable")
        if not len(order):
            found = np.zeros(wanted.shape, dtype=np.int64)
        else:
            found = order[np.searchsorted(self.ids, wanted, sorter=order).clip(max=len(order) - 1)]
        unknown = wanted[self.ids[found] != wanted] if len(order) else wanted
        if unknown.size:
            raise KeyError(f"no image has the id {unknown.flat[0]}")
        return found

    def boxes_per_image(self, counted: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
        """How many boxes each image has; of those that are `counted` (k,), if given."""
        if counted is None:
            return np.diff(self.offsets)
        return np.diff(np.concatenate([[0], np.cumsum(counted)])[self.offsets])

    def boxes_per_class(self) -> NDArray[np.int64]:
        """How many boxes each class has; neither crowds nor difficult ones, which teach nothing."""
        taught = ~(self.crowd | self.difficult)
        return np.bincount(self.labels[taught], minlength=len(self.categories))

    def subset(self, indices: Column) -> "ImageSet":
        """The images at these places, in this order; nothing is shared with this set."""
        chosen = np.asarray(indices, dtype=np.int64)
        name_rows, name_offsets = _ragged_rows(self.name_offsets, chosen)
        rows, offsets = _ragged_rows(self.offsets, chosen)
        return replace(
            self._with_box_rows(rows, offsets),
            name_bytes=self.name_bytes[name_rows],
            name_offsets=name_offsets,
            ids=self.ids[chosen],
            sizes=self.sizes[chosen],
        )

    def with_boxes(self, keep: NDArray[np.bool_]) -> "ImageSet":
        """The same images with the boxes that `keep` (k,) names; all others are forgotten."""
        return self._with_box_rows(np.flatnonzero(keep), _running_sum(self.boxes_per_image(keep)))

    def without_labels(self) -> "ImageSet":
        """The same images; no box, label or class of theirs can be found in the answer."""
        return replace(self.with_boxes(np.zeros(len(self.boxes), dtype=bool)), categories=())

    def targets(self, indices: Column) -> Targets:
        """The labels of these images, padded to the most boxes among them. Crowd and difficult boxes weigh 0."""
        chosen = np.asarray(indices, dtype=np.int64)
        rows, offsets = _ragged_rows(self.offsets, chosen)
        counts = np.diff(offsets)
        place = np.repeat(np.arange(len(chosen)), counts), np.arange(len(rows)) - np.repeat(offsets[:-1], counts)
        shape = (len(chosen), int(counts.max(initial=0)))

        def padded(values: NDArray[Any], dtype: type) -> torch.Tensor:
            table: NDArray[Any] = np.zeros(shape + values.shape[1:], dtype=dtype)
            table[place] = values
            return torch.from_numpy(table)

        taught = ~(self.crowd[rows] | self.difficult[rows])
        return Targets(
            boxes=padded(self.boxes[rows], np.float32),
            labels=padded(self.labels[rows], np.int64),
            valid=padded(np.ones(len(rows)), np.bool_),
            weight=padded(taught, np.float32),
            crowd=padded(self.crowd[rows], np.bool_),
            all_teach=bool(taught.all()),
        )

    def _with_box_rows(self, rows: NDArray[np.int64], offsets: NDArray[np.int64]) -> "ImageSet":
        return replace(
            self,
            offsets=offsets,
            boxes=self.boxes[rows],
            labels=self.labels[rows],
            areas=self.areas[rows],
            crowd=self.crowd[rows],
            difficult=self.difficult[rows],
            scores=self.scores[rows],
        )


def make_image_set(
    root: Path,
    names: Sequence[str],
    ids: Column,
    sizes: Column,
    categories: Sequence[Category] = (),
    image_of_box: Column = (),
    boxes: Column = (),
    labels: Column = (),
    areas: Column | None = None,
    crowd: Column | None = None,
    difficult: Column | None = None,
    scores: Column | None = None,
    notes: Sequence[str] = (),
) -> ImageSet:
    """Pack columns into a set; boxes may come in any order of images, and keep their order within an image.

    `image_of_box` (k,) holds places in `names`. Without `areas`, boxes are as large as they are.
    """
    owner = np.asarray(image_of_box, dtype=np.int64).reshape(-1)
    order = np.argsort(owner, kind="stable")
    corners = np.asarray(boxes, dtype=np.float32).reshape(-1, 4)[order]
    encoded = [os.fsencode(name) for name in names]

    def column(values: Column | None, dtype: type, default: Any) -> NDArray[Any]:
        return np.full(len(owner), default, dtype) if values is None else np.asarray(values, dtype=dtype)[order]

    return ImageSet(
        root=root,
        name_bytes=np.frombuffer(b"".join(encoded), dtype=np.uint8),
        name_offsets=_running_sum([len(name) for name in encoded]),
        ids=np.asarray(ids, dtype=np.int64).reshape(-1),
        sizes=np.asarray(sizes, dtype=np.int32).reshape(-1, 2),
        offsets=_running_sum(np.bincount(owner, minlength=len(encoded))),
        boxes=corners,
        labels=column(labels, np.int16, 0),
        areas=np.prod(corners[:, 2:] - corners[:, :2], axis=1) if areas is None else column(areas, np.float32, 0),
        crowd=column(crowd, np.bool_, False),
        difficult=column(difficult, np.bool_, False),
        scores=column(scores, np.float32, 1),
        categories=tuple(categories),
        notes=tuple(notes),
    )


def _running_sum(counts: Column) -> NDArray[np.int64]:
    """0, and the sum up to and with each count."""
    return np.concatenate([[0], np.cumsum(np.asarray(counts, dtype=np.int64))]).astype(np.int64)


def _ragged_rows(offsets: NDArray[np.int64], chosen: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of the chosen groups, one group behind the other, and the offsets of these groups."""
    counts = offsets[chosen + 1] - offsets[chosen]
    goal = _running_sum(counts)
    return np.repeat(offsets[chosen] - goal[:-1], counts) + np.arange(goal[-1]), goal

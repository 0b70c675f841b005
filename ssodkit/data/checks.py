"""What every reader of annotations checks, and how it says what is wrong."""

import os
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from ssodkit.data.annotations import Category, ImageSet
from ssodkit.errors import DataError

T = TypeVar("T")

ROUNDING = 0.01
"""Pixels by which a box may leave its image without being counted: files are written with two decimals."""


def listed(items: Iterable[T], show: Callable[[T], str] = str, at_most: int = 10) -> str:
    """The first few as `show` writes them, and how many more there are."""
    things = list(items)
    more = f" and {len(things) - at_most} more" if len(things) > at_most else ""
    return ", ".join(show(thing) for thing in things[:at_most]) + more


def seen_from_here(path: Path) -> str:
    """A path as the user wrote it; where it is relative, with the folder that it is relative to."""
    return str(path) if path.is_absolute() else f"{path} (seen from {Path.cwd()})"


def duplicates(values: Sequence[object]) -> list[tuple[int, int]]:
    """Places (first, again) of every value that occurs a second time."""
    seen: dict[object, int] = {}
    return [(seen[value], place) for place, value in enumerate(values) if seen.setdefault(value, place) != place]


def clean_boxes(
    boxes: NDArray[np.float64],
    sizes: NDArray[np.int32],
    name: Callable[[int], str],
    file: object,
    zero_size: Literal["refuse", "drop"],
) -> tuple[NDArray[np.float32], NDArray[np.bool_], list[str]]:
    """Boxes (k, 4) xyxy clipped to their images of `sizes` (k, 2), which of them stay, and what was done.

    `name(row)` says which box is meant. Raises DataError for coordinates that are no numbers, and for boxes
    without width or height unless `zero_size` drops them. A box that lies outside its image is dropped.
    """
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    finite = np.isfinite(boxes).all(axis=1)
    if not finite.all():
        bad = listed(np.flatnonzero(~finite).tolist(), name)
        raise DataError(f"{file}: coordinates that are no finite numbers, in {bad}. Mend these boxes in the file.")
    sized = (width > 0) & (height > 0)
    if not sized.all() and zero_size == "refuse":
        raise DataError(
            f"{file}: boxes without width or height ({np.count_nonzero(~sized)} in all): "
            f"{listed(np.flatnonzero(~sized).tolist(), name)}. "
            "Mend them in the file, or set `zero_size_boxes: drop` for this source."
        )
    bound = sizes[:, [1, 0, 1, 0]].astype(np.float64)
    clipped = np.clip(boxes, 0.0, bound)
    beyond = sized & (np.abs(clipped - boxes) > ROUNDING).any(axis=1)
    inside = clipped.astype(np.float32)
    has_area = (inside[:, 2] > inside[:, 0]) & (inside[:, 3] > inside[:, 1])
    counts = {
        "without width or height were dropped": np.count_nonzero(~sized),
        "outside their image were dropped": np.count_nonzero(sized & ~has_area),
        "beyond the border of their image were clipped": np.count_nonzero(beyond & has_area),
    }
    return inside, sized & has_area, [f"{file}: {count} boxes {what}" for what, count in counts.items() if count]


def require_files(images: ImageSet) -> None:
    """Raises DataError that lists image files which do not exist, with a near name where there is one.

    Folders are listed once each: 118,287 single questions to a file server take minutes.
    """
    folders: dict[str, set[str]] = {}
    missing = []
    for index in range(len(images)):
        folder, file = os.path.split(os.path.join(images.root, images.name(index)))
        if folder not in folders:
            folders[folder] = set(os.listdir(folder)) if os.path.isdir(folder) else set()
        if file not in folders[folder]:
            missing.append((folder, file))
    if missing:
        shown = listed(missing, lambda place: os.path.join(*place) + _near_name(place[1], folders[place[0]]))
        raise DataError(
            f"{len(missing)} of {len(images)} image files do not exist: {shown}. "
            f"File names are relative to {seen_from_here(images.root)}; check this folder in the recipe."
        )


def in_table(key: str, images: ImageSet, categories: tuple[Category, ...]) -> ImageSet:
    """The same images with labels that count in another table of the same categories, whatever its order.

    Raises DataError that begins with `key` and lists the categories that only one of them has.
    """
    if set(images.categories) != set(categories):
        mine, theirs = (sorted(set(table)) for table in (images.categories, categories))
        raise DataError(
            f"{key} and data.train must have the same categories, by id and name. "
            f"Only in data.train: {_named(set(theirs) - set(mine))}. Only in {key}: {_named(set(mine) - set(theirs))}."
        )
    place = {category: label for label, category in enumerate(categories)}
    label_of = np.array([place[category] for category in images.categories], dtype=np.int16)
    return replace(images, labels=label_of[images.labels], categories=categories)


def _named(categories: set[Category]) -> str:
    return listed(sorted(categories), lambda category: f"{category.id} '{category.name}'") or "none"


def _near_name(file: str, existing: set[str]) -> str:
    """A file that differs in letter case or Unicode form only, as a hint."""
    for other in existing:
        if _plain(other) == _plain(file):
            return f" (there is {other!r}: other letter case or Unicode form)"
    return ""


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()

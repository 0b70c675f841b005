"""What every reader of annotations checks."""

import os
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ssodkit.data.annotations import Category, ImageSet
from ssodkit.data.mistakes import Mistakes, listed, shown
from ssodkit.data.reading import seen_from_here
from ssodkit.errors import DataError

ROUNDING = 0.01
"""Pixels by which a box may leave its image without being counted: files are written with two decimals."""
NO_AREA = "without width or height were dropped"
"""What a note says of such boxes."""
FARTHEST = 1e9
"""Pixels from the corner of an image beyond which a coordinate is a mistake, and not a box that leaves its image."""


def duplicates(values: Sequence[object]) -> list[tuple[int, int]]:
    """Places (first, again) of every value that occurs a second time."""
    seen: dict[object, int] = {}
    return [(seen[value], place) for place, value in enumerate(values) if seen.setdefault(value, place) != place]


def clean_boxes(
    boxes: NDArray[np.float64],
    sizes: NDArray[np.int32],
    name: Callable[[int], str],
    zero_size: Literal["refuse", "drop"],
    mistakes: Mistakes,
) -> tuple[NDArray[np.float32], NDArray[np.bool_], list[str]]:
    """Boxes (k, 4) xyxy clipped to their images of `sizes` (k, 2), which of them stay, and what was done.

    `name(row)` says which box is meant. Mistakes are coordinates that are no numbers of pixels, and boxes without
    width or height unless `zero_size` drops them. A box that lies outside its image is dropped.
    """
    written = np.all(np.abs(boxes) <= FARTHEST, axis=1)
    bad = np.flatnonzero(~written).tolist()
    mistakes.add("boxes that are not four finite numbers of pixels", "Mend them in the file.", bad, name)
    boxes = np.where(written[:, None], boxes, 0.0)
    sized = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    if zero_size == "refuse":
        mistakes.add(
            "boxes without width or height",
            "Mend them in the file, or set `zero_size_boxes: drop` for this source.",
            np.flatnonzero(written & ~sized).tolist(),
            name,
        )
    bound = sizes[:, [1, 0, 1, 0]].astype(np.float64)
    clipped = np.clip(boxes, 0.0, bound)
    beyond = sized & (np.abs(clipped - boxes) > ROUNDING).any(axis=1)
    inside = clipped.astype(np.float32)
    has_area = (inside[:, 2] > inside[:, 0]) & (inside[:, 3] > inside[:, 1])
    counts = {
        NO_AREA: np.count_nonzero(~sized),
        "outside their image were dropped": np.count_nonzero(sized & ~has_area),
        "beyond the border of their image were clipped": np.count_nonzero(beyond & has_area),
    }
    notes = [f"{mistakes.where}: {count} boxes {what}" for what, count in counts.items() if count]
    return inside, sized & has_area, notes


def are_files(root: Path, names: Sequence[str], mistakes: Mistakes) -> list[bool]:
    """Which of these names below `root` are files."""
    folders, places = _listed_places(root, names, mistakes)
    return [folders[folder].get(file, False) for folder, file in places]


def require_files(root: Path, names: Sequence[str], mistakes: Mistakes) -> None:
    """Image files below `root` that do not exist are mistakes, shown with a near name where there is one."""
    folders, places = _listed_places(root, names, mistakes)
    mistakes.add(
        f"image files that do not exist, of {len(names)}",
        f"File names are relative to {seen_from_here(root)}; check this folder in the recipe.",
        [(folder, file) for folder, file in places if file not in folders[folder]],
        lambda place: os.path.join(*place) + _near_name(place[1], folders[place[0]]),
    )
    mistakes.add(
        "no files, but folders, pipes, devices or links that lead nowhere",
        "Put images in their places.",
        [(folder, file) for folder, file in places if not folders[folder].get(file, True)],
        lambda place: os.path.join(*place),
    )


def _listed_places(
    root: Path, names: Sequence[str], mistakes: Mistakes
) -> tuple[dict[str, dict[str, bool]], list[tuple[str, str]]]:
    """What lies in the folders of these names, and folder and file of each name.

    Folders are listed once each: 118,287 single questions to a file server take minutes.
    """
    places = [os.path.split(os.path.join(root, name)) for name in names]
    return {folder: _listing(folder, mistakes) for folder in dict.fromkeys(folder for folder, _ in places)}, places


def in_table(key: str, images: ImageSet, categories: tuple[Category, ...]) -> ImageSet:
    """The same images with labels that count in another table: classes are joined by their names, ids do not matter.

    A class that the table lacks may be listed but have no box, which a note says. Raises DataError that begins with
    `key` and lists the classes of boxes that the table does not know.
    """
    place = {category.name: label for label, category in enumerate(categories)}
    counts = np.bincount(images.labels, minlength=len(images.categories)).tolist()
    unknown = {
        category.name: count
        for category, count in zip(images.categories, counts, strict=True)
        if category.name not in place
    }
    if any(unknown.values()):
        boxed = listed((name for name, count in unknown.items() if count), shown)
        raise DataError(
            f"{key} has boxes of classes that data.train does not know: {boxed}. It knows {listed(place, shown)}. "
            "Give equal classes equal names, or data.train a box of each."
        )
    label_of = np.array([place.get(category.name, -1) for category in images.categories], dtype=np.int16)
    text = f"{key} lists classes that data.train does not know, and no box has them: {listed(unknown, shown)}"
    return replace(
        images,
        labels=label_of[images.labels],
        categories=categories,
        notes=(*images.notes, *[text] * bool(unknown)),
    )


def _listing(folder: str, mistakes: Mistakes) -> dict[str, bool]:
    """What lies in a folder, and whether it is a file; nothing where there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name: entry.is_file(follow_symlinks=False) or os.path.isfile(entry.path) for entry in entries}
    except (FileNotFoundError, NotADirectoryError, ValueError):  # the last where its name holds a NUL
        return {}
    except OSError as error:
        mistakes.add(
            "folders that cannot be read", "Allow it, or name another folder.", [f"{folder} ({error.strerror})"]
        )
        return {}


def _near_name(file: str, existing: Iterable[str]) -> str:
    """A file that differs in letter case or Unicode form only, as a hint."""
    for other in existing:
        if _plain(other) == _plain(file):
            return f" (there is {other!r}: other letter case or Unicode form)"
    return ""


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()

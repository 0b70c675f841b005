"""COCO JSON: images, boxes and categories from one file, checked before anything is trained on it."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ssodkit.data.annotations import Category, ImageSet, make_image_set
from ssodkit.data.checks import clean_boxes, duplicates, require_files
from ssodkit.data.decode import read_size
from ssodkit.data.lookup import find_images
from ssodkit.data.mistakes import Mistakes, listed, shown
from ssodkit.data.reading import read_json
from ssodkit.errors import DataError

FORM = "A COCO file is an object with the lists 'images', 'annotations' and 'categories'."
IN_FILE = "Mend them in the file."

WHOLE = re.compile(r"-?[0-9]{1,19}(\.0+)?")
OUTLINED = "box of its outline"
"""A key that this module adds to such annotations."""
NO_BOX: tuple[Any, ...] = (None, [])

Entries = Sequence[Mapping[str, Any]]


def read_coco(
    file: Path, images: Path, zero_size: Literal["refuse", "drop"] = "refuse", labeled: bool = True
) -> ImageSet:
    """The images of a COCO file, in its order, with their boxes; image files lie under `images`.

    Where they need not be `labeled`, annotations and categories may be absent or empty. Raises DataError that shows all
    that cannot be trusted: what is no COCO file, ids and names given twice, references to nothing, boxes that are none,
    missing image files.
    """
    return parse_coco(load_coco(file), file, images, zero_size, labeled)


def load_coco(file: Path, key: str = "annotations") -> Mapping[str, Any]:
    """The content of a COCO file, without outlines; an annotation that has nothing else has the box around its own.

    `key` is what a recipe calls its path. Raises DataError for what is no JSON object.
    """
    # Outlines are nine tenths of COCO's file, and would be some 3 GB of Python numbers before the last is read.
    document = read_json(file, f"Check `{key}` in the recipe.", _drop_outline)
    if not isinstance(document, dict):
        raise DataError(f"{file} holds a {type(document).__name__}. {FORM}")
    return document


def parse_coco(
    document: Mapping[str, Any],
    file: Path,
    folder: Path | None,
    zero_size: Literal["refuse", "drop"],
    labeled: bool = True,
    scored: bool = False,
) -> ImageSet:
    """What `read_coco` makes of the content of `file`; image files need not exist where `folder` is None.

    Where annotations are `scored`, each must have a `score`.
    """
    mistakes = Mistakes(file)
    has_boxes = labeled or bool(document.get("annotations") and document.get("categories"))
    keys = ("images", "annotations", "categories") if has_boxes else ("images",)
    lists = {key: _list_of(document, key, mistakes) for key in keys}
    mistakes.refuse()  # of what has another form, nothing more can be said

    images, notes = _images(lists["images"], folder, mistakes)
    categories: list[Category] = []
    columns: dict[str, NDArray[Any]] = {}
    if has_boxes:
        annotations, category_entries, left_out = _that_count(lists["annotations"], lists["categories"], mistakes)
        categories, category_ids = _categories(category_entries, mistakes)
        columns, changes = _boxes(annotations, images, category_ids, zero_size, scored, mistakes)
        notes += [*left_out, *changes]
    mistakes.refuse()
    names = [str(name) for name in images.names]
    return make_image_set(folder or Path(), names, images.ids, images.sizes, categories, notes=notes, **columns)


def _drop_outline(entry: dict[str, Any]) -> None:
    """Take its outline from an object; where it has no box, the box around all corners takes its place."""
    outline = entry.pop("segmentation", None)
    if outline and entry.get("bbox") in NO_BOX:
        points = outline if isinstance(outline, list) else []
        polygons = points if points and isinstance(points[0], list) else [points]
        numbers = [number for polygon in polygons if isinstance(polygon, list) for number in polygon]
        if len(numbers) >= 6 and len(numbers) % 2 == 0 and all(map(_is_number, numbers)):
            left, top = min(numbers[::2]), min(numbers[1::2])
            entry |= {"bbox": [left, top, max(numbers[::2]) - left, max(numbers[1::2]) - top], OUTLINED: True}
        else:
            entry["bbox"] = "an outline that is no list of corners"


def _that_count(annotations: Entries, categories: Entries, mistakes: Mistakes) -> tuple[Entries, Entries, list[str]]:
    """The annotations and categories that teach something, and what the others are.

    Some tools write an annotation without box for an image without object. Roboflow's files list a category that is
    only the heading of the others.
    """
    boxed = [entry for entry in annotations if entry.get("bbox") not in NO_BOX]
    used = {_whole_number(entry.get("category_id")) for entry in boxed}
    names = [str(entry.get("name")) for entry in categories]
    above = [str(entry.get("supercategory") or name) for entry, name in zip(categories, names, strict=True)]
    headings = {heading for heading, name in zip(above, names, strict=True) if heading != name}
    stays = [
        name not in headings or _whole_number(entry.get("id")) in used
        for entry, name in zip(categories, names, strict=True)
    ]
    kept = [entry for entry, stay in zip(categories, stays, strict=True) if stay]
    left_out = [name for name, stay in zip(names, stays, strict=True) if not stay]
    counts = {
        "annotations without box or outline are left out": len(annotations) - len(boxed),
        "annotations have only an outline, and became the box around it": sum(OUTLINED in entry for entry in boxed),
        f"categories without a box that are headings of others are left out ({listed(left_out, shown)})": len(left_out),
    }
    return boxed, kept, [f"{mistakes.where}: {count} {text}" for text, count in counts.items() if count]


@dataclass(frozen=True)
class _Images:
    """Columns of the list of images; None, and a size of 0, where the file says nothing that can be used."""

    ids: list[int | None]
    names: list[str | None]
    sizes: NDArray[np.int32]


def _list_of(document: Mapping[str, Any], key: str, mistakes: Mistakes) -> Entries:
    entries = document.get(key)
    if not isinstance(entries, list):
        mistakes.add(f"no list {key!r}; it has", FORM, [listed(document, shown) or "nothing"])
        return []
    other = [f"{key}[{place}] is {shown(entry)}" for place, entry in enumerate(entries) if not isinstance(entry, dict)]
    mistakes.add("entries that are not objects", FORM, other)
    return [] if other else entries


def _images(entries: Entries, folder: Path | None, mistakes: Mistakes) -> tuple[_Images, list[str]]:
    """The list of images; where there is a folder, with the names that they have there and the sizes that they have."""

    def name(place: int) -> str:
        return f"images[{place}] ({shown(entries[place].get('file_name'))})"

    ids = _whole_numbers(entries, "id", "images", mistakes)
    names = _texts(entries, "file_name", "images", _is_file_name, mistakes)
    _add_duplicates(ids, "image id", name, mistakes)
    _add_duplicates(names, "file name", lambda place: f"image {shown(ids[place])}", mistakes)
    sides = [(entry.get("height"), entry.get("width")) for entry in entries]
    unknown = [folder is not None and size == (None, None) for size in sides]
    good = [all(type(side) is int and 0 < side < 2**31 for side in size) for size in sides]
    mistakes.add(
        "images whose 'height' and 'width' are not whole numbers of pixels above 0",
        "Write the sizes of the image files there.",
        [place for place, is_good in enumerate(good) if not is_good and not unknown[place]],
        lambda place: f"{name(place)} has height {shown(sides[place][0])} and width {shown(sides[place][1])}",
    )
    sizes = np.array([size if is_good else (0, 0) for size, is_good in zip(sides, good, strict=True)], dtype=np.int32)
    images = _Images(ids, names, sizes.reshape(-1, 2))
    return (images, []) if folder is None else _found(images, folder, np.flatnonzero(unknown).tolist(), mistakes)


def _found(images: _Images, folder: Path, unsized: Sequence[int], mistakes: Mistakes) -> tuple[_Images, list[str]]:
    """The images as they are called in their folder, with the sizes that the file does not say."""
    named = [place for place, name in enumerate(images.names) if name is not None]
    found, notes = find_images(folder, [str(images.names[place]) for place in named], mistakes)
    require_files(folder, found, mistakes)
    names, sizes = list(images.names), images.sizes.copy()
    for place, name in zip(named, found, strict=True):
        names[place] = name
    broken = []
    for place in unsized:
        try:
            sizes[place] = read_size(folder / str(names[place]))
        except DataError as error:
            broken.append(str(error).removesuffix("."))
    mistakes.add("images without 'height' and 'width' that cannot be read either", "Write their sizes there.", broken)
    if unsized:
        notes.append(f"{mistakes.where}: the sizes of {len(unsized)} images are not in it, and were read from them")
    return _Images(images.ids, names, sizes), notes


def _categories(entries: Entries, mistakes: Mistakes) -> tuple[list[Category], list[int | None]]:
    """The table of classes, and the ids as they stand in the file."""
    ids = _whole_numbers(entries, "id", "categories", mistakes)
    names = _texts(entries, "name", "categories", _is_text, mistakes)
    _add_duplicates(ids, "category id", lambda place: shown(names[place]), mistakes)
    _add_duplicates(names, "category name", lambda place: f"category {shown(ids[place])}", mistakes)
    most = np.iinfo(np.int16).max  # what labels are stored in
    if not 0 < len(entries) <= most:
        cure = f"Learning needs a category, and at most {most:,} can be learned."
        mistakes.add("a list of categories that cannot be used", cure, [f"it has {len(entries):,} of them"])
    pairs = zip(ids, names, strict=True)
    return [Category(number, name) for number, name in pairs if number is not None and name is not None], ids


def _boxes(
    entries: Entries,
    images: _Images,
    category_ids: Sequence[int | None],
    zero_size: Literal["refuse", "drop"],
    scored: bool,
    mistakes: Mistakes,
) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """The columns that `make_image_set` takes, one row per box that stays."""
    ids = _whole_numbers(entries, "id", "annotations", mistakes)
    owner_ids = _whole_numbers(entries, "image_id", "annotations", mistakes)
    label_ids = _whole_numbers(entries, "category_id", "annotations", mistakes)

    def name(row: int) -> str:
        return f"annotation {shown(ids[row])} (image {shown(owner_ids[row])})"

    _add_duplicates(ids, "annotation id", name, mistakes)
    owners = _places(owner_ids, images.ids, "image", name, mistakes)
    labels = _places(label_ids, category_ids, "category", name, mistakes)
    corners = _corners(entries)
    # A box whose image is not listed has the place -1, which is the row behind all images.
    sizes = np.concatenate([images.sizes, np.zeros((1, 2), np.int32)])[owners]
    boxes, keep, notes = clean_boxes(
        corners, sizes, lambda row: f"{name(row)} {shown(entries[row].get('bbox'))}", zero_size, mistakes
    )
    columns: dict[str, NDArray[Any]] = {
        "image_of_box": owners,
        "boxes": boxes,
        "labels": labels,
        "areas": _areas(entries, corners, name, mistakes),
        "crowd": _crowd(entries, name, mistakes),
    }
    if scored:
        columns["scores"] = _scores(entries, name, mistakes)
    return {column: values[keep] for column, values in columns.items()}, notes


def _whole_numbers(entries: Entries, key: str, where: str, mistakes: Mistakes) -> list[int | None]:
    """The values of a key; None where it is no whole number."""
    numbers = [_whole_number(entry.get(key)) for entry in entries]
    mistakes.add(
        f"'{key}' that is no whole number",
        IN_FILE,
        [place for place, number in enumerate(numbers) if number is None],
        lambda place: f"{where}[{place}] has {key!r} {shown(entries[place].get(key))}",
    )
    return numbers


def _whole_number(value: object) -> int | None:
    """A whole number, also where it is written as text or with a point, as some tools do; None for anything else."""
    if type(value) is str and WHOLE.fullmatch(value):
        value = int(value.partition(".")[0])
    elif type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and -(2**63) <= value < 2**63 else None


def _texts(
    entries: Entries, key: str, where: str, is_good: Callable[[object], bool], mistakes: Mistakes
) -> list[str | None]:
    """The values of a key; None where it is no text."""
    values = [entry.get(key) for entry in entries]
    mistakes.add(
        f"'{key}' that is no text",
        IN_FILE,
        [place for place, value in enumerate(values) if not is_good(value)],
        lambda place: f"{where}[{place}] has {key!r} {shown(values[place])}",
    )
    return [value if is_good(value) else None for value in values]


def _is_text(value: object) -> bool:
    """Whether it is text that can be shown and written: half of a surrogate pair, as JSON can escape it, is none."""
    try:
        return isinstance(value, str) and bool(value.encode("utf-8"))
    except UnicodeEncodeError:
        return False


def _is_file_name(value: object) -> bool:
    """Whether it is text that can name a file: one that is no UTF-8 has halves of surrogate pairs in it in Python."""
    try:
        return isinstance(value, str) and bool(os.fsencode(value))
    except UnicodeEncodeError:
        return False


def _add_duplicates(values: Sequence[Any], what: str, name: Callable[[int], str], mistakes: Mistakes) -> None:
    mistakes.add(
        f"the same {what} given twice",
        "Give each its own.",
        [pair for pair in duplicates(values) if values[pair[0]] is not None],
        lambda pair: f"{shown(values[pair[0]])} is {name(pair[0])} and {name(pair[1])}",
    )


def _places(
    wanted: Sequence[int | None], known: Sequence[int | None], kind: str, name: Callable[[int], str], mistakes: Mistakes
) -> NDArray[np.int64]:
    """Where each wanted id stands in the list of known ones; -1 where it does not."""
    place_of = {value: place for place, value in enumerate(known) if value is not None}
    places = [-1 if value is None else place_of.get(value, -1) for value in wanted]
    mistakes.add(
        f"annotations that name {'an image' if kind == 'image' else 'a category'} which the file does not list",
        "Add it there, or remove the annotations.",
        [row for row, place in enumerate(places) if place < 0 and wanted[row] is not None],
        lambda row: f"{name(row)} names {kind} {wanted[row]}",
    )
    return np.array(places, dtype=np.int64)


def _corners(entries: Entries) -> NDArray[np.float64]:
    """xyxy boxes from COCO's x, y, width, height; NaN where there are no four numbers."""
    nothing = [np.nan] * 4
    values = [box if _is_box(box := entry.get("bbox")) else nothing for entry in entries]
    boxes = np.array(values, dtype=np.float64).reshape(-1, 4)
    with np.errstate(over="ignore"):  # what is infinite is refused with the rest
        return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def _is_box(value: object) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(_is_number, value))


def _is_number(value: object) -> bool:
    """Whether it is a number that 64 bits hold; True and False are none, which JSON has as well."""
    return type(value) is float or (type(value) is int and -(2**63) <= value < 2**63)


def _areas(
    entries: Entries, corners: NDArray[np.float64], name: Callable[[int], str], mistakes: Mistakes
) -> NDArray[np.float64]:
    """Annotated areas; the box's own where none is given."""
    most = float(np.finfo(np.float32).max)
    with np.errstate(over="ignore", invalid="ignore"):
        areas: NDArray[np.float64] = np.prod((corners[:, 2:] - corners[:, :2]).clip(min=0.0), axis=1)
    bad = []
    for row, entry in enumerate(entries):
        if entry.get("area") is not None:
            area = entry["area"]
            if _is_number(area) and 0 <= area <= most:
                areas[row] = area
            else:
                bad.append(row)
    mistakes.add(
        "'area' that is no finite number of 0 or more",
        "Write it in pixels, or leave it out.",
        bad,
        lambda row: f"{name(row)} has the area {shown(entries[row]['area'])}",
    )
    return areas


def _crowd(entries: Entries, name: Callable[[int], str], mistakes: Mistakes) -> NDArray[np.bool_]:
    values = [entry.get("iscrowd", 0) for entry in entries]
    mistakes.add(
        "'iscrowd' that is neither 0 nor 1",
        IN_FILE,
        [row for row, value in enumerate(values) if value not in (0, 1)],
        lambda row: f"{name(row)} has 'iscrowd' {shown(values[row])}",
    )
    return np.array([value == 1 for value in values], dtype=bool)


def _scores(entries: Entries, name: Callable[[int], str], mistakes: Mistakes) -> NDArray[np.float64]:
    values: list[Any] = [entry.get("score") for entry in entries]
    good = [type(value) in (int, float) and 0 <= value <= 1 for value in values]
    mistakes.add(
        "'score' that is no number from 0 to 1",
        "`ssodkit label` writes one for each annotation.",
        [row for row, is_good in enumerate(good) if not is_good],
        lambda row: f"{name(row)} has the score {shown(values[row])}",
    )
    return np.array([value if is_good else 0.0 for value, is_good in zip(values, good, strict=True)], dtype=np.float64)

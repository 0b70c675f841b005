"""COCO JSON: images, boxes and categories from one file, checked before anything is trained on it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ssodkit.data.annotations import Category, ImageSet, make_image_set
from ssodkit.data.checks import clean_boxes, duplicates, listed, require_files, seen_from_here
from ssodkit.errors import DataError

FORM = "a COCO file is an object with the lists 'images', 'annotations' and 'categories'"


def read_coco(
    file: Path, images: Path, zero_size: Literal["refuse", "drop"] = "refuse", labeled: bool = True
) -> ImageSet:
    """The images of a COCO file, in its order, with their boxes; image files lie under `images`.

    Where they need not be `labeled`, annotations and categories may be absent or empty. Raises DataError for whatever
    cannot be trusted: what is no COCO file, ids and names given twice, references to nothing, boxes that are none,
    missing image files.
    """
    result = parse_coco(load_coco(file), file, images, zero_size, labeled)
    require_files(result)
    return result


def parse_coco(
    document: Mapping[str, Any],
    file: Path,
    images: Path,
    zero_size: Literal["refuse", "drop"],
    labeled: bool = True,
    scored: bool = False,
) -> ImageSet:
    """What `read_coco` makes of the content of `file`; that image files exist is not checked.

    Where annotations are `scored`, each must have a `score`.
    """
    entries = _list_of(document, "images", file)
    ids = _integers(entries, "id", "images", file)
    _refuse_duplicates(ids, "image id", lambda place: repr(entries[place].get("file_name")), file)
    names, sizes = _names_and_sizes(entries, file)
    if labeled or (document.get("annotations") and document.get("categories")):
        categories = _categories(_list_of(document, "categories", file), file)
        entries = _list_of(document, "annotations", file)
        columns, notes = _boxes(entries, ids, sizes, categories, file, zero_size, scored)
        return make_image_set(images, names, ids, sizes, categories, notes=notes, **columns)
    return make_image_set(images, names, ids, sizes)


def load_coco(file: Path, key: str = "annotations") -> Mapping[str, Any]:
    """The content of a COCO file, without outlines. `key` is what a recipe calls its path.

    Raises DataError for what is no JSON object.
    """
    try:
        with file.open(encoding="utf-8") as stream:
            document = json.load(stream, object_hook=_without_outline)
    except OSError as error:
        raise DataError(
            f"{seen_from_here(file)} cannot be read: {error.strerror}. Check `{key}` in the recipe."
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{file} is no JSON: {error}. Is it the annotation file?") from error
    if not isinstance(document, dict):
        raise DataError(f"{file} holds a {type(document).__name__}, but {FORM}.")
    return document


def _without_outline(entry: dict[str, Any]) -> dict[str, Any]:
    # Outlines are nine tenths of COCO's file, and would be some 3 GB of Python numbers before the last is read.
    entry.pop("segmentation", None)
    return entry


def _list_of(document: Mapping[str, Any], key: str, file: Path) -> list[dict[str, Any]]:
    entries = document.get(key)
    if not isinstance(entries, list):
        has = ", ".join(f"'{name}'" for name in document) or "nothing"
        raise DataError(f"{file} has no list '{key}' (it has {has}); {FORM}.")
    for place, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise DataError(f"{file}: {key}[{place}] is {entry!r}, not an object; {FORM}.")
    return entries


def _integers(entries: Sequence[Mapping[str, Any]], key: str, where: str, file: Path) -> list[int]:
    values = [entry.get(key) for entry in entries]
    for place, value in enumerate(values):
        if type(value) is not int or not -(2**63) <= value < 2**63:
            raise DataError(f"{file}: {where}[{place}] has {key!r} {value!r}; it must be a whole number.")
    return values  # type: ignore[return-value]  # checked above, value by value


def _refuse_duplicates(values: Sequence[Any], what: str, name: Any, file: Path) -> None:
    twice = duplicates(values)
    if twice:
        shown = listed(twice, lambda pair: f"{values[pair[0]]!r} is {name(pair[0])} and {name(pair[1])}")
        raise DataError(f"{file}: the same {what} is given twice: {shown}. Give each its own.")


def _names_and_sizes(entries: Sequence[Mapping[str, Any]], file: Path) -> tuple[list[str], NDArray[np.int32]]:
    names, sizes = [], []
    for entry in entries:
        name, size = entry.get("file_name"), (entry.get("height"), entry.get("width"))
        if not isinstance(name, str) or not name:
            raise DataError(f"{file}: image {entry['id']} has the file name {name!r}; it must be text.")
        if not all(type(side) is int and 0 < side < 2**31 for side in size):
            raise DataError(
                f"{file}: image {entry['id']} ({name}) has height {size[0]!r} and width {size[1]!r}; "
                "both must be whole numbers of pixels above 0."
            )
        names.append(name)
        sizes.append(size)
    _refuse_duplicates(names, "file name", lambda place: f"image {entries[place]['id']}", file)
    return names, np.array(sizes, dtype=np.int32).reshape(-1, 2)


def _categories(entries: Sequence[Mapping[str, Any]], file: Path) -> list[Category]:
    ids = _integers(entries, "id", "categories", file)
    names = [entry.get("name") for entry in entries]
    for number, name in zip(ids, names, strict=True):
        if not isinstance(name, str) or not name:
            raise DataError(f"{file}: category {number} has the name {name!r}; it must be text.")
    if not ids:
        raise DataError(f"{file} lists no categories, so nothing can be learned from it.")
    _refuse_duplicates(ids, "category id", lambda place: repr(names[place]), file)
    _refuse_duplicates(names, "category name", lambda place: f"category {ids[place]}", file)
    return [Category(number, str(name)) for number, name in zip(ids, names, strict=True)]


def _boxes(
    entries: Sequence[Mapping[str, Any]],
    image_ids: Sequence[int],
    sizes: NDArray[np.int32],
    categories: Sequence[Category],
    file: Path,
    zero_size: Literal["refuse", "drop"],
    scored: bool,
) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """The columns that `make_image_set` takes, one row per box that stays."""
    ids = _integers(entries, "id", "annotations", file)
    owner_ids = _integers(entries, "image_id", "annotations", file)
    category_ids = _integers(entries, "category_id", "annotations", file)

    def name(row: int) -> str:
        return f"annotation {ids[row]} (image {owner_ids[row]}) {entries[row].get('bbox')}"

    _refuse_duplicates(ids, "annotation id", lambda place: f"a box of image {owner_ids[place]}", file)
    owners = _places(owner_ids, image_ids, "image", ids, file)
    labels = _places(category_ids, [category.id for category in categories], "category", ids, file)
    corners = _corners(entries, name, file)
    boxes, keep, notes = clean_boxes(corners, sizes[owners], name, file, zero_size)
    columns: dict[str, NDArray[Any]] = {
        "image_of_box": owners,
        "boxes": boxes,
        "labels": labels,
        "areas": _areas(entries, corners, ids, file),
        "crowd": _crowd(entries, ids, file),
    }
    if scored:
        columns["scores"] = _scores(entries, ids, file)
    return {column: values[keep] for column, values in columns.items()}, notes


def _places(
    wanted: Sequence[int], known: Sequence[int], kind: str, annotation_ids: Sequence[int], file: Path
) -> NDArray[np.int64]:
    """Where each wanted id stands in the list of known ones."""
    place_of = {value: place for place, value in enumerate(known)}
    places = [place_of.get(value, -1) for value in wanted]
    unknown = [row for row, place in enumerate(places) if place < 0]
    if unknown:
        shown = listed(unknown, lambda row: f"annotation {annotation_ids[row]} names {kind} {wanted[row]}")
        raise DataError(f"{file}: {shown}, which the file does not list. Add it there, or remove the annotations.")
    return np.array(places, dtype=np.int64)


def _corners(entries: Sequence[Mapping[str, Any]], name: Any, file: Path) -> NDArray[np.float64]:
    """xyxy boxes from COCO's x, y, width, height."""
    for row, entry in enumerate(entries):
        box = entry.get("bbox")
        if not (isinstance(box, list) and len(box) == 4 and all(type(value) in (int, float) for value in box)):
            raise DataError(f"{file}: {name(row)}: 'bbox' must be four numbers: x, y, width, height.")
    boxes = np.array([entry["bbox"] for entry in entries], dtype=np.float64).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def _crowd(entries: Sequence[Mapping[str, Any]], ids: Sequence[int], file: Path) -> NDArray[np.bool_]:
    for row, entry in enumerate(entries):
        if (value := entry.get("iscrowd", 0)) not in (0, 1):
            raise DataError(f"{file}: annotation {ids[row]} has 'iscrowd' {value!r}; it must be 0 or 1.")
    return np.array([entry.get("iscrowd", 0) for entry in entries], dtype=bool)


def _areas(
    entries: Sequence[Mapping[str, Any]], corners: NDArray[np.float64], ids: Sequence[int], file: Path
) -> NDArray[np.float64]:
    """Annotated areas; the box's own where none is given."""
    areas: NDArray[np.float64] = np.prod((corners[:, 2:] - corners[:, :2]).clip(min=0.0), axis=1)
    for row, entry in enumerate(entries):
        area = entry.get("area", 0)
        if not (type(area) in (int, float) and area >= 0):
            raise DataError(f"{file}: annotation {ids[row]} has the area {area!r}; it must be 0 or more.")
        if "area" in entry:
            areas[row] = area
    return areas


def _scores(entries: Sequence[Mapping[str, Any]], ids: Sequence[int], file: Path) -> NDArray[np.float64]:
    for row, entry in enumerate(entries):
        score = entry.get("score", -1)
        if not (type(score) in (int, float) and 0 <= score <= 1):
            raise DataError(
                f"{file}: annotation {ids[row]} has the score {entry.get('score')!r}; it must be a number from 0 to 1, "
                "as `ssodkit label` writes it."
            )
    return np.array([entry["score"] for entry in entries], dtype=np.float64)

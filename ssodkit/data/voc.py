"""Pascal VOC folders: JPEGImages, one XML file per image in Annotations, and lists of names in ImageSets/Main."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from ssodkit.data.annotations import Category, ImageSet, make_image_set
from ssodkit.data.checks import clean_boxes, duplicates, listed, require_files, seen_from_here
from ssodkit.errors import DataError

CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass
class _Columns:
    """One entry per image in `sizes`, one per box in the rest."""

    sizes: list[tuple[int, int]] = field(default_factory=list)
    image_of_box: list[int] = field(default_factory=list)
    boxes: list[tuple[float, ...]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    difficult: list[bool] = field(default_factory=list)


def read_voc(
    root: Path, split: str, classes: Sequence[str], zero_size: Literal["refuse", "drop"] = "refuse"
) -> ImageSet:
    """The images of one split of a VOC folder, in the order of its list, with their boxes.

    VOC counts pixels from 1 and its corners are pixels of the object, so the box of pixels 1 to 1 is (0, 0, 1, 1)
    here. Category ids are 1, 2, ... in the order of `classes`. Raises DataError for whatever cannot be trusted.
    """
    names = _names(root, split)
    label_of = {name: label for label, name in enumerate(classes)}
    columns = _Columns()
    for place, name in enumerate(names):
        _read_annotation(root / "Annotations" / f"{name}.xml", place, label_of, columns)
    sizes = np.array(columns.sizes, dtype=np.int32).reshape(-1, 2)
    owners = np.array(columns.image_of_box, dtype=np.int64)
    corners = np.array(columns.boxes, dtype=np.float64).reshape(-1, 4)

    def box_name(row: int) -> str:
        number = row - columns.image_of_box.index(owners[row]) + 1
        return f"object {number} of {names[owners[row]]}.xml {tuple(columns.boxes[row])}"

    folder = root / "Annotations"
    boxes, keep, notes = clean_boxes(corners - [1, 1, 0, 0], sizes[owners], box_name, folder, zero_size)
    result = make_image_set(
        root / "JPEGImages",
        [f"{name}.jpg" for name in names],
        _image_ids(names),
        sizes,
        [Category(label + 1, name) for label, name in enumerate(classes)],
        owners[keep],
        boxes[keep],
        np.array(columns.labels, dtype=np.int16)[keep],
        difficult=np.array(columns.difficult, dtype=bool)[keep],
        notes=notes,
    )
    require_files(result)
    return result


def _names(root: Path, split: str) -> list[str]:
    file = root / "ImageSets" / "Main" / f"{split}.txt"
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is no list of image names: it is no UTF-8 text.") from error
    except OSError as error:
        raise DataError(
            f"{seen_from_here(file)} cannot be read: {error.strerror}. `root` must be the folder of one year, such as "
            "VOCdevkit/VOC2007, and `split` a list in its ImageSets/Main."
        ) from error
    names = [line.split()[0] for line in lines if line.strip()]
    twice = duplicates(names)
    if twice:
        raise DataError(f"{file} names images twice: {listed(twice, lambda pair: names[pair[0]])}. Remove one of each.")
    return names


def _image_ids(names: Sequence[str]) -> list[int]:
    """The names as numbers (2008_000002 is 2008000002) where all are numbers that differ, else 1, 2, ..."""
    digits = [name.replace("_", "") for name in names]
    if all(text.isdecimal() and len(text) < 19 for text in digits) and len(set(map(int, digits))) == len(digits):
        return [int(text) for text in digits]
    return list(range(1, len(names) + 1))


def _read_annotation(file: Path, place: int, label_of: dict[str, int], columns: _Columns) -> None:
    try:
        annotation = ElementTree.parse(file).getroot()
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}, but the split names this image.") from error
    except ElementTree.ParseError as error:
        raise DataError(f"{file} is no XML: {error}.") from error
    height, width = _number(annotation, "size/height", file), _number(annotation, "size/width", file)
    if not (height > 0 and width > 0):
        raise DataError(f"{file}: size is {height:g} x {width:g} (height x width); write the image's true size there.")
    columns.sizes.append((int(height), int(width)))
    for entry in annotation.iter("object"):
        name = (entry.findtext("name") or "").strip()
        if name not in label_of:
            raise DataError(
                f"{file}: the class '{name}' is none of {listed(label_of, at_most=30)}. "
                "Name all classes in `classes` of this source."
            )
        columns.image_of_box.append(place)
        columns.boxes.append(tuple(_number(entry, f"bndbox/{corner}", file) for corner in CORNERS))
        columns.labels.append(label_of[name])
        columns.difficult.append((entry.findtext("difficult") or "0").strip() == "1")


def _number(element: ElementTree.Element, path: str, file: Path) -> float:
    text = element.findtext(path)
    try:
        return float(text or "")
    except ValueError as error:
        raise DataError(f"{file}: <{element.tag}> has {path} {text!r}; it must be a number.") from error

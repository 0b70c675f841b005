"""Pascal VOC folders: JPEGImages, one XML file per image in Annotations, and lists of names in ImageSets/Main."""

import codecs
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from ssodkit.data.annotations import Category, ImageSet, make_image_set
from ssodkit.data.checks import clean_boxes, duplicates, require_files
from ssodkit.data.mistakes import Mistakes, listed, shown
from ssodkit.data.reading import read_file, read_text
from ssodkit.errors import DataError

CORNERS = ("xmin", "ymin", "xmax", "ymax")
ENCODING = re.compile(rb"""<\?xml[^>]*?\sencoding\s*=\s*["']([\w.:-]+)["']""")
"""What an XML file says that it is written in."""


@dataclass
class _Columns:
    """One entry per image in `sizes`, one per box in the rest."""

    sizes: list[tuple[int, int]] = field(default_factory=list)
    image_of_box: list[int] = field(default_factory=list)
    corners: list[list[str]] = field(default_factory=list)
    """As they are written."""
    labels: list[int] = field(default_factory=list)
    difficult: list[bool] = field(default_factory=list)


def read_voc(
    root: Path, split: str, classes: Sequence[str], zero_size: Literal["refuse", "drop"] = "refuse"
) -> ImageSet:
    """The images of one split of a VOC folder, in the order of its list, with their boxes.

    VOC counts pixels from 1 and its corners are pixels of the object, so the box of pixels 1 to 1 is (0, 0, 1, 1)
    here. Category ids are 1, 2, ... in the order of `classes`. Raises DataError that shows all that cannot be trusted.
    """
    mistakes = Mistakes(root)
    names = _names(root, split, mistakes)
    require_files(root / "JPEGImages", [f"{name}.jpg" for name in names], mistakes)
    columns = _read_annotations(root / "Annotations", names, classes, mistakes)
    sizes = np.array(columns.sizes, dtype=np.int32).reshape(-1, 2)
    owners = np.array(columns.image_of_box, dtype=np.int64)
    corners = np.array([[_number(text) for text in row] for row in columns.corners], dtype=np.float64).reshape(-1, 4)

    def box_name(row: int) -> str:
        number = row - np.searchsorted(owners, owners[row]) + 1
        written = ", ".join(f"{side} {shown(text)}" for side, text in zip(CORNERS, columns.corners[row], strict=True))
        return f"object {number} of {names[owners[row]]}.xml ({written})"

    boxes, keep, notes = clean_boxes(corners - [1, 1, 0, 0], sizes[owners], box_name, zero_size, mistakes)
    mistakes.refuse()
    return make_image_set(
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


def _names(root: Path, split: str, mistakes: Mistakes) -> list[str]:
    """The image names that a list in ImageSets/Main holds, a line each.

    A list of one class, such as cat_train, has a second column: 1 where the image shows the class, 0 where only a
    difficult object does, else -1. The images are all of them. Names may have spaces.
    """
    file = root / "ImageSets" / "Main" / f"{split}.txt"
    text = read_text(
        file,
        "`root` must be the folder of one year, such as VOCdevkit/VOC2007, and `split` a list of image names in its "
        "ImageSets/Main.",
    )
    if "\0" in text:
        raise DataError(f"{file} is no list of image names: it holds a NUL. Save it as plain text in UTF-8.")
    names = [_without_column(line.strip(), root / "Annotations") for line in text.splitlines() if line.strip()]
    kind = f"images that ImageSets/Main/{split}.txt names twice"
    mistakes.add(kind, "Remove one of each.", duplicates(names), lambda pair: names[pair[0]])
    return names


def _without_column(line: str, annotations: Path) -> str:
    name, *rest = line.rsplit(maxsplit=1)
    has_column = rest in (["-1"], ["0"], ["1"]) and not (annotations / f"{line}.xml").exists()
    return name if has_column else line


def _image_ids(names: Sequence[str]) -> list[int]:
    """The names as numbers (2008_000002 is 2008000002) where all are numbers that differ, else 1, 2, ..."""
    digits = [name.replace("_", "") for name in names]
    if all(text.isdecimal() and len(text) < 19 for text in digits) and len(set(map(int, digits))) == len(digits):
        return [int(text) for text in digits]
    return list(range(1, len(names) + 1))


def _read_annotations(folder: Path, names: Sequence[str], classes: Sequence[str], mistakes: Mistakes) -> _Columns:
    """What the files of all images say; a size of 0, and no box, where one cannot be used."""
    label_of = {name: label for label, name in enumerate(classes)}
    columns = _Columns()
    unreadable, broken, unsized = [], [], []
    unknown: dict[str, str] = {}
    for place, name in enumerate(names):
        file = f"{name}.xml"
        columns.sizes.append((0, 0))
        try:
            annotation = _parse_xml(read_file(folder / file))
        except OSError as error:
            unreadable.append(f"{file} ({error.strerror})")
            continue
        except ValueError as error:
            broken.append(f"{file} ({error})")
            continue
        height, width = (annotation.findtext(f"size/{side}") or "" for side in ("height", "width"))
        if _is_side(height) and _is_side(width):
            columns.sizes[-1] = int(float(height)), int(float(width))
        else:
            unsized.append(f"{file} has height {shown(height)} and width {shown(width)}")
        for entry in annotation.iter("object"):
            kind = (entry.findtext("name") or "").strip()
            if kind not in label_of:
                unknown.setdefault(kind, file)
            columns.image_of_box.append(place)
            columns.corners.append([entry.findtext(f"bndbox/{corner}") or "" for corner in CORNERS])
            columns.labels.append(label_of.get(kind, 0))
            columns.difficult.append((entry.findtext("difficult") or "0").strip() == "1")
    mistakes.add("annotations that cannot be read", "The split names their images.", unreadable)
    mistakes.add("annotations that are no XML", "Mend them, or save them again in UTF-8.", broken)
    mistakes.add(
        "sizes that are not whole numbers of pixels above 0", "Write the true sizes of the images there.", unsized
    )
    mistakes.add(
        f"classes that are none of {listed(classes, at_most=30)}",
        "Name all classes in `classes` of this source.",
        list(unknown),
        lambda kind: f"{shown(kind)} in {unknown[kind]}",
    )
    return columns


def _parse_xml(content: bytes) -> ElementTree.Element:
    """The root of an XML file. Raises ValueError that says why it is none.

    It may be written in any encoding that Python knows: Python's XML parser alone knows few, and none of Asia's.
    """
    declared = ENCODING.match(content.removeprefix(codecs.BOM_UTF8))
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif declared and not content.startswith(codecs.BOM_UTF8):
        encoding = declared[1].decode()
    else:
        encoding = "utf-8-sig"
    try:
        text = content.decode(encoding)
    except LookupError as error:
        raise ValueError(f"it says that it is written in {encoding!r}, which is no encoding that is known") from error
    except UnicodeError as error:
        raise ValueError(f"it is not written in {encoding.removesuffix('-sig')}, as it should be") from error
    if "<!ENTITY" in text:  # a few of them can stand for gigabytes of text
        raise ValueError("it declares entities, which no annotation needs")
    try:
        return ElementTree.fromstring(text)
    except (ElementTree.ParseError, UnicodeError) as error:  # the latter of halves of surrogate pairs
        raise ValueError(str(error)) from error


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _is_side(text: str) -> bool:
    number = _number(text)
    return number.is_integer() and 0 < number < 2**31

"""Pascal VOC: one XML file for each image, in the devkit's folders or in others.

The devkit has JPEGImages, Annotations and lists of names in ImageSets/Main. Elsewhere folders have other names, XML
files lie beside the images, and there is no list.
"""

import codecs
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssodkit.data.annotations import Category, ImageSet, make_image_set
from ssodkit.data.checks import clean_boxes, duplicates, require_files
from ssodkit.data.config import MOST_CLASSES, VocSource
from ssodkit.data.folder import SUFFIXES, files_below
from ssodkit.data.lookup import Lookup, find_folder, stem_of
from ssodkit.data.mistakes import Mistakes, listed, shown
from ssodkit.data.reading import read_file, read_text, seen_from_here
from ssodkit.errors import DataError

LISTS = Path("ImageSets") / "Main"
CORNERS = ("xmin", "ymin", "xmax", "ymax")
ENCODING = re.compile(rb"""<\?xml[^>]*?\sencoding\s*=\s*["']([\w.:-]+)["']""")
"""What an XML file says that it is written in."""


@dataclass
class _Columns:
    """One entry per image in `sizes` and `files`, one per box in the rest."""

    sizes: list[tuple[int, int]] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    """What their annotations call the images; often wrong."""
    image_of_box: list[int] = field(default_factory=list)
    corners: list[list[str]] = field(default_factory=list)
    """As they are written."""
    kinds: list[str] = field(default_factory=list)
    """Names of classes."""
    difficult: list[bool] = field(default_factory=list)


def read_voc(source: VocSource) -> ImageSet:
    """The images that are annotated, or those of one split in the order of its list, with their boxes.

    VOC counts pixels from 1 and its corners are pixels of the object, so the box of pixels 1 to 1 is (0, 0, 1, 1)
    here. Tools that count from 0 write 0 for the first pixel; such boxes are clipped. The image of an annotation is
    called like it, or as it says. Category ids are 1, 2, ... in the order of the classes. Raises DataError that shows
    all that cannot be trusted.
    """
    mistakes = Mistakes(source.root)
    names = None if source.split is None else _read_list(_find_list(source))
    annotations, images = find_folders(source)
    known = files_below(annotations, (".xml",), mistakes)
    files = known if names is None else _listed_files(names, known, mistakes)
    columns = _read_annotations(annotations, files, mistakes)
    there = files_below(images, SUFFIXES, mistakes)
    pictures, notes = _pictures(there, files, columns.files, mistakes)
    require_files(images, pictures, mistakes)
    left = sorted(set(there) - set(pictures)) if names is None else []
    if left:
        shown_left = listed(left, at_most=3)
        notes.append(f"{source.root}: {len(left)} images without an annotation are left out: {shown_left}")
    classes = _classes(columns, files, source.classes, mistakes)
    boxes, keep, changes = _boxes(columns, files, source, mistakes)
    mistakes.refuse()
    label_of = {name: label for label, name in enumerate(classes)}
    return make_image_set(
        images,
        pictures,
        _image_ids([stem_of(file) for file in files]),
        columns.sizes,
        [Category(label + 1, name) for label, name in enumerate(classes)],
        np.array(columns.image_of_box, dtype=np.int64)[keep],
        boxes[keep],
        np.array([label_of[kind] for kind in columns.kinds], dtype=np.int16)[keep],
        difficult=np.array(columns.difficult, dtype=bool)[keep],
        notes=[*notes, *changes],
    )


def find_folders(source: VocSource) -> tuple[Path, Path]:
    """The folders of annotations and of images. Raises DataError where it is not clear which they are."""
    annotations = source.annotations or find_folder(source.root, "annotations", ("annotations",), (".xml",), "XML file")
    images = source.images or find_folder(source.root, "images", ("jpegimages", "images"), SUFFIXES, "image")
    for key, folder in (("annotations", annotations), ("images", images)):
        if not folder.is_dir():
            raise DataError(f"{seen_from_here(folder)} is no folder. Check `{key}` in the recipe.")
    return annotations, images


def _find_list(source: VocSource) -> Path:
    """The file that `split` names: a path that ends in .txt, or a list of the devkit."""
    assert source.split is not None
    file = source.split if isinstance(source.split, Path) else source.root / LISTS / f"{source.split}.txt"
    if not file.exists():
        there = sorted(path.stem for path in (source.root / LISTS).glob("*.txt"))
        raise DataError(
            f"{seen_from_here(file)} does not exist. `root` must be the folder of one year, such as VOCdevkit/VOC2007, "
            f"and `split` a list of image names in its {LISTS}{f', of which there are {listed(there)}' * bool(there)}; "
            "or give the path of a list that ends in .txt as `split`, or leave `split` out for all annotations."
        )
    return file


def _read_list(file: Path) -> list[str]:
    text = read_text(file, "`split` must be a list of image names.")
    if "\0" in text:
        raise DataError(f"{file} is no list of image names: it holds a NUL. Save it as plain text in UTF-8.")
    return [line.strip() for line in text.splitlines() if line.strip()]


def _listed_files(lines: Sequence[str], known: Sequence[str], mistakes: Mistakes) -> list[str]:
    """The annotation of each name that a list holds, a line each; those that are missing have the name's.

    A list of one class, such as cat_train, has a second column: 1 where the image shows the class, 0 where only a
    difficult object does, else -1. The images are all of them. Names may have spaces, folders before them, and the
    suffix of the image or of the annotation behind them.
    """
    lookup = Lookup(known, stem_of)
    files, missing, several = [], [], []
    for line in lines:
        name, *rest = line.rsplit(maxsplit=1)
        name = name if rest in (["-1"], ["0"], ["1"]) and not lookup.find(line) else line
        bare = stem_of(name) if name.lower().endswith((".xml", *SUFFIXES)) and not lookup.find(name) else name
        found = lookup.find(bare)
        missing += [f"{bare}.xml"] * (not found)
        several += [f"{name} ({listed(found)})"] * (len(found) > 1)
        files.append(found[0] if found else f"{bare}.xml")
    mistakes.add("annotations that do not exist, or are no files", "The split names their images.", missing)
    mistakes.add("names for which there are several annotations", "Write them with their folder.", several)
    mistakes.add(
        "images that the split names twice",
        "Remove one of each.",
        duplicates(files),
        lambda pair: stem_of(files[pair[0]]),
    )
    return files


def _image_ids(names: Sequence[str]) -> list[int]:
    """The names as numbers (2008_000002 is 2008000002) where all are numbers that differ, else 1, 2, ..."""
    digits = [name.replace("_", "") for name in names]
    if all(text.isdecimal() and len(text) < 19 for text in digits) and len(set(map(int, digits))) == len(digits):
        return [int(text) for text in digits]
    return list(range(1, len(names) + 1))


def _read_annotations(folder: Path, files: Sequence[str], mistakes: Mistakes) -> _Columns:
    """What the files of all images say; a size of 0, and no box, where one cannot be used."""
    columns = _Columns()
    unreadable, broken, other, unsized = [], [], [], []
    for place, file in enumerate(files):
        columns.sizes.append((0, 0))
        columns.files.append("")
        try:
            annotation = _parse_xml(read_file(folder / file))
        except FileNotFoundError:
            continue  # of a list, and said there
        except OSError as error:
            unreadable.append(f"{file} ({error.strerror})")
            continue
        except ValueError as error:
            broken.append(f"{file} ({error})")
            continue
        if annotation.tag != "annotation":
            other.append(f"{file} (it begins with <{shown(annotation.tag)[1:-1]}>)")
            continue
        columns.files[-1] = (annotation.findtext("filename") or "").strip().replace("\\", "/")
        height, width = (annotation.findtext(f"size/{side}") or "" for side in ("height", "width"))
        if _is_side(height) and _is_side(width):
            columns.sizes[-1] = int(float(height)), int(float(width))
        else:
            unsized.append(f"{file} has height {shown(height)} and width {shown(width)}")
        for entry in annotation.iter("object"):
            columns.image_of_box.append(place)
            columns.corners.append([entry.findtext(f"bndbox/{corner}") or "" for corner in CORNERS])
            columns.kinds.append((entry.findtext("name") or "").strip())
            columns.difficult.append((entry.findtext("difficult") or "0").strip() == "1")
    mistakes.add("annotations that cannot be read", "Allow it, or put whole files there.", unreadable)
    mistakes.add("annotations that are no XML", "Mend them, or save them again in UTF-8.", broken)
    cure = "They begin with <annotation>. CVAT and others have XML of their own: export Pascal VOC."
    mistakes.add("XML files that are no VOC annotations", cure, other)
    mistakes.add(
        "sizes that are not whole numbers of pixels above 0", "Write the true sizes of the images there.", unsized
    )
    return columns


def _pictures(
    there: Sequence[str], files: Sequence[str], written: Sequence[str], mistakes: Mistakes
) -> tuple[list[str], list[str]]:
    """The image of each annotation, and how they were found where that is not by their names.

    Of those that are `there`, it is the one that is called like the annotation, whatever its suffix and folder; where
    there is none, or more than one, it is the one that the annotation itself names (`written`).
    """
    by_stem, by_file = Lookup(there, stem_of), Lookup(there)
    pictures, several, other = [], [], 0
    for file, name in zip(files, written, strict=True):
        found = by_stem.find(stem_of(file))
        if len(found) != 1:
            named = [path for path in by_file.find(name) if path in found or not found]
            other += len(named) == 1
            found = named or found
        several += [f"{file} ({listed(found)})"] * (len(found) > 1)
        pictures.append(found[0] if found else f"{stem_of(file)}.jpg")
    cure = "Let the annotation say which, as `filename`, or leave one image there."
    mistakes.add("annotations for which there are several images", cure, several)
    mistakes.add(
        "images with two annotations",
        "Leave one of them there.",
        [] if several else duplicates(pictures),
        lambda pair: f"{pictures[pair[0]]} ({files[pair[0]]}, {files[pair[1]]})",
    )
    return pictures, [f"{mistakes.where}: {other} images were found by the name in their annotation"] * bool(other)


def _classes(columns: _Columns, files: Sequence[str], given: Sequence[str] | None, mistakes: Mistakes) -> Sequence[str]:
    """The table of classes: as it is given, or all names that there are."""
    first: dict[str, str] = {}
    for kind, place in zip(columns.kinds, columns.image_of_box, strict=True):
        first.setdefault(kind, files[place])
    if given is not None:
        kind = f"classes that are none of {listed(given, at_most=30)}"
        cure, unknown = "Name all classes in `classes` of this source.", [name for name in first if name not in given]
    else:
        kind, cure, unknown = "objects without a name", "Name their class.", [name for name in first if not name]
    mistakes.add(kind, cure, unknown, lambda name: f"{shown(name)} in {first[name]}")
    if len(first) > MOST_CLASSES:
        cure = f"At most {MOST_CLASSES:,} can be learned."
        mistakes.add("too many classes", cure, [f"there are {len(first):,} of them"])
    return sorted(first) if given is None else given


def _boxes(
    columns: _Columns, files: Sequence[str], source: VocSource, mistakes: Mistakes
) -> tuple[NDArray[np.float32], NDArray[np.bool_], list[str]]:
    """Boxes as `clean_boxes` leaves them."""
    owners = np.array(columns.image_of_box, dtype=np.int64)
    sizes = np.array(columns.sizes, dtype=np.int32).reshape(-1, 2)
    corners = np.array([[_number(text) for text in row] for row in columns.corners], dtype=np.float64).reshape(-1, 4)

    def name(row: int) -> str:
        number = row - np.searchsorted(owners, owners[row]) + 1
        written = ", ".join(f"{side} {shown(text)}" for side, text in zip(CORNERS, columns.corners[row], strict=True))
        return f"object {number} of {files[owners[row]]} ({written})"

    return clean_boxes(corners - [1, 1, 0, 0], sizes[owners], name, source.zero_size_boxes, mistakes)


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

"""YOLO labels: a text file for each image, a row for each box: its class, center and size as shares of the image.

Source: the rules of ultralytics/ultralytics: the labels of .../images/x/y.jpg are .../labels/x/y.txt, and where no
folder is called images, they lie beside the image. Shares are of the upright image.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssodkit.data.annotations import Category, ImageSet, make_image_set
from ssodkit.data.checks import clean_boxes, duplicates, require_files
from ssodkit.data.config import MOST_CLASSES, YoloSource
from ssodkit.data.decode import read_size
from ssodkit.data.lookup import below_one_folder, stem_of
from ssodkit.data.mistakes import Mistakes, listed, shown
from ssodkit.data.reading import read_file
from ssodkit.data.yolo_layout import FORM, open_layout
from ssodkit.errors import DataError

ROUNDING = 0.01
"""How far a share may lie outside 0 to 1, as Ultralytics allows; boxes are clipped."""


@dataclass
class _Rows:
    """One entry per box."""

    image_of_box: list[int] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    """In the label file, from 1."""
    labels: list[int] = field(default_factory=list)
    shares: list[tuple[float, float, float, float]] = field(default_factory=list)
    """Left, top, right, bottom."""
    outlines: int = 0
    scored: int = 0


def read_yolo(
    source: YoloSource, on_progress: Callable[[int, int], None] | None = None, labeled: bool = True
) -> ImageSet:
    """The images of a source, sorted by path in each of its folders, with their boxes; ids count from 1.

    The sizes of images are read from the beginnings of their files; `on_progress(done, total)` is called on the way.
    Category ids are the numbers in the files. Where images need not be `labeled`, names and label files may be absent.
    Raises DataError that shows all that cannot be trusted.
    """
    mistakes = Mistakes(source.root)
    layout = open_layout(source, mistakes)
    root, names = below_one_folder(layout.files)
    require_files(root, names, mistakes)
    twice = duplicates(names)
    mistakes.add("images that are listed twice", "Remove one of each.", twice, lambda pair: names[pair[0]])
    classes = layout.classes or ()
    if labeled:
        _check_classes(classes, mistakes)
    labels = label_files(layout.files) if classes else [None] * len(names)
    is_bare = labeled and bool(classes) and bool(names) and not any(labels)
    mistakes.add("no label file", f"{FORM}.", [f"none of its {len(names)} images has one"] * is_bare)
    rows, empty = _read_rows(labels, len(classes), mistakes)
    mistakes.refuse()  # so that many images are not looked at in vain
    sizes = _sizes(layout.files if labeled or rows.labels else [], mistakes, on_progress)
    sizes = sizes if len(sizes) else np.zeros((len(names), 2), dtype=np.int32)
    owners = np.array(rows.image_of_box, dtype=np.int64)
    corners = np.array(rows.shares, dtype=np.float64).reshape(-1, 4) * sizes[owners][:, [1, 0, 1, 0]]

    def box_name(row: int) -> str:
        return f"{labels[owners[row]]}:{rows.lines[row]}"

    boxes, keep, notes = clean_boxes(corners, sizes[owners], box_name, source.zero_size_boxes, mistakes)
    mistakes.refuse()
    return make_image_set(
        root,
        names,
        range(1, len(names) + 1),
        sizes,
        [Category(number, name) for number, name in enumerate(classes)],
        owners[keep],
        boxes[keep],
        np.array(rows.labels, dtype=np.int16)[keep],
        notes=[*layout.notes, *_notes(source.root, labels, rows, empty), *notes],
    )


def label_files(images: Sequence[str]) -> list[str | None]:
    """The label file of each image; None where there is none. Folders are listed once each."""
    listings: dict[str, set[str]] = {}
    places: dict[str, tuple[str, ...]] = {}
    found: list[str | None] = []
    for image in images:
        folder, file = os.path.split(image)
        if folder not in places:
            places[folder] = (_labels_folder(folder), folder)
            for place in places[folder]:
                listings[place] = set(os.listdir(place)) if os.path.isdir(place) else set()
        name = f"{stem_of(file)}.txt"
        found.append(next((os.path.join(place, name) for place in places[folder] if name in listings[place]), None))
    return found


def _labels_folder(folder: str) -> str:
    """The folder of the labels of images in this one, by the last folder in its path that is called images."""
    parts = os.path.abspath(folder).split(os.sep)
    last = max((place for place, part in enumerate(parts) if part.casefold() == "images"), default=None)
    if last is None:
        return folder
    above = os.sep.join(parts[:last]) or os.sep
    known = [entry for entry in sorted(os.listdir(above), reverse=True) if entry.casefold() == "labels"]
    return os.path.join(above, known[0] if known else "labels", *parts[last + 1 :])


def _check_classes(classes: Sequence[str], mistakes: Mistakes) -> None:
    cure = "Write `names` into the data.yaml, give a classes.txt beside it or beside the labels, or name `classes`."
    mistakes.add("no class names", cure, [] if classes else ["neither a data.yaml nor a classes.txt has them"])
    cure = "Give each its own name."
    mistakes.add("class names given twice", cure, duplicates(classes), lambda pair: shown(classes[pair[0]]))
    if len(classes) > MOST_CLASSES:
        mistakes.add("too many classes", f"At most {MOST_CLASSES:,} can be learned.", [f"it has {len(classes):,}"])


def _read_rows(labels: Sequence[str | None], classes: int, mistakes: Mistakes) -> tuple[_Rows, int]:
    """The rows of all label files, and how many files have none; mistakes are shown with file and line."""
    rows = _Rows()
    unreadable: list[str] = []
    wrong: dict[str, list[str]] = {"rows": [], "classes": [], "shares": []}
    empty = 0
    for place, file in enumerate(labels):
        if file is None:
            continue
        try:
            lines = read_file(Path(file)).decode("utf-8-sig").splitlines()
        except OSError as error:
            unreadable.append(f"{file} ({error.strerror})")
            continue
        except UnicodeDecodeError as error:
            unreadable.append(f"{file} (no UTF-8 text: {error.reason} at byte {error.start})")
            continue
        empty += not any(map(str.strip, lines))
        for number, line in enumerate(lines, start=1):
            if line.strip():
                kind = _take_row(line, classes, rows)
                if kind is None:
                    rows.image_of_box.append(place)
                    rows.lines.append(number)
                else:
                    wrong[kind].append(f"{file}:{number} {shown(line.strip())}")
    mistakes.add("label files that cannot be read", "Allow it, or save them as plain text.", unreadable)
    cure = "A row is `class center_x center_y width height`, or a class and the corners of an outline, as x y x y x y."
    mistakes.add("rows that are no class and box", cure, wrong["rows"])
    cure = "Give the rows another class, or the data more names."
    mistakes.add(f"classes that are not from 0 to {classes - 1}", cure, wrong["classes"])
    cure = "Write them as shares of the image's width and height."
    mistakes.add("coordinates that are not from 0 to 1", cure, wrong["shares"])
    return rows, empty


def _take_row(line: str, classes: int, rows: _Rows) -> str | None:
    """Add what a row says to `rows`, or return what is wrong with it: its form, its class, or its shares."""
    try:
        label, *values = map(float, line.split())
    except ValueError:
        return "rows"
    is_outline = len(values) >= 6 and len(values) % 2 == 0
    if not is_outline and len(values) not in (4, 5):
        return "rows"
    if not (label.is_integer() and 0 <= label < classes):
        return "classes"
    shares = values if is_outline else values[:4]
    if not all(-ROUNDING <= share <= 1 + ROUNDING for share in shares):  # which NaN is not, either
        return "shares"
    if is_outline:
        box = min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])
    else:
        x, y, width, height = shares
        box = x - width / 2, y - height / 2, x + width / 2, y + height / 2
    rows.labels.append(int(label))
    rows.shares.append(box)
    rows.outlines += is_outline
    rows.scored += len(values) == 5
    return None


def _sizes(
    files: Sequence[str], mistakes: Mistakes, on_progress: Callable[[int, int], None] | None
) -> NDArray[np.int32]:
    """Height and width (n, 2) of images, from the beginnings of their files; 0 for those that cannot be read."""
    sizes = np.zeros((len(files), 2), dtype=np.int32)
    broken = []
    for index, file in enumerate(files):
        try:
            sizes[index] = read_size(Path(file))
        except DataError as error:
            broken.append(str(error).removesuffix("."))
        if on_progress is not None:
            on_progress(index + 1, len(files))
    mistakes.add("images whose size cannot be read", "Shares are of it.", broken)
    return sizes


def _notes(root: Path, labels: Sequence[str | None], rows: _Rows, empty: int) -> list[str]:
    missing = sum(label is None for label in labels)
    without = [f"{missing} have no label file"] * bool(missing) + [f"{empty} an empty one"] * bool(empty)
    counts = {
        f"of {len(labels)} images {listed(without)}, and are images without boxes": missing + empty,
        f"{rows.outlines} rows are outlines, and became the boxes around them": rows.outlines,
        f"{rows.scored} rows have a number behind the box, such as a score, which is not used": rows.scored,
    }
    return [f"{root}: {text}" for text, count in counts.items() if count]

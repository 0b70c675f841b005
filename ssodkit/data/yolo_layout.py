"""Where the images, labels and class names of YOLO data are: a data.yaml as Ultralytics reads it, or folders alone.

Source: the rules of ultralytics/ultralytics. Of a data.yaml only `path`, `train`, `val`, `test`, `names` and `nc` are
read, all as text; nothing is downloaded or run.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ssodkit.data.config import YoloSource
from ssodkit.data.folder import SUFFIXES, files_below
from ssodkit.data.lookup import child_folder
from ssodkit.data.mistakes import Mistakes, listed, shown
from ssodkit.data.reading import read_text, seen_from_here
from ssodkit.errors import DataError

PARTS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
"""Splits, and what they are called."""
YAMLS = ("data.yaml", "data.yml")
CLASS_LISTS = ("classes.txt", "obj.names")
FORM = (
    "YOLO data is a data.yaml, a folder with one, a folder with `images` and `labels`, with or without `train`, `val` "
    "and `test` in them or around them, or a folder of images with label files beside them"
)


@dataclass(frozen=True)
class YoloLayout:
    """What a YOLO source leads to."""

    files: list[str]
    """Paths of the images."""
    classes: Sequence[str] | None
    """Their names, by number; None where nothing says them."""
    notes: list[str]


def open_layout(source: YoloSource, mistakes: Mistakes) -> YoloLayout:
    """The images of a source. Raises DataError where there are none, or where it is not clear which are meant."""
    file = find_yaml(source.root)
    notes: list[str] = []
    names = None
    if file is not None:
        document = read_yaml(file)
        there = _entries(document)
        entries = [_resolve(entry, file, document, notes) for entry in there[_choose(list(there), source, file)]]
        names = _names_in(document, file)
    else:
        parts = find_parts(source.root)
        named = parts or source.split is not None
        entries = [parts[_choose(list(parts), source, source.root)] if named else _whole(source.root)]
    files = [path for entry in entries for path in _files_of(entry, source.root, mistakes)]
    folders = [source.root if source.root.is_dir() else source.root.parent]
    folders += [folder for entry in entries for folder in (entry.parent, entry) if folder.is_dir()]
    return YoloLayout(files, source.classes or names or _listed_names(folders), notes)


def find_yaml(root: Path) -> Path | None:
    """The data.yaml that a path is or holds; None for a folder without one. Raises DataError for what is neither."""
    if root.is_dir():
        return next((root / name for name in YAMLS if (root / name).is_file()), None)
    if not root.exists():
        raise DataError(f"{seen_from_here(root)} does not exist. {FORM}.")
    if root.suffix.lower() not in (".yaml", ".yml"):
        raise DataError(f"{seen_from_here(root)} is no data.yaml. {FORM}.")
    return root


def read_yaml(file: Path) -> Mapping[str, Any]:
    """What a data.yaml says, all scalars as text. Raises DataError where it says nothing that can be used."""
    text = read_text(file, f"{FORM}.")
    try:
        document = yaml.load(text, Loader=yaml.BaseLoader)  # makes texts, lists and mappings, and nothing else
    except (yaml.YAMLError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise DataError(f"{file} is no YAML: {reason}. Mend it.") from error
    if not isinstance(document, dict) or not _entries(document):
        raise DataError(f"{file} is no data.yaml: it names no images as `train`, `val` or `test`. {FORM}.")
    return document


def yaml_parts(document: Mapping[str, Any]) -> list[str]:
    """Which splits a data.yaml has."""
    return list(_entries(document))


def find_parts(root: Path) -> dict[str, Path]:
    """The folder of images of each split that a folder without data.yaml has; empty where it has no splits."""
    images = child_folder(root, ("images",))
    parts = {}
    for split, names in PARTS.items():
        around = child_folder(root, names)
        inside = child_folder(images, names) if images else None
        found = inside or (around and (child_folder(around, ("images",)) or around))
        if found:
            parts[split] = found
    return parts


def _entries(document: Mapping[str, Any]) -> dict[str, list[Any]]:
    """What a data.yaml names as each split, which is not yet known to be text."""
    found = {}
    for split, names in PARTS.items():
        value = next((document[name] for name in names if document.get(name)), None)
        if value is not None and value not in ("null", "~"):
            found[split] = value if isinstance(value, list) else [value]
    return found


def _choose(there: Sequence[str], source: YoloSource, where: Path) -> str:
    """The split that a source means, of those that are there: without a name, the only one."""
    name = next((split for split, names in PARTS.items() if source.split in names), source.split)
    if name is None and len(there) == 1:
        return there[0]
    if name is None or name not in there:
        what = "several splits" if name is None else f"no split '{name}'"
        has = f"It has {listed(there)}: name one as `split`." if there else "It has none: leave `split` out."
        raise DataError(f"{seen_from_here(where)} has {what}. {has}")
    return name


def _resolve(entry: Any, file: Path, document: Mapping[str, Any], notes: list[str]) -> Path:
    """The folder or list that an entry of a data.yaml means: the first that exists, as Ultralytics looks for it.

    `path` is relative to the file, or to the working directory; one of another machine is replaced by the file's own
    folder. Exports of Roboflow say `../train/images` and mean `train/images`.
    """
    stated = document.get("path")
    texts = [entry, stated] if stated is not None else [entry]
    if not all(isinstance(text, str) for text in texts):
        raise DataError(f"{file}: `path` and splits must be paths, and one is {shown(texts)}. Mend it.")
    entry = entry.replace("\\", "/")
    bases = [file.parent / stated, Path(stated), file.parent] if stated is not None else [file.parent]
    tried = [base / text for base in bases for text in (entry, entry.removeprefix("../"))]
    found = next((path for path in tried if path.exists()), None)
    if found is None:
        places = listed(dict.fromkeys(map(str, tried)), at_most=4)
        raise DataError(f"{file}: '{entry}' does not exist; looked for {places}. Mend `path` in it.")
    if stated is not None and not any((base / stated).exists() for base in (file.parent, Path())):
        notes.append(f"{file}: its path {stated} does not exist here; '{entry}' is {found}")
    return found


def _files_of(entry: Path, root: Path, mistakes: Mistakes) -> list[str]:
    """The images of a folder and its subfolders, or those that a text file lists, a line each."""
    if entry.is_dir():
        found = [os.path.join(entry, name) for name in files_below(entry, SUFFIXES, mistakes)]
        if not found:
            raise DataError(f"{seen_from_here(entry)} holds no image, nor do its subfolders. {FORM}.")
        return found
    text = read_text(entry, "It must be a folder, or a list of image files, a line each.")
    if "\0" in text:
        raise DataError(f"{entry} is no list of image files: it holds a NUL. Save it as plain text in UTF-8.")
    lines = [line.strip().replace("\\", "/") for line in text.splitlines() if line.strip()]
    bases = [entry.parent, root if root.is_dir() else root.parent, Path()]
    return [_first_existing([os.path.normpath(base / line) for base in bases]) for line in lines]


def _first_existing(paths: Sequence[str]) -> str:
    return next((path for path in paths if os.path.exists(path)), paths[0])


def _names_in(document: Mapping[str, Any], file: Path) -> list[str] | None:
    """The class names of a data.yaml, by number. Raises DataError where numbers or names do not fit."""
    names, count = document.get("names"), document.get("nc")
    if isinstance(names, dict):
        numbers = {str(number) for number in range(len(names))}
        if set(names) != numbers:
            wrong = listed(sorted(set(names) - numbers), shown)
            raise DataError(f"{file}: `names` must be numbered from 0 to {len(names) - 1}, and has {wrong}. Mend them.")
        names = [names[str(number)] for number in range(len(names))]
    if names is None and isinstance(count, str) and count.isdecimal():
        names = [f"class_{number}" for number in range(int(count))]
    if names is None:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names) or not names:
        raise DataError(f"{file}: `names` must be a list of texts, or number them, and is {shown(names)}. Mend them.")
    if count is not None and count != str(len(names)):
        raise DataError(f"{file}: `nc` is {shown(count)}, and there are {len(names)} `names`. Mend one of them.")
    return names


def _listed_names(folders: Sequence[Path]) -> list[str] | None:
    """The names in a list of classes in one of these folders, or in `labels` there."""
    places = [place for folder in folders for place in (folder, child_folder(folder, ("labels",))) if place is not None]
    file = next((place / name for place in places for name in CLASS_LISTS if (place / name).is_file()), None)
    if file is None:
        return None
    text = read_text(file, "It must be a list of class names, a line each.")
    return [line.strip() for line in text.splitlines() if line.strip()]


def _whole(root: Path) -> Path:
    return child_folder(root, ("images",)) or root

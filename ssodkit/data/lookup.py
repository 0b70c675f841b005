"""Files that are found by a part of their path: labels lie in other folders than images, or were made elsewhere."""

import os
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from urllib.parse import unquote

from ssodkit.data.checks import are_files, duplicates
from ssodkit.data.folder import SUFFIXES, files_below
from ssodkit.data.mistakes import Mistakes, listed, shown
from ssodkit.data.reading import seen_from_here
from ssodkit.errors import DataError

BARE = "by their paths without decoration"
LAST_PART = "by the last part of their paths"
UPLOADED = "by that without the prefix of an upload"
UPLOAD = re.compile(r"^[0-9a-f]{8}(-|__)")
"""What Label Studio writes before the name of an upload."""


class Lookup:
    """Relative paths of files, by what `key` makes of them, such as the path without suffix."""

    def __init__(self, files: Iterable[str], key: Callable[[str], str] = str) -> None:
        self._whole: defaultdict[str, list[str]] = defaultdict(list)
        self._last: defaultdict[str, list[str]] = defaultdict(list)
        self._folders: set[str] = set()
        for file in files:
            path = key(file)
            self._folders.add(os.path.dirname(path))
            self._whole[path].append(file)
            self._last[os.path.basename(path)].append(file)

    def whole(self, path: str) -> list[str]:
        """The files of this path."""
        return self._whole.get(path, [])

    def find(self, path: str) -> list[str]:
        """The files of this path; where there is none, those of any folder whose last part is that of `path`, unless
        the folder of `path` is there and should hold it."""
        folder, last = os.path.split(path)
        others = [] if folder and folder in self._folders else self._last.get(last, [])
        return self._whole.get(path) or others


def find_images(folder: Path, names: Sequence[str], mistakes: Mistakes) -> tuple[list[str], list[str]]:
    """The image below `folder` that each name in a label file means, and how they were found, in sentences.

    Labeling tools and other machines decorate names: a name is taken as it stands, else without what is known to be
    decoration, else by its last part, which may have the prefix of an upload. Several images for a name are a mistake,
    as are several names for an image; a name of which there is none comes back as it is.
    """
    exact = are_files(folder, names, mistakes)
    if all(exact):
        return list(names), []
    there = files_below(folder, SUFFIXES, mistakes) if folder.is_dir() else []
    paths, bases = Lookup(there), Lookup(there, _uploaded_name)
    ways = {"by their names as they stand": sum(exact), BARE: 0, LAST_PART: 0, UPLOADED: 0}
    answers, several = [], []
    for name, is_there in zip(names, exact, strict=True):
        found, way = ([name], None) if is_there else _meant(_undecorated(name), paths, bases)
        several += [f"{shown(name)} ({listed(found)})"] * (len(found) > 1)
        answers.append(found[0] if len(found) == 1 else name)
        if way is not None and len(found) == 1:
            ways[way] += 1
    cure = "Name the folder that holds only one of them as `images`, or write the names with their folder."
    mistakes.add("names that may mean several images", cure, several)
    twice = [pair for pair in duplicates(answers) if names[pair[0]] != names[pair[1]]]
    mistakes.add(
        "images that several names mean",
        "Let each name mean its own.",
        twice,
        lambda pair: f"{answers[pair[0]]} ({shown(names[pair[0]])}, {shown(names[pair[1]])})",
    )
    counts = ", ".join(f"{count} {way}" for way, count in ways.items() if count)
    is_told = sum(ways.values()) > sum(exact)
    return answers, [f"{mistakes.where}: of {len(names)} images, {counts} were found"] * is_told


def _meant(path: str, paths: Lookup, bases: Lookup) -> tuple[list[str], str]:
    """The images that a path without decoration may mean, and what they were found by."""
    parts = path.split("/")
    for start in range(len(parts)):
        tail = "/".join(parts[start:])
        if (start == 0 or start < len(parts) - 1) and (found := paths.whole(tail)):
            return found, BARE
    if found := paths.find(parts[-1]):
        return found, LAST_PART
    return bases.find(_uploaded_name(UPLOAD.sub("", parts[-1]))), UPLOADED


def _undecorated(name: str) -> str:
    """A name as a relative path: without the address and query of a server or bucket, quotes of addresses, and folders
    that lead upwards; Windows writes backslashes."""
    _, _, served = name.partition("?d=")  # of Label Studio: /data/local-files/?d=folder/name.jpg
    path = served.partition("&")[0] if served else name.partition("://")[2].partition("?")[0] or name
    parts = unquote(path).replace("\\", "/").split("/")
    return "/".join(part for part in parts if part not in ("", ".", ".."))


def _uploaded_name(file: str) -> str:
    """The last part of a path as Label Studio keeps uploads: spaces become `_`, and odd characters are left out."""
    return re.sub(r"[^-\w.]", "", os.path.basename(file).strip().replace(" ", "_"))


def stem_of(file: str) -> str:
    """A path without its suffix."""
    return os.path.splitext(file)[0]


def below_one_folder(files: Sequence[str]) -> tuple[Path, list[str]]:
    """A folder above all these files, and their paths from there."""
    folders = {os.path.dirname(file) for file in files}
    if len({os.path.isabs(folder) for folder in folders}) > 1:
        return below_one_folder([os.path.abspath(file) for file in files])
    root = os.path.commonpath(folders) if folders else ""
    return Path(root), [os.path.relpath(file, root) if root else file for file in files]


def child_folder(folder: Path, names: Collection[str]) -> Path | None:
    """The folder in this one that is called in one of these ways, in any letter case."""
    with os.scandir(folder) as entries:
        found = sorted(entry.name for entry in entries if entry.name.casefold() in names and entry.is_dir())
    return folder / found[0] if found else None


def find_folder(root: Path, key: str, known: tuple[str, ...], suffixes: tuple[str, ...], kind: str) -> Path:
    """The folder in `root` that is called in one of the `known` ways, in any letter case; else the only one that holds
    files with these suffixes, which `root` itself does first of all.

    Raises DataError where there is none or more than one, which asks for `key` in the recipe; `kind` says what files.
    """
    if not root.is_dir():
        raise DataError(f"{seen_from_here(root)} is no folder. Check `root` in the recipe.")
    with os.scandir(root) as entries:
        visible = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    folders = [Path(entry.path) for entry in visible if entry.is_dir()]
    found = [folder for folder in folders if folder.name.casefold() in known]
    if not found and any(entry.name.lower().endswith(suffixes) and entry.is_file() for entry in visible):
        found = [root]
    found = found or [folder for folder in folders if _holds(folder, suffixes)]
    if not found:
        raise DataError(f"{seen_from_here(root)} holds no {kind}, nor do its subfolders. Name their folder as `{key}`.")
    if len(found) > 1:
        choice = listed(found, lambda folder: f"'{folder}'")
        raise DataError(f"{seen_from_here(root)} has several folders with {kind}s: {choice}. Name one as `{key}`.")
    return found[0]


def _holds(folder: Path, suffixes: tuple[str, ...]) -> bool:
    return any(name.lower().endswith(suffixes) for _, _, files in os.walk(folder) for name in files)

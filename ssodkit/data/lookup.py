"""Files that are found by a part of their path: labels lie in other folders than images, or were made elsewhere."""

import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from ssodkit.data.mistakes import listed
from ssodkit.data.reading import seen_from_here
from ssodkit.errors import DataError


class Lookup:
    """Relative paths of files, by what `key` makes of them, such as the path without suffix."""

    def __init__(self, files: Iterable[str], key: Callable[[str], str] = str) -> None:
        self._whole: defaultdict[str, list[str]] = defaultdict(list)
        self._last: defaultdict[str, list[str]] = defaultdict(list)
        for file in files:
            path = key(file)
            self._whole[path].append(file)
            self._last[os.path.basename(path)].append(file)

    def find(self, path: str) -> list[str]:
        """The files of this path; where there is none, those of any folder whose last part is that of `path`."""
        return self._whole.get(path) or self._last.get(os.path.basename(path), [])


def stem_of(file: str) -> str:
    """A path without its suffix."""
    return os.path.splitext(file)[0]


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

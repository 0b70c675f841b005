"""A plain folder of images: what unlabeled data looks like."""

import errno
import os
import stat
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from ssodkit.data.annotations import ImageSet, make_image_set
from ssodkit.data.decode import FORMATS
from ssodkit.data.mistakes import Mistakes, listed
from ssodkit.data.reading import seen_from_here
from ssodkit.errors import DataError

SUFFIXES = tuple(suffix for suffixes in FORMATS.values() for suffix in suffixes)

Identity = tuple[int, int]
"""Device and number of a file or folder: the same, whatever path or link leads to it."""


@dataclass
class _Found:
    """What a walk has found; paths are relative to the folder."""

    files: list[tuple[str, Identity]] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    """To folders, which are looked into once no other path leads there."""
    again: list[str] = field(default_factory=list)
    """Links to folders that were looked into."""
    special: list[str] = field(default_factory=list)
    """Pipes and devices that are called like such files."""
    lost: list[str] = field(default_factory=list)
    """Links that lead nowhere."""
    unreadable: list[str] = field(default_factory=list)


def read_folder(folder: Path) -> ImageSet:
    """Every image file in a folder and its subfolders, sorted by path; ids count from 1, sizes are not annotated.

    Files are known by their suffix, in any letter case; hidden files and folders are passed over. Links are followed,
    and each folder is looked into once, however many lead there; a file that has several names is as many images, and
    a note says so. Raises DataError if there is no image, and for subfolders and links that cannot be read.
    """
    if not folder.is_dir():
        raise DataError(f"{seen_from_here(folder)} is no folder. Give a folder of images.")
    found = _walk(folder, SUFFIXES)
    mistakes = Mistakes(folder)
    mistakes.add("what cannot be read", "Allow it, or move it elsewhere.", found.unreadable)
    lost = [name for name in found.lost if _is_image_name(name)]
    mistakes.add("links that lead nowhere", "Remove them, or bring back what they lead to.", lost)
    mistakes.refuse()
    if not found.files:
        raise DataError(f"{folder} holds no image, nor do its subfolders. Known suffixes: {', '.join(SUFFIXES)}.")
    names = sorted((name for name, _ in found.files), key=os.fsencode)
    notes = _notes(folder, found)
    return make_image_set(folder, names, range(1, len(names) + 1), [(0, 0)] * len(names), notes=notes)


def files_below(folder: Path, suffixes: tuple[str, ...], mistakes: Mistakes) -> list[str]:
    """Paths, relative to a folder, of all files in it and its subfolders with one of these suffixes, sorted.

    They are looked for as `read_folder` looks for images; what cannot be read is a mistake.
    """
    found = _walk(folder, suffixes)
    mistakes.add("what cannot be read", "Allow it, or move it elsewhere.", found.unreadable)
    return sorted((name for name, _ in found.files), key=os.fsencode)


def _walk(folder: Path, suffixes: tuple[str, ...]) -> _Found:
    found = _Found()
    start = os.stat(folder)
    seen = {(start.st_dev, start.st_ino)}
    _look_into(folder, "", suffixes, seen, found)
    # Links come last, so that a folder is known by its own path where it has one below here.
    while found.links:
        found.links.sort(reverse=True)
        link = found.links.pop()
        target = os.stat(folder / link)
        identity = target.st_dev, target.st_ino
        if identity in seen:
            found.again.append(link)
        else:
            seen.add(identity)
            _look_into(folder, link, suffixes, seen, found)
    return found


def _look_into(folder: Path, inside: str, suffixes: tuple[str, ...], seen: set[Identity], found: _Found) -> None:
    """Note what lies in `folder / inside` and its own subfolders."""
    waiting = [inside]
    while waiting:
        parent = waiting.pop()
        try:
            with os.scandir(folder / parent) as entries:
                visible = [entry for entry in entries if not entry.name.startswith(".")]
        except OSError as error:
            found.unreadable.append(f"{folder / parent} ({error.strerror})")
            continue
        for entry in visible:
            name = os.path.join(parent, entry.name)
            try:
                target = entry.stat()
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    found.lost.append(name)
                else:
                    found.unreadable.append(f"{folder / name} ({error.strerror})")
                continue
            identity = target.st_dev, target.st_ino
            if stat.S_ISDIR(target.st_mode):
                if entry.is_symlink():
                    found.links.append(name)
                elif identity not in seen:
                    seen.add(identity)
                    waiting.append(name)
            elif name.lower().endswith(suffixes) and stat.S_ISREG(target.st_mode):
                found.files.append((name, identity))
            elif name.lower().endswith(suffixes):
                found.special.append(name)


def _is_image_name(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def _notes(folder: Path, found: _Found) -> list[str]:
    """What was passed over, and what is there twice."""
    names_of: defaultdict[Identity, list[str]] = defaultdict(list)
    for name, identity in sorted(found.files):
        names_of[identity].append(name)
    twins = [" = ".join(names) for names in names_of.values() if len(names) > 1]
    links = [name for name in found.lost if not _is_image_name(name)]
    notes = {
        "links to folders that are looked into already were not followed": sorted(found.again),
        "pipes or devices that are called like images were passed over": sorted(found.special),
        "links that lead nowhere were passed over": sorted(links),
        "files have several names, and are as many images": twins,
    }
    return [f"{folder}: {len(what)} {text}: {listed(what, at_most=3)}" for text, what in notes.items() if what]

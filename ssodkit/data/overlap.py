"""Leakage: images that two sets share, found by what the files hold, not by what they are called."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path

from ssodkit.data.annotations import ImageSet
from ssodkit.errors import DataError

HEAD = 4096
"""Bytes compared before whole files are."""


def shared_files(first: ImageSet, second: ImageSet) -> list[tuple[Path, Path]]:
    """The files of `first` with the same bytes as one of `second`, each with one such file.

    Only files of one size are opened, and only those with one beginning are read to the end. Raises DataError for a
    file that cannot be read.
    """
    mine, theirs = (_grouped(map(images.path, range(len(images))), os.path.getsize) for images in (first, second))
    pairs: list[tuple[Path, Path]] = []
    for size in mine.keys() & theirs.keys():
        begun, others = (_grouped(group[size], _begin) for group in (mine, theirs))
        for begin in begun.keys() & others.keys():
            whole, twins = (_grouped(group[begin], _digest) for group in (begun, others))
            pairs += [(path, twins[content][0]) for content in whole.keys() & twins.keys() for path in whole[content]]
    return sorted(pairs)


def copies(paths: Sequence[Path]) -> list[list[int]]:
    """Groups of places whose files hold the same bytes, each of two or more; a path that stands twice is one file.

    Files are opened as by `shared_files`. One that cannot be read is no copy: others speak of it.
    """
    places: defaultdict[Path, list[int]] = defaultdict(list)
    for place, path in enumerate(paths):
        if path.is_file():
            places[path].append(place)
    groups: list[list[Path]] = [list(places)]
    for by in (os.path.getsize, _begin, _digest):
        groups = [group for one in groups for group in _grouped(one, by).values() if len(group) > 1]
    return [[places[path][0] for path in group] for group in groups]


def _grouped(paths: Iterable[Path], by: Callable[[Path], Hashable]) -> dict[Hashable, list[Path]]:
    groups: defaultdict[Hashable, list[Path]] = defaultdict(list)
    for path in paths:
        try:
            groups[by(path)].append(path)
        except OSError as error:
            raise DataError(f"the image {path} cannot be read: {error.strerror}. Put a whole file there.") from error
    return groups


def _begin(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD)


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").digest()

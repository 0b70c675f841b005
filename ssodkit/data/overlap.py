"""Leakage: images that two sets share, found by what the files hold, not by what they are called."""

import hashlib
import os
from collections import defaultdict
from pathlib import Path

from ssodkit.data.annotations import ImageSet

HEAD = 4096
"""Bytes compared before whole files are."""


def shared_files(first: ImageSet, second: ImageSet) -> list[tuple[Path, Path]]:
    """Pairs of files, one of each set, with the same bytes.

    Only files of one size are opened, and only those with one beginning are read to the end.
    """
    by_size: defaultdict[int, list[Path]] = defaultdict(list)
    for index in range(len(second)):
        path = second.path(index)
        by_size[os.path.getsize(path)].append(path)
    pairs = []
    for index in range(len(first)):
        path = first.path(index)
        near = by_size.get(os.path.getsize(path), [])
        pairs += [(path, other) for other in near if _same(path, other)]
    return pairs


def _same(first: Path, second: Path) -> bool:
    return _begin(first) == _begin(second) and _digest(first) == _digest(second)


def _begin(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD)


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").digest()

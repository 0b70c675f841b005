"""Files that appear whole or not at all, and are on the disk when they do."""

import fcntl
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO

DRAFT = re.compile(r"\.ssodkit-[0-9a-f]{16}\.partial")
"""What is not finished is called so: hidden, and like nothing that a user has."""


def write_whole(file: Path, text: str | Iterable[str]) -> None:
    """Write a text, or its pieces, as `written_whole` does."""
    with written_whole(file) as stream:
        stream.writelines(piece.encode() for piece in ([text] if isinstance(text, str) else text))


@contextmanager
def written_whole(file: Path) -> Iterator[BinaryIO]:
    """What is written into the stream takes the place of `file` at the end; what was there before stays until then.

    It is written into a draft in the same folder. A process that is killed leaves that, and the next one that writes
    a file there removes it. Raises OSError that names the file, also where the disk is full.
    """
    draft: Path | None = None
    try:
        _forget_drafts(file.parent)
        with _open_draft(file.parent) as stream:
            draft = Path(stream.name)
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(draft, file)
        flush_folder(file.parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(file)) from error
    finally:
        if draft is not None:
            draft.unlink(missing_ok=True)


@contextmanager
def draft_folder(folder: Path) -> Iterator[Path]:
    """A new folder in this one, for what is moved elsewhere at the end; what is left of it is removed then.

    A process that is killed leaves it, and the next one that makes one there removes it.
    """
    _forget_drafts(folder)
    draft, lock = _make_draft(folder)
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        os.close(lock)


def new_draft(folder: Path) -> Path:
    """Where something in this folder can be made that is not finished: a path at which there is nothing."""
    return folder / f".ssodkit-{token_hex(8)}.partial"


def flush_folder(folder: Path) -> None:
    """Make the names in a folder last through a loss of power."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _open_draft(folder: Path) -> BinaryIO:
    """A new draft, locked for as long as it is open: so others see that it is in use."""
    while True:
        stream = new_draft(folder).open("xb")
        with suppress(OSError):  # of a file system without locks: nobody removes what cannot be locked
            fcntl.flock(stream, fcntl.LOCK_EX)
        if os.fstat(stream.fileno()).st_nlink:
            return stream
        stream.close()  # somebody took it for a forgotten one, before it was locked


def _make_draft(folder: Path) -> tuple[Path, int]:
    """A new folder as a draft, and the descriptor that keeps its lock."""
    while True:
        draft = new_draft(folder)
        draft.mkdir()
        with suppress(FileNotFoundError):  # somebody took it for a forgotten one, before it was locked
            lock = os.open(draft, os.O_RDONLY)
            with suppress(OSError):  # as for a file
                fcntl.flock(lock, fcntl.LOCK_EX)
            if draft.is_dir():
                return draft, lock
            os.close(lock)


def _forget_drafts(folder: Path) -> None:
    """Remove the drafts of processes that were killed: those that nobody holds the lock of."""
    for draft in folder.iterdir() if folder.is_dir() else ():
        if DRAFT.fullmatch(draft.name) and (draft.is_file() or draft.is_dir()):
            with suppress(OSError):
                _forget(draft)


def _forget(draft: Path) -> None:
    lock = os.open(draft, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if draft.is_dir():
            shutil.rmtree(draft)
        else:
            draft.unlink()
    finally:
        os.close(lock)

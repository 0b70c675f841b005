"""Locks on files: whoever holds one is alive. A lock lasts until every process with its descriptor, or one inherited
from it, has closed it or died, so that a crash leaves none behind. A loader inherits as well, and may outlive its
training by seconds: `engine/folders.py` keeps the lock on a run from it."""

import fcntl
import os
import time
from pathlib import Path

TRIES, PAUSE = 6, 0.1
"""To take a lock, and the seconds between two of them."""


def take(file: Path, tries: int = 1) -> int | None:
    """The lock on a file, which is made where it is not there, as a descriptor; None where another process has it.

    Whoever looks at a lock holds it for an instant: who would ask only once shall try `TRIES` times.
    """
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    for left in reversed(range(tries)):
        if _lock(descriptor, fcntl.LOCK_EX):
            return descriptor
        if left:
            time.sleep(PAUSE)
    os.close(descriptor)
    return None


def is_taken(file: Path) -> bool:
    """Whether a process holds the lock on a file; False where there is no such file."""
    try:
        descriptor = os.open(file, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        return not _lock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

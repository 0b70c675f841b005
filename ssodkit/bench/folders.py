"""Where the training of a cell lies, and who works on it.

RUNS/CELL/run/           the run folder, as `ssodkit run` makes it
RUNS/CELL/recipe.yaml    what is trained, resolved
RUNS/CELL/log.txt        what the training said, one attempt after the other
RUNS/CELL/error.txt      why the last attempt failed; absent where it did not
RUNS/CELL/claim          locked by the processes that train it
"""

import fcntl
import os
import time
from dataclasses import dataclass
from pathlib import Path

RUNS = Path("runs/bench")
"""Where cells are trained, unless the user says otherwise."""
TRIES, PAUSE = 6, 0.1
"""To claim a cell, and the seconds between two of them."""


@dataclass(frozen=True)
class CellFolder:
    """The folder of one cell, which is called like it."""

    path: Path

    @property
    def run(self) -> Path:
        """The folder of its run."""
        return self.path / "run"

    @property
    def recipe(self) -> Path:
        """What is trained, resolved."""
        return self.path / "recipe.yaml"

    @property
    def log(self) -> Path:
        """What the training said."""
        return self.path / "log.txt"

    @property
    def error(self) -> Path:
        """Why the last attempt failed."""
        return self.path / "error.txt"

    def read_error(self) -> str | None:
        """The sentence of the last attempt; None where it did not fail."""
        try:
            return self.error.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return None

    def failed_at(self) -> int | None:
        """When the last attempt failed, by the file system's clock in nanoseconds; None where it did not."""
        try:
            return self.error.stat().st_mtime_ns
        except FileNotFoundError:
            return None

    def claim(self, tries: int = 1) -> int | None:
        """The right to train this cell, as a descriptor; None where another process has it.

        Whoever looks at a claim holds it for an instant: who would ask only once shall try `TRIES` times.

        It is a lock that lasts until every process with the descriptor, or one inherited from it, has closed it or
        died. So a crash leaves none behind, and a training that outlives whoever started it keeps its own.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path / "claim", os.O_RDWR | os.O_CREAT, 0o666)
        for left in reversed(range(tries)):
            if _lock(descriptor, fcntl.LOCK_EX):
                return descriptor
            if left:
                time.sleep(PAUSE)
        os.close(descriptor)
        return None

    def is_claimed(self) -> bool:
        """Whether a process trains this cell."""
        try:
            descriptor = os.open(self.path / "claim", os.O_RDONLY)
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

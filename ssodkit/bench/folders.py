"""Where the training of a cell lies, and who works on it.

RUNS/CELL/run/           the run folder, as `ssodkit run` makes it
RUNS/CELL/recipe.yaml    what is trained, resolved
RUNS/CELL/log.txt        what the training said, one attempt after the other
RUNS/CELL/error.txt      why the last attempt failed; absent where it did not
RUNS/CELL/claim          locked by the processes that train it
"""

import os
from dataclasses import dataclass
from pathlib import Path

from ssodkit.engine.folders import is_held
from ssodkit.engine.locks import is_taken, take

RUNS = Path("runs/bench")
"""Where cells are trained, unless the user says otherwise."""


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
            return self.error.read_text(encoding="utf-8", errors="replace").strip()
        except FileNotFoundError:
            return None
        except OSError as error:  # such as of a folder of this name
            return f"{self.error} cannot be read or written: {error.strerror}. Delete it, and the cell runs again."

    def failed_at(self) -> int | None:
        """When the last attempt failed, by the file system's clock in nanoseconds; None where it did not."""
        try:
            return self.error.stat().st_mtime_ns
        except FileNotFoundError:
            return None

    def claim(self, tries: int = 1) -> int | None:
        """The right to train this cell, as the descriptor of a lock; None where another process has it.

        A training that outlives whoever started it keeps its own: it inherits the claim, or holds its run.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        claim = take(self.path / "claim", tries)
        if claim is not None and is_held(self.run):
            os.close(claim)
            return None
        return claim

    def is_claimed(self) -> bool:
        """Whether a process trains this cell."""
        return is_taken(self.path / "claim") or is_held(self.run)

"""How far a suite is: the state of its cells, and an estimate of the time that is left."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ssodkit.bench.folders import CellFolder
from ssodkit.bench.results import CellResult, read_named, read_results
from ssodkit.bench.statistics import mean
from ssodkit.bench.suite import Cell
from ssodkit.engine.checkpoint import FIRST_STAGE
from ssodkit.engine.logging import METRICS
from ssodkit.errors import TrainingError

TAIL = 1 << 16
"""Bytes at the end of a log that are read: a line has a few hundred, one with scores a few thousand."""

State = Literal["done", "running", "failed", "missing"]


@dataclass(frozen=True)
class Position:
    """How far a training is."""

    step: int
    steps: int
    """Of both stages, where there are two."""
    step_seconds: float | None
    """Of the last steps; None where no step has been logged."""

    @property
    def share(self) -> float:
        """That is done."""
        return min(1.0, self.step / self.steps)


@dataclass(frozen=True)
class Status:
    """What is known of a cell."""

    cell: Cell
    state: State
    position: Position
    result: CellResult | None = None
    error: str | None = None
    """Why it failed: in its training, or because its result file is none."""

    @property
    def score(self) -> float | None:
        """The AP that counts, a fraction."""
        return None if self.result is None else self.result.score("AP")


class Watch:
    """Looks at cells again and again: what is done stays so, and a file that is no result is read again if it changed.

    All files in the folder of results are read once, at the start; `refused` has a sentence for each that is none.
    """

    def __init__(self, cells: Iterable[Cell], runs: Path, results: Path) -> None:
        self._cells = tuple(cells)
        self._runs, self._results = runs, results
        found = read_results(results, self._cells)
        self.refused = found.refused
        known = [cell for cell in self._cells if cell.hash in found.results]
        self._done = {cell.name: self._finished(cell, found.results[cell.hash]) for cell in known}
        self._refusals: dict[str, tuple[int, str]] = {}

    def look(self) -> list[Status]:
        """The state of each cell."""
        return [self._look(cell) for cell in self._cells]

    def running(self) -> list[Status]:
        """The cells that some process trains; no result is read for this."""
        open_ones = [cell for cell in self._cells if cell.name not in self._done]
        folders = [(cell, CellFolder(self._runs / cell.name)) for cell in open_ones]
        return [Status(cell, "running", position(cell.steps, at.run)) for cell, at in folders if at.is_claimed()]

    def _look(self, cell: Cell) -> Status:
        refusal = None if cell.name in self._done else self._read(cell)
        if cell.name in self._done:
            return self._done[cell.name]
        if refusal is not None:
            return Status(cell, "failed", self._position(cell), error=refusal)
        folder = CellFolder(self._runs / cell.name)
        if folder.is_claimed():
            return Status(cell, "running", self._position(cell))
        error = folder.read_error()
        return Status(cell, "missing" if error is None else "failed", self._position(cell), error=error)

    def _read(self, cell: Cell) -> str | None:
        """Read the cell's file, if it is there and was not read as it is now: why it is no result."""
        file = self._results / f"{cell.name}.json"
        try:
            changed = file.stat().st_mtime_ns
        except FileNotFoundError:
            return None
        known, refusal = self._refusals.get(cell.name, (None, ""))
        if known != changed:
            try:
                self._done[cell.name] = self._finished(cell, read_named(file))
                return None
            except TrainingError as error:
                refusal = str(error)
            self._refusals[cell.name] = changed, refusal
        return refusal

    def _finished(self, cell: Cell, result: CellResult) -> Status:
        return Status(cell, "done", self._position(cell), result)

    def _position(self, cell: Cell) -> Position:
        return position(cell.steps, CellFolder(self._runs / cell.name).run)


def position(steps: int, run: Path) -> Position:
    """How far the training in a run folder is, of so many steps in both stages; at step 0 where there is none."""
    step, seconds = _last_step(run / METRICS)
    first_step, first_seconds = _last_step(run / FIRST_STAGE / METRICS)
    return Position(step + first_step, steps, seconds or first_seconds)


def seconds_left(statuses: Sequence[Status]) -> dict[str, float | None]:
    """Cell -> what is left of its training; None where nothing tells.

    A whole training takes the mean of the finished ones of its method, else of all finished ones; where none is
    finished, what its own last steps say, else the mean of what those of all others say.
    """
    wholes: dict[str, list[float]] = defaultdict(list)
    for status in statuses:
        if status.result is not None:
            wholes[status.cell.method].append(_whole(status.result, status))
    under_way = {status.cell.name: _from_steps(status.position) for status in statuses if status.result is None}
    finished = [seconds for of_method in wholes.values() for seconds in of_method]
    anyone = mean(finished) or mean([seconds for seconds in under_way.values() if seconds is not None])
    left: dict[str, float | None] = {}
    for status in statuses:
        own = None if finished else under_way.get(status.cell.name)
        whole = mean(wholes.get(status.cell.method, [])) or own or anyone
        share = 0.0 if status.state == "done" else 1.0 - status.position.share
        left[status.cell.name] = None if whole is None and share else share * (whole or 0.0)
    return left


def time_left(statuses: Sequence[Status], parallel: int) -> float | None:
    """Seconds until every cell is done, `parallel` at once; None where nothing tells."""
    each = seconds_left(statuses).values()
    known = [seconds for seconds in each if seconds is not None]
    return None if len(known) < len(each) else max(sum(known) / parallel, max(known, default=0.0))


def _last_step(metrics: Path) -> tuple[int, float | None]:
    """The last step in a log, and how long a step took then."""
    try:
        with metrics.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL))
            lines = file.read().splitlines(keepends=True)
    except FileNotFoundError:
        return 0, None
    for line in reversed(lines[1:] if size > TAIL else lines):
        with suppress(ValueError, TypeError, KeyError):  # the last line may be half a line, and a full disk cuts others
            record = json.loads(line)
            if record["kind"] == "step" and line.endswith(b"\n"):
                return int(record["step"]), record["step_seconds"]
    return 0, None


def _whole(result: CellResult, status: Status) -> float:
    """Seconds of both stages, where there are two: those of a result are of the second."""
    return result.seconds * status.position.steps / status.cell.recipe.engine.steps


def _from_steps(where: Position) -> float | None:
    return None if where.step_seconds is None else where.step_seconds * where.steps

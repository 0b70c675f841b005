"""What `ssodkit bench` says: which cell begins and ends, how many are left, and for how long."""

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import get_args

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from ssodkit.bench.cell import Attempt, Ending, Job
from ssodkit.bench.engines import Listener
from ssodkit.bench.progress import State, Status, Watch, seconds_left, time_left
from ssodkit.bench.suite import Cell, Suite

REFRESH = 2.0
"""Seconds between two looks at how far the running cells are; they are on a shared disk, perhaps."""
PIPED_WIDTH = 160
"""Columns of a table that is not printed on a terminal."""


class News:
    """Speaks while cells run: on a terminal with a bar per running cell, elsewhere a line for each event."""

    def __init__(
        self, suite: Suite, statuses: Sequence[Status], warnings: Iterable[str], watch: Watch, parallel: int
    ) -> None:
        """`watch` tells the state of the cells anew."""
        self._console = Console(soft_wrap=True, highlight=False)
        self._cells = {status.cell.name: status.cell for status in statuses}
        self._watch, self._parallel = watch, parallel
        self._seen = time.monotonic()
        self._is_waiting = False
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("step {task.completed}/{task.total}"),
            console=self._console,
            transient=True,
            expand=True,
            disable=not self._console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        for sentence in warnings:
            self._say(Text(f"warning: {sentence}", style="yellow"))
        self._say(f"suite    {suite.name}: {_count(statuses)}{_left(statuses, parallel)}")
        self.listener = Listener(self._begun, self._waits, self._tick)

    def __enter__(self) -> "News":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def ended(self, ending: Ending) -> None:
        """A cell is done, has failed, or was left to others."""
        statuses = self._watch.look()
        status = next(status for status in statuses if status.cell.name == ending.name)
        what = describe(status.cell)
        open_ones = sum(one.state != "done" for one in statuses)
        if ending.how == "done" and status.result is not None:
            text = f"done     {what}: AP {_percent(status.score)}, {_duration(status.result.seconds)}"
        elif ending.how == "claimed":
            text = f"left     {what}: another process trains it"
        else:
            text = f"{ending.how:<8} {what}: {ending.text}"
        rest = f"; {open_ones} to go{_left(statuses, self._parallel)}" if open_ones else ""
        self._say(Text(text + rest, style="red" if ending.how == "failed" else ""))
        self._is_waiting = False

    def conclude(self, undone: Sequence[Ending], logs: Mapping[str, Path]) -> None:
        """What the cells came to that have no result."""
        if not undone:
            self._say(f"all {len(self._cells)} cells have a result")
            return
        self._say(f"{len(undone)} of {len(self._cells)} cells have no result; starting again tries them again:")
        for ending in undone:
            text = "another process trains it" if ending.how == "claimed" else ending.text
            self._say(f"  {describe(self._cells[ending.name])}: {text}")
            if logs[ending.name].exists():
                self._say(f"      {logs[ending.name]}")

    def _begun(self, attempt: Attempt) -> None:
        cell = self._cells[attempt.job.name]
        self._say(f"{'goes on' if attempt.goes_on else 'starts':<8} {describe(cell)}")
        self._is_waiting = False

    def _waits(self, jobs: Sequence[Job]) -> None:
        if not self._is_waiting:
            names = "; ".join(describe(self._cells[job.name]) for job in jobs)
            self._say(f"waits    for cells that other processes train: {names}")
        self._is_waiting = True

    def _tick(self) -> None:
        if self._bars.disable or time.monotonic() - self._seen < REFRESH:
            return
        self._seen = time.monotonic()
        running = {status.cell.name: status for status in self._watch.running()}
        for name in [name for name in self._tasks if name not in running]:
            self._bars.remove_task(self._tasks.pop(name))
        for name, status in running.items():
            if name not in self._tasks:
                self._tasks[name] = self._bars.add_task(describe(status.cell), total=status.position.steps)
            self._bars.update(self._tasks[name], completed=status.position.step)

    def _say(self, what: str | Text) -> None:
        self._console.print(what, markup=False)


def print_list(suite: Suite, statuses: Sequence[Status], refused: Iterable[str], parallel: int) -> None:
    """A line for each cell, and the sum of them."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=PIPED_WIDTH)
    console.print(f"{suite.name}: {suite.about}", markup=False, soft_wrap=True)
    table = Table()
    for heading in ("method", "labels", "fold", "seed", "AP", "time", "state"):
        is_text = heading in ("method", "state")
        table.add_column(heading, justify="left" if is_text else "right", overflow="fold", no_wrap=heading != "state")
    left = seconds_left(statuses)
    for status in statuses:
        cell = status.cell
        seconds = status.result.seconds if status.result else left[cell.name]
        is_known = status.result is None and seconds is not None
        table.add_row(
            cell.method,
            str(cell.share),
            str(cell.fold),
            str(cell.seed),
            _percent(status.score),
            f"about {_duration(seconds)} left" if is_known else _duration(seconds),
            Text(_state(status), style="red" if status.state == "failed" else ""),
        )
    console.print(table)
    for sentence in refused:
        console.print(f"warning: {sentence}", style="yellow", markup=False, soft_wrap=True)
    taken = sum((status.result.seconds for status in statuses if status.result), 0.0)
    console.print(f"{_count(statuses)}; {_duration(taken)} taken{_left(statuses, parallel)}", soft_wrap=True)


def describe(cell: Cell) -> str:
    """A cell in words."""
    return f"{cell.method}, {cell.share}, fold {cell.fold}, seed {cell.seed}"


def _state(status: Status) -> str:
    where = status.position
    if status.state == "done":
        return "done"
    if status.state == "failed":
        return f"failed: {status.error}"
    steps = f"step {where.step}/{where.steps}"
    return f"running, {steps}" if status.state == "running" else f"missing, {steps}" if where.step else "missing"


def _count(statuses: Sequence[Status]) -> str:
    counts = Counter(status.state for status in statuses)
    parts = [f"{counts[state]} {state}" for state in get_args(State) if counts[state]]
    return ", ".join([f"{len(statuses)} cell{'s' * (len(statuses) != 1)}", *parts])


def _left(statuses: Sequence[Status], parallel: int) -> str:
    if all(status.state == "done" for status in statuses):
        return ""
    seconds = time_left(statuses, parallel)
    return ", time left unknown" if seconds is None else f", about {_duration(seconds)} left"


def _duration(seconds: float | None) -> str:
    return "unknown" if seconds is None else str(timedelta(seconds=round(seconds)))


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.1f}"

"""What a run says while it trains: `metrics.jsonl`, a progress bar or log lines, and wandb where the recipe says so."""

import hashlib
import json
import math
import netrc
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from ssodkit.data.files import written_whole
from ssodkit.data.sets import OnProgress
from ssodkit.engine.bars import showing
from ssodkit.engine.nested import flatten
from ssodkit.engine.pace import Pace
from ssodkit.engine.update import Numbers, Outcome
from ssodkit.recipe.model import Recipe, WandbConfig

METRICS = "metrics.jsonl"
HEAD = b'{"kind": "'
"""Of every line of a `MetricsFile`."""


class RunLog:
    """Speaks for the first process of a run; in the others it keeps silent."""

    def __init__(self, run: Path, recipe: Recipe, pace: Pace, first_step: int) -> None:
        """Lines of `metrics.jsonl` beyond `first_step`, written before a crash, are forgotten."""
        speaks, wandb = pace.processes.is_first, recipe.watch.wandb
        self.every, self.steps = recipe.watch.log_every, recipe.engine.steps
        self.console = Console(quiet=not speaks, highlight=False)
        self.console.soft_wrap = not self.console.is_terminal  # whoever reads a file wraps its lines, or does not
        self._pace = pace
        self._file = MetricsFile(run / METRICS, first_step) if speaks else None
        self._wandb = _open_wandb(run, recipe, wandb) if speaks and wandb is not None else None
        self._bar = Progress(
            TextColumn("step {task.completed}/{task.total}"),
            BarColumn(bar_width=None),
            TextColumn("{task.description}"),
            console=self.console,
            expand=True,
        )
        self._task = self._bar.add_task("", total=self.steps, completed=first_step)
        self._line = Text()
        self._is_live = False
        if self._file is not None:
            self.note_foreign(self._file)

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *_: object) -> None:
        if self._wandb is not None:
            self._wandb.finish()

    @contextmanager
    def progress(self) -> Iterator[None]:
        """While steps are made: on a terminal, a bar with a line below it, which vanish in the end."""
        if not self.console.is_terminal:
            yield
            return
        with Live(Group(self._bar, self._line), console=self.console, transient=True):
            self._is_live = True
            try:
                yield
            finally:
                self._is_live = False

    @contextmanager
    def showing(self, what: str) -> Iterator[OnProgress]:
        """Within it, a call with what is done and what there is to do is seen: below the steps' bar, or in a bar."""
        if not self._is_live:
            with showing(what) as on_progress:
                yield on_progress
            return
        before = self._line.plain
        yield lambda done, total: setattr(self._line, "plain", f"{what}: {done} of {total}")
        self._line.plain = before

    def say(self, what: RenderableType) -> None:
        """Something for the reader; it appears above the progress bar. Lines of a terminal end between words."""
        self.console.print(what, markup=False)

    def warn(self, text: str) -> None:
        """Something that the reader should not miss."""
        self.say(Text(f"warning: {text}", style="yellow"))

    def note_foreign(self, file: "MetricsFile") -> None:
        """Say which lines of a file do not count."""
        if file.foreign:
            count, first = len(file.foreign), file.foreign[0]
            lines = f"line {first} is" if count == 1 else f"{count} lines, the first of them line {first}, are"
            self.warn(f"{file.path}: {lines} not what ssodkit writes; kept, and not counted")

    def step(self, outcome: Outcome, numbers: Numbers) -> None:
        """Take note of an update: the bar moves, and every `log_every` steps a line is written."""
        self._pace.add(outcome, numbers)
        line = self._pace.line()
        speed = f"{self._pace.speed()}  {self._pace.time_left(self.steps - outcome.step)} left"
        self._bar.update(self._task, completed=outcome.step, description=speed)
        self._line.plain = line
        if outcome.step % self.every == 0 or outcome.step == self.steps:
            if not self.console.is_terminal:
                self.say(f"step {outcome.step}/{self.steps}  {line}  {speed}")
            self.record("step", outcome.step, self._pace.take())

    def has(self, kind: str, step: int) -> bool:
        """Whether a line of this kind and step was there when the run went on; for the first process."""
        return self._file is not None and self._file.has(kind, step)

    def record(self, kind: str, step: int, numbers: Mapping[str, Any]) -> None:
        """One line of `metrics.jsonl`; `kind` is `step`, `health`, `evaluation` or `result`."""
        if self._file is not None:
            self._file.append({"kind": kind, "step": step, **numbers})
        if self._wandb is not None:
            leaves = {name: leaf for name, leaf in flatten(numbers).items() if isinstance(leaf, int | float)}
            self._wandb.log({f"{kind}/{name}": leaf for name, leaf in leaves.items()}, step=step)


class MetricsFile:
    """One JSON object per line; every line is whole, whatever happens, and on the disk before what follows it."""

    def __init__(self, path: Path, last_step: int) -> None:
        """Keep what `path` says of the steps up to `last_step`; the result will be written anew.

        Lines that are none of ours stay where they are and do not count.
        """
        self.path = path
        self.foreign: list[int] = []
        """Numbers of lines that are none of ours; empty ones are left out, as nobody minds them."""
        self._has: set[tuple[str, int]] = set()
        kept = []
        for number, line in enumerate(_read_lines(path), start=1):
            record = read_record(line)
            if record is None:
                kept.append(line)
                self.foreign += [number] if line.strip() else []
            elif record["step"] <= last_step and record["kind"] != "result":
                kept.append(line)
                self._has.add((record["kind"], record["step"]))
        with written_whole(path) as file:
            file.writelines(kept)

    def has(self, kind: str, step: int) -> bool:
        """Whether there was a line of this kind and step when the run went on."""
        return (kind, step) in self._has

    def append(self, record: Mapping[str, Any]) -> None:
        """Add a line. Numbers that are not finite become null, as JSON has no word for them."""
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(_finite(record), allow_nan=False) + "\n")
                file.flush()
                os.fsync(file.fileno())  # a checkpoint that is saved later shall not outlive it
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error


def read_record(line: bytes) -> dict[str, Any] | None:
    """What a line of a `MetricsFile` says; None where it is none of ours."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    is_ours = isinstance(record, dict) and isinstance(record.get("kind"), str) and type(record.get("step")) is int
    return record if is_ours else None


def _read_lines(path: Path) -> list[bytes]:
    """Without the half of one of ours that a crash leaves at the end."""
    try:
        *lines, rest = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    is_half = rest.startswith(HEAD) or HEAD.startswith(rest)
    return [line + b"\n" for line in (lines if is_half else [*lines, rest])]


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _open_wandb(run: Path, recipe: Recipe, config: WandbConfig) -> Any:
    """A run of Weights & Biases that a resumed run goes on with; offline where there is no key."""
    import wandb

    return wandb.init(
        project=config.project,
        entity=config.entity,
        name=recipe.name,
        id=hashlib.sha256(str(run.resolve()).encode()).hexdigest()[:16],
        resume="allow",
        dir=run,
        config=recipe.model_dump(mode="json"),
        mode=None if _has_wandb_key() else "offline",
    )


def _has_wandb_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return any("wandb" in host for host in netrc.netrc().hosts)
    except (OSError, netrc.NetrcParseError):
        return False

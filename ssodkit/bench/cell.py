"""One cell: claimed, trained in a process of its own or gone on with, and its result file written."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ssodkit.bench.folders import CellFolder
from ssodkit.bench.results import CellResult, collect, hash_in, write_result
from ssodkit.bench.suite import Cell
from ssodkit.data.files import write_whole
from ssodkit.engine.checkpoint import can_go_on
from ssodkit.engine.locks import TRIES
from ssodkit.engine.results import RESULT
from ssodkit.engine.stopping import SIGNALS
from ssodkit.errors import SsodkitError, TrainingError
from ssodkit.recipe.show import dump_recipe

POLL = 0.2
"""Seconds between two looks at a training."""
STARTS, GOES_ON = "starts", "goes on"
"""How a line of the log begins where a training does: what comes before is of earlier attempts."""


@dataclass(frozen=True)
class Job:
    """A cell to train, in plain types, so that it can travel to other processes and machines."""

    name: str
    """Of the cell."""
    recipe: str
    """Resolved, as YAML."""
    folder: CellFolder
    result: Path
    """The file to write."""
    device: str | None
    failed_at: int | None
    """When the last attempt failed, as far as is known here: one that failed since is somebody else's fresh one."""
    processes: int = 1
    """That train it."""

    @classmethod
    def of(cls, cell: Cell, runs: Path, results: Path, device: str | None, processes: int = 1) -> "Job":
        """The training of a cell; all paths are absolute."""
        folder = CellFolder(runs.resolve() / cell.name)
        result = results.resolve() / f"{cell.name}.json"
        return cls(cell.name, dump_recipe(cell.recipe), folder, result, device, folder.failed_at(), processes)


@dataclass(frozen=True)
class Ending:
    """How work on a cell ended."""

    name: str
    """Of the cell."""
    how: Literal["done", "failed", "stopped", "claimed"]
    """`claimed`: another process trains it. `stopped`: by a signal, and it can go on."""
    text: str = ""
    """Why, where it is not done."""


def run_cell(job: Job) -> Ending:
    """Claim a cell, train it to its end, and write its result; what fails is told, not raised."""
    begun = begin(job, tries=TRIES)
    return begun if isinstance(begun, Ending) else begun.wait()


def begin(job: Job, environment: Mapping[str, str] | None = None, tries: int = 1) -> "Attempt | Ending":
    """Claim a cell in so many tries, and begin its training, in an environment with these changes.

    It ends at once where another process trains the cell, or has just finished it or failed, where a finished run only
    waits to be collected, and where its folder cannot be written.
    """
    begun: Attempt | Ending | None = None
    try:
        claim = job.folder.claim(tries)
    except OSError as error:
        return Ending(job.name, "failed", _sentence(error))
    if claim is None:
        return Ending(job.name, "claimed")
    try:
        begun = _begin(job, claim, environment or {})
    except OSError as error:
        return _fail(job, _sentence(error))
    finally:
        if not isinstance(begun, Attempt):
            os.close(claim)
    return begun


class Attempt:
    """A training on its way. The claim is held until its result is written."""

    def __init__(self, job: Job, claim: int, process: subprocess.Popen[bytes], goes_on: bool) -> None:
        self.job, self.goes_on = job, goes_on
        self._claim, self._process = claim, process

    def poll(self) -> Ending | None:
        """How it ended; None while it goes on."""
        return None if self._process.poll() is None else self.wait()

    def wait(self) -> Ending:
        """Wait for the end, and write the result. Whatever interrupts this stops the training as well."""
        try:
            try:
                while (code := self._process.poll()) is None:
                    time.sleep(POLL)  # an engine's interrupt is seen between two calls, not within one
            except BaseException:
                self.stop(signal.SIGTERM)
                self._process.wait()
                raise
            return _conclude(self.job, code)
        finally:
            os.close(self._claim)

    def stop(self, number: signal.Signals) -> None:
        """Ask it to stop after its step, with a checkpoint."""
        self._process.send_signal(number)


def _begin(job: Job, claim: int, environment: Mapping[str, str]) -> Attempt | Ending:
    folder = job.folder
    if job.result.exists():
        return Ending(job.name, "done")
    if folder.failed_at() not in (None, job.failed_at):
        return Ending(job.name, "failed", folder.read_error() or "")
    folder.error.unlink(missing_ok=True)
    if (folder.run / RESULT).is_file():
        return _conclude(job, 0)
    goes_on = can_go_on(folder.run)
    if not goes_on:
        shutil.rmtree(folder.run, ignore_errors=True)
        write_whole(folder.recipe, job.recipe)
    what = ["--resume", str(folder.run)] if goes_on else [str(folder.recipe), "--out", str(folder.run)]
    what += ["--processes", str(job.processes)] if job.processes > 1 else []
    what += ["--device", job.device] if job.device is not None else []
    with folder.log.open("a", encoding="utf-8") as log:
        log.write(f"{GOES_ON if goes_on else STARTS}   {job.name}\n")
        log.flush()
        process = subprocess.Popen(
            [sys.executable, "-m", "ssodkit.bench.child", str(os.getpid()), "run", *what],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},  # the last line of the log is the last one said
            pass_fds=(claim,),
            process_group=0,  # else Ctrl-C reaches it twice, from the terminal and from us, and the second one kills
        )
    return Attempt(job, claim, process, goes_on)


def _conclude(job: Job, code: int) -> Ending:
    """Write the result of a training that ended with this code, or why there is none."""
    number = _signal_of(code)
    if number in SIGNALS:
        return Ending(job.name, "stopped", f"stopped by {number.name}")
    try:
        if code == 0:
            if not job.result.exists():  # of a bench that works in another folder: the first one stays
                write_result(_collect(job), job.result)
            return Ending(job.name, "done")
        text = _last_line(job.folder.log)
    except (SsodkitError, OSError, ValueError) as error:  # a score that is no number is a ValueError of the result's
        text = _sentence(error)
    if number is not None:
        text = f"ended by {number.name}; mostly the machine's memory is full then"
    return _fail(job, text)


def _collect(job: Job) -> CellResult:
    """The result of the cell's finished run. Raises TrainingError where it is none, or another training's."""
    cure = f"Delete {job.folder.path}, and the cell runs again."
    try:
        result = collect(job.folder.run)
    except TrainingError as error:
        raise TrainingError(f"{error} {cure}") from error
    if result.recipe_hash != hash_in(job.name):
        raise TrainingError(
            f"its run is of another recipe, as where that of its first stage was changed meanwhile. {cure}"
        )
    return result


def _fail(job: Job, text: str) -> Ending:
    with suppress(OSError):  # what is told is not lost where it cannot be kept, such as on a full disk
        write_whole(job.folder.error, text + "\n")
    return Ending(job.name, "failed", text)


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename} cannot be read or written: {error.strerror}"
    return str(error)


def _signal_of(code: int) -> signal.Signals | None:
    """What ended a process with this code: on its own, or after our own handler had stopped it."""
    if code < 0:
        return signal.Signals(-code)
    return next((number for number in SIGNALS if code == 128 + number), None)


def _last_line(log: Path) -> str:
    """The sentence that a training ended with."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")

"""Folders that a run or a prediction writes into: new or empty ones, nothing is overwritten, and one run at a time."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ssodkit.data.files import DRAFT, draft_folder
from ssodkit.engine.checkpoint import RECIPE, can_go_on
from ssodkit.engine.distributed import Processes
from ssodkit.engine.locks import TRIES, is_taken, take
from ssodkit.errors import TrainingError

RUNS = Path("runs")
"""Where run folders are made that nobody named."""
_held: set[int] = set()
"""Descriptors of locks that no fork of this process keeps: its loaders may outlive it by seconds."""


def make_run_folder(out: Path | None, name: str, processes: Processes) -> Path:
    """An empty folder for a run, the same on all processes; without `out`, one with the next number in `runs`."""
    made = processes.first_alone(lambda: _make_numbered(name) if out is None else make_folder(out))
    run = processes.gather(made)[0]
    assert run is not None
    return run


@contextmanager
def held(run: Path, processes: Processes) -> Iterator[None]:
    """Within it, no other run may go on in this folder. Raises TrainingError where one is under way there."""
    descriptor = processes.first_alone(lambda: _hold(run))
    if descriptor is None:
        yield
        return
    _held.add(descriptor)
    try:
        yield
    finally:
        _held.remove(descriptor)
        os.close(descriptor)


def is_held(run: Path) -> bool:
    """Whether a run is under way in this folder, on its file system's word."""
    return is_taken(run / RECIPE)


def _hold(run: Path) -> int | None:
    try:
        descriptor = take(run / RECIPE, TRIES)
    except OSError:  # of a file system without locks, which is no reason not to train
        return None
    if descriptor is None:
        raise TrainingError(f"another process trains in {run}. Wait until it has ended, or stop it.")
    return descriptor


def _let_go() -> None:
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_let_go)


@contextmanager
def filled_whole(out: Path) -> Iterator[Path]:
    """A folder to write into, whose files stand in the new or empty folder `out` at the end of the `with`.

    Where anything fails within it, nothing is left. Raises TrainingError if `out` cannot be made or holds anything.
    """
    is_new = not out.exists()
    make_folder(out)
    try:
        with draft_folder(out) as draft, _named_in(out, draft):
            yield draft
            refuse_used(out)  # somebody else may have been sooner
            for path in sorted(draft.iterdir()):
                path.rename(out / path.name)
    finally:
        if is_new and not any(out.iterdir()):
            out.rmdir()


@contextmanager
def _named_in(out: Path, draft: Path) -> Iterator[None]:
    """An OSError within it names a file of the draft by the place that it was to have."""
    try:
        yield
    except OSError as error:
        if error.filename is None or not Path(error.filename).is_relative_to(draft):
            raise
        raise OSError(error.errno, error.strerror, str(out / Path(error.filename).relative_to(draft))) from error


def make_folder(out: Path) -> Path:
    """The folder `out`, made if it does not exist. Raises TrainingError if it cannot be made or holds anything."""
    refuse_used(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f"the folder {out} cannot be made: {error.strerror}. Take another --out.") from error
    return out


def refuse_used(out: Path) -> None:
    """Raise TrainingError if `out` is a file, or a folder that holds anything but unfinished drafts."""
    if out.is_file():
        raise TrainingError(f"{out} is a file, not a folder. Take another --out.")
    if out.is_dir() and not all(DRAFT.fullmatch(path.name) for path in out.iterdir()):
        raise TrainingError(f"{out} is not empty, and nothing in it is overwritten. Take another --out{_or_else(out)}.")


def _or_else(out: Path) -> str:
    if not (out / RECIPE).is_file():
        return ""
    if can_go_on(out):
        return f", or go on with the run in it: `ssodkit run --resume {out}`"
    return ", or delete it: the run in it ended before its first checkpoint"


def _make_numbered(name: str) -> Path:
    number = 1
    while True:
        run = RUNS / f"{name}-{number}"
        try:
            run.mkdir(parents=True)
        except FileExistsError:
            number += 1
        except OSError as error:
            raise TrainingError(f"the folder {run} cannot be made: {error.strerror}. Name another by --out.") from error
        else:
            return run


def refuse_existing(out: Path) -> None:
    """Raise TrainingError if there is something at `out`, or no folder that it could be written into."""
    if out.exists():
        raise TrainingError(f"{out} exists, and nothing is overwritten. Take another --out, or delete it.")
    if not out.parent.is_dir():
        raise TrainingError(f"{out.parent} is no folder, so {out.name} cannot be written there. Make it first.")

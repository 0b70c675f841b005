"""Folders that a run or a prediction writes into: new or empty ones, so that nothing is ever overwritten."""

from pathlib import Path

from ssodkit.engine.checkpoint import RECIPE, can_go_on
from ssodkit.engine.distributed import Processes
from ssodkit.errors import TrainingError

RUNS = Path("runs")
"""Where run folders are made that nobody named."""


def make_run_folder(out: Path | None, name: str, processes: Processes) -> Path:
    """An empty folder for a run, the same on all processes; without `out`, one with the next number in `runs`."""
    made = processes.first_alone(lambda: _make_numbered(name) if out is None else make_folder(out))
    run = processes.gather(made)[0]
    assert run is not None
    return run


def make_folder(out: Path) -> Path:
    """The folder `out`, made if it does not exist. Raises TrainingError if it cannot be made or holds anything."""
    refuse_used(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f"the folder {out} cannot be made: {error.strerror}. Take another --out.") from error
    return out


def refuse_used(out: Path) -> None:
    """Raise TrainingError if `out` is a file, or a folder that holds anything."""
    if out.is_file():
        raise TrainingError(f"{out} is a file, not a folder. Take another --out.")
    if out.is_dir() and any(out.iterdir()):
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

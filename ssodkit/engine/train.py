"""Training: a recipe becomes a run."""

import signal
from pathlib import Path

from ssodkit.engine.checkpoint import read_run
from ssodkit.engine.distributed import Processes, open_processes
from ssodkit.engine.results import RunResult, conclude
from ssodkit.engine.session import Session
from ssodkit.engine.stopping import Stopping
from ssodkit.engine.update import Outcome
from ssodkit.errors import Interrupted, TrainingError
from ssodkit.recipe.model import Recipe

RUNS = Path("runs")
"""Where run folders are made that nobody named."""


def train(
    recipe: Recipe, out: Path | None = None, device: str | None = None, stop_after: int | None = None
) -> RunResult:
    """Train a recipe and evaluate what was learned, in the new or empty folder `out`; None makes one in `runs`.

    `stop_after` ends after that step, with a checkpoint and without evaluation; `resume` goes on. Raises RecipeError,
    DataError or TrainingError, and Interrupted after a signal, once the checkpoint is written.
    """
    if out is not None:
        _refuse_used(out)
    with open_processes(device) as processes:
        session = Session(recipe, processes)
        session.open(_make_folder(out, recipe.name, processes))
        return _run(session, stop_after)


def resume(run: Path, device: str | None = None, stop_after: int | None = None) -> RunResult:
    """Go on with a run from its last checkpoint, as if it had never stopped; errors as in `train`."""
    recipe, checkpoint = read_run(run)
    with open_processes(device) as processes:
        session = Session(recipe, processes, checkpoint)
        session.open(run)
        return _run(session, stop_after)


def _run(session: Session, stop_after: int | None) -> RunResult:
    session.introduce()
    steps = session.recipe.engine.steps
    with session.log, Stopping() as stopping:
        with session.log.progress():
            _train(session, steps if stop_after is None else min(stop_after, steps), stopping)
        with stopping.at_once():
            return conclude(session, evaluates=stop_after is None or stop_after > steps)


def _train(session: Session, last: int, stopping: Stopping) -> None:
    """Train up to step number `last`, where a checkpoint is written."""
    engine, watch = session.recipe.engine, session.recipe.watch
    late: Outcome | None = None
    wished = False
    for batches in session.batches(until=last):
        outcome = session.update(batches, wish_to_stop=stopping.received is not None)
        wished |= session.settle(late)  # the step before: its numbers have arrived by now
        late = outcome
        # One process stops after the step of the signal; several do one later, when all of them know.
        stops = wished if session.processes.count > 1 else stopping.received is not None

        if session.is_due(watch.health_every):
            session.report_health()
        saves = stops or session.step == last or session.is_due(engine.checkpoint.every)
        scores = session.is_due(engine.evaluate_every) and session.step < engine.steps
        if saves or scores:  # what is not finite is neither saved nor scored
            wished |= session.settle(late)
            late = None
        if saves:
            session.save()
        if stops:
            received = stopping.received or signal.SIGTERM  # another process may have got it
            again = f"`ssodkit run --resume {session.run}`"
            raise Interrupted(f"stopped after step {session.step}; go on with {again}", received)
        if scores:
            with stopping.at_once():
                session.evaluate()
    if session.saved_step != session.step:
        session.save()


def _refuse_used(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise TrainingError(
            f"{out} is not empty, and a run is never overwritten. Take another --out, or go on with the run in it: "
            f"`ssodkit run --resume {out}`."
        )


def _make_folder(out: Path | None, name: str, processes: Processes) -> Path:
    """An empty folder for the run, the same on all processes."""
    run = out or RUNS
    if processes.is_first and out is not None:
        _refuse_used(out)
        out.mkdir(parents=True, exist_ok=True)
    elif processes.is_first:
        RUNS.mkdir(exist_ok=True)
        run = _make_numbered_folder(name)
    return processes.gather(run)[0]


def _make_numbered_folder(name: str) -> Path:
    number = 1
    while True:
        run = RUNS / f"{name}-{number}"
        try:
            run.mkdir()
        except FileExistsError:
            number += 1
        else:
            return run

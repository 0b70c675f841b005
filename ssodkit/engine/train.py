"""Training: a recipe becomes a run."""

import signal
from pathlib import Path

from ssodkit.engine.checkpoint import read_run
from ssodkit.engine.distributed import open_processes
from ssodkit.engine.failures import explained
from ssodkit.engine.folders import make_run_folder, refuse_used
from ssodkit.engine.results import RunResult, conclude
from ssodkit.engine.session import Session
from ssodkit.engine.stopping import Stopping
from ssodkit.errors import DataError, Interrupted
from ssodkit.recipe.model import Recipe


def train(
    recipe: Recipe, out: Path | str | None = None, device: str | None = None, stop_after: int | None = None
) -> RunResult:
    """Train a recipe and evaluate what was learned, in the new or empty folder `out`; None makes one in `runs`.

    `stop_after` ends after that step, with a checkpoint and without evaluation; `resume` goes on. Raises RecipeError,
    DataError or TrainingError, and Interrupted after a signal, once the checkpoint is written.
    """
    if out is not None:
        out = Path(out)
        refuse_used(out)
    with open_processes(device) as processes, explained():
        session = Session(recipe, processes)
        session.open(make_run_folder(out, recipe.name, processes))
        return _run(session, stop_after)


def resume(run: Path | str, device: str | None = None, stop_after: int | None = None) -> RunResult:
    """Go on with a run from its last checkpoint, as if it had never stopped; errors as in `train`."""
    run = Path(run)
    recipe, checkpoint = read_run(run)
    with open_processes(device) as processes, explained():
        session = Session(recipe, processes, checkpoint)
        session.open(run)
        return _run(session, stop_after)


def _run(session: Session, stop_after: int | None) -> RunResult:
    session.introduce()
    steps = session.recipe.engine.steps
    with session.log, Stopping() as stopping, explained(lambda: session.way_on):
        with session.log.progress():
            _train(session, steps if stop_after is None else min(stop_after, steps), stopping)
        with stopping.at_once(f"; {session.way_on}"):
            return conclude(session, evaluates=stop_after is None or stop_after > steps)


def _train(session: Session, last: int, stopping: Stopping) -> None:
    """Train up to step number `last`. A checkpoint is written there, and where data or a signal end it before."""
    try:
        _make_steps(session, last, stopping)
    except DataError:
        if session.processes.count == 1:  # of several, the others wait within their step
            session.settle()
            session.save()
        raise
    session.save()


def _make_steps(session: Session, last: int, stopping: Stopping) -> None:
    engine, watch = session.recipe.engine, session.recipe.watch
    wished = False
    for batches in session.batches(until=last):
        wished |= session.update(batches, wish_to_stop=stopping.received is not None)
        # One process stops after the step of the signal; several do one later, when all of them know.
        stops = wished if session.processes.count > 1 else stopping.received is not None

        if session.is_due(watch.health_every):
            session.report_health()
        scores = session.is_due(engine.evaluate_every) and session.step < engine.steps
        if stops or scores or session.step == last or session.is_due(engine.checkpoint.every):
            wished |= session.settle()  # what is not finite is neither saved nor scored
            session.save()
        if stops:
            received = stopping.received or signal.SIGTERM  # another process may have got it
            raise Interrupted(f"stopped after step {session.step}; {session.way_on}", received)
        if scores:
            with stopping.at_once(f" while it scored; {session.way_on}"):
                session.evaluate()

"""Training: a recipe becomes a run."""

import signal
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from ssodkit.data.config import StoredSource
from ssodkit.data.files import write_whole
from ssodkit.engine.ahead import Ahead
from ssodkit.engine.checkpoint import (
    FIRST_STAGE,
    RECIPE,
    as_tested,
    find_checkpoints,
    find_last,
    find_networks,
    read_recipe,
    read_step,
)
from ssodkit.engine.distributed import Processes, open_processes
from ssodkit.engine.failures import explained
from ssodkit.engine.folders import held, make_run_folder, refuse_used
from ssodkit.engine.gallery import Gallery
from ssodkit.engine.label import open_images, write_labels
from ssodkit.engine.logging import METRICS
from ssodkit.engine.output import outliving_readers
from ssodkit.engine.results import RESULT, RunResult, conclude
from ssodkit.engine.session import Session
from ssodkit.engine.stopping import Stopping
from ssodkit.errors import DataError, Interrupted
from ssodkit.recipe.check import first_stage
from ssodkit.recipe.model import Recipe
from ssodkit.recipe.show import dump_recipe
from ssodkit.structures.geometry import SemiBatch

LABELS = "pseudo_labels.json"
"""In the folder of a first stage: what its network found in the unlabeled images."""
STEPS_TO_STOP = 2
"""Of several processes, from the first in which one of them wishes to stop to the last that is made."""
GOES_ON = f"nobody reads what the training says any more; it goes on, and writes to {METRICS} in its folder"


def train(
    recipe: Recipe,
    out: Path | str | None = None,
    device: str | None = None,
    stop_after: int | None = None,
    files: Mapping[str, str] = MappingProxyType({}),
) -> RunResult:
    """Train a recipe and evaluate what was learned, in the new or empty folder `out`; None makes one in `runs`.

    `stop_after` ends after that step, with a checkpoint and without evaluation; `resume` goes on. `files` (name ->
    text) stand in the folder from the start. Where the recipe's labels are made by another one, that is trained first,
    and its steps count as well. Raises RecipeError, DataError or TrainingError, and Interrupted after a signal, once
    the checkpoint is written.
    """
    if out is not None:
        out = Path(out)
        refuse_used(out)
    first = first_stage(recipe)
    with outliving_readers(GOES_ON), open_processes(device) as processes, explained():
        if first is not None:
            processes.first_alone(lambda: open_images(first))  # broken ones are found before step 1
        session = Session(first or recipe, processes)
        run = make_run_folder(out, recipe.name, processes)
        if processes.is_first:
            for name, text in files.items():
                write_whole(run / name, text)
        if first is None:
            session.open(run)
            with held(run, processes):
                return _run(session, stop_after)
        if processes.is_first:
            write_whole(run / RECIPE, dump_recipe(recipe))
            (run / FIRST_STAGE).mkdir()
        session.open(run / FIRST_STAGE, whole=run)
        with held(run, processes):
            return _run_stages(recipe, first, run, processes, stop_after, session)


def resume(
    run: Path | str, device: str | None = None, stop_after: int | None = None, trust_plugins: bool = False
) -> RunResult:
    """Go on with a run from its last checkpoint, in the stage it was in, as if it had never stopped.

    Errors are those of `train`, and RecipeError for plug-ins that were never run here, unless `trust_plugins`.
    """
    run = Path(run)
    recipe = read_recipe(run, trust_plugins)
    first = first_stage(recipe)
    checkpoint = find_last(run) if first is None else None
    with outliving_readers(GOES_ON), open_processes(device) as processes, explained(), held(run, processes):
        if first is not None:
            return _run_stages(recipe, first, run, processes, stop_after)
        session = Session(recipe, processes, checkpoint)
        session.open(run)
        return _run(session, stop_after)


def _run_stages(
    recipe: Recipe,
    first: Recipe,
    run: Path,
    processes: Processes,
    stop_after: int | None,
    session: Session | None = None,
) -> RunResult:
    """Train `first`, label with its last checkpoint, and train `recipe`; what is finished is not made again.

    `session` is the first stage's where it has just been opened. `stop_after` counts the steps of both.
    """
    folder = run / FIRST_STAGE
    labels = folder / LABELS
    is_trained, is_labeled = processes.gather([(folder / RESULT).is_file(), labels.is_file()])[0]
    if not is_trained:
        session = session or _open(first, folder, processes, whole=run)
        session.log.say(f"stage 1  trains {first.name}; stage 2, {recipe.name}, learns from its pseudo-labels")
        result = _run(session, stop_after)
        if not result.scores:
            return replace(result, run=run)
    session = None  # its memory is needed
    if not is_labeled:
        source = recipe.data.unlabeled
        assert isinstance(source, StoredSource)
        way_on = f"go on with `ssodkit run --resume {run}`"
        words = (lambda: way_on) if processes.is_first else None
        with Stopping(words) as stopping, stopping.at_once(f"; {way_on}"):
            checkpoint = find_networks(folder, first)
            labeling = as_tested(first, checkpoint)
            write_labels(labeling, checkpoint, open_images(first), labels, processes, size=source.made_at)
    second = _open(recipe, run, processes, labels=labels)
    return _run(second, None if stop_after is None else max(0, stop_after - first.engine.steps))


def _open(
    recipe: Recipe, run: Path, processes: Processes, whole: Path | None = None, labels: Path | None = None
) -> Session:
    """A stage as its last checkpoint left it; new where there is none."""
    session = Session(recipe, processes, next(iter(find_checkpoints(run)), None), labels)
    session.open(run, whole)
    return session


def _run(session: Session, stop_after: int | None) -> RunResult:
    session.introduce()
    gallery = Gallery(session)
    steps = session.recipe.engine.steps
    with session.log, Stopping(_last_words(session)) as stopping, explained(lambda: session.way_on):
        with session.log.progress():
            _train(session, gallery, steps if stop_after is None else min(stop_after, steps), stopping)
        with stopping.at_once(f"; {session.way_on}"):
            is_whole = stop_after is None or stop_after > steps
            return conclude(session, gallery, evaluates=is_whole or session.is_past_peak)


def _last_words(session: Session) -> Callable[[], str] | None:
    """What a second signal leaves: the first process tells, from what is on the disk at that moment."""

    def tell() -> str:
        saved = find_checkpoints(session.run)
        return f"{f'the last checkpoint is of step {read_step(saved[0])}; ' if saved else ''}{session.way_on}"

    return tell if session.processes.is_first else None


def _train(session: Session, gallery: Gallery, last: int, stopping: Stopping) -> None:
    """Train up to step number `last`. A checkpoint is written there, and where data or a signal end it before."""
    count = 0 if session.processes.count == 1 else STEPS_TO_STOP
    try:
        with closing(Ahead(session.batches(until=last), count)) as ahead:
            _make_steps(session, gallery, ahead, last, stopping)
    except DataError:  # in all processes, after the same step
        session.settle()
        session.save()
        raise
    session.save()


def _make_steps(
    session: Session, gallery: Gallery, ahead: Ahead[tuple[SemiBatch, ...]], last: int, stopping: Stopping
) -> None:
    engine, watch, processes = session.recipe.engine, session.recipe.watch, session.processes
    wished, is_alone = False, processes.count == 1
    with stopping.at_once(f" while it scored; {session.way_on}"):
        session.evaluate_if_cut_off()
    if session.is_past_peak:
        return
    processes.together(ahead.begin)
    for batches in ahead:
        wished |= session.update(batches, wish_to_stop=stopping.received is not None or ahead.failure is not None)
        # One process stops after the step of the signal; several do one later, when all of them know.
        stops = stopping.received is not None if is_alone else wished

        if session.is_due(watch.health_every):
            session.report_health()
        if gallery.is_due():
            gallery.look()
        scores = session.is_evaluation_due
        if stops or scores or session.step == last or session.is_due(engine.checkpoint.every):
            wished |= session.settle()  # what is not finite is neither saved nor scored
            session.save()
            session.broken.refuse_many()  # all processes know of all of them now
        if stops:
            processes.together(ahead.refuse)
            received = stopping.received or signal.SIGTERM  # another process may have got it
            raise Interrupted(f"stopped after step {session.step}; {session.way_on}", received)
        if scores:
            with stopping.at_once(f" while it scored; {session.way_on}"):
                session.evaluate()
            if session.is_past_peak and session.step < engine.steps:
                session.log.say(_past_peak(session))
                return


def _past_peak(session: Session) -> str:
    """Why the training ends before its last step."""
    return (
        f"ends after step {session.step}: the last {session.recipe.engine.patience} evaluations were no better than "
        f"the best, AP {100 * session.best:.1f} after step {session.best_step} on the validation images"
    )

"""What a run holds while it trains, and what is done with it beside the steps themselves."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ssodkit.data.batch_plan import derive_batch
from ssodkit.data.broken import Skipped
from ssodkit.data.files import write_whole
from ssodkit.data.loader import training_batches
from ssodkit.data.sets import DataSets
from ssodkit.engine.alarms import Advice, teacher_alarm
from ssodkit.engine.broken import NOTHING_BROKEN, BrokenImages
from ssodkit.engine.build import build_method, place
from ssodkit.engine.checkpoint import (
    BEST,
    LAST,
    RECIPE,
    Checkpoints,
    can_go_on,
    find_networks,
    incomplete,
    is_checkpoint,
    load_network,
    load_state,
    read_step,
    unfitting,
)
from ssodkit.engine.distributed import Processes
from ssodkit.engine.doctor.meeting import check_meeting
from ssodkit.engine.evaluate import as_result, score_networks
from ssodkit.engine.health import Health, describe_stored
from ssodkit.engine.logging import RunLog
from ssodkit.engine.origin import Origin
from ssodkit.engine.pace import Pace
from ssodkit.engine.precision import precision_on
from ssodkit.engine.replay import not_finite, save_replay, streams_of
from ssodkit.engine.start import find_start
from ssodkit.engine.tables import classes_in_words
from ssodkit.engine.update import Numbers, Outcome, Updater
from ssodkit.engine.versions import device_name, source, versions
from ssodkit.errors import TrainingError
from ssodkit.methods.base import MethodConfig
from ssodkit.recipe.model import Recipe
from ssodkit.recipe.show import dump_recipe, recipe_hash
from ssodkit.structures.geometry import SemiBatch
from ssodkit.structures.progress import Progress


class Session:
    """A run on its way: data, method, optimizer, and how far it is."""

    run: Path
    """The folder of the run."""
    whole: Path
    """The same, or the folder of the run that this one is the first stage of."""

    def __init__(
        self, recipe: Recipe, processes: Processes, checkpoint: Path | None = None, labels: Path | None = None
    ) -> None:
        """Read all data and build the networks, new or as `checkpoint` saved them; nothing is written yet.

        `labels` are the stored ones of the unlabeled images, where the run has made them itself. Raises DataError,
        RecipeError or TrainingError for whatever would fail later.
        """
        self.recipe, self.processes = recipe, processes
        saved = None if checkpoint is None else load_state(checkpoint)
        data = recipe.data if labels is None else recipe.data.labeled_by(labels)
        self.broken = BrokenImages(data, processes, None if saved is None else saved.get("broken", NOTHING_BROKEN))
        self.sets: DataSets = self.broken.sets
        fold, categories, engine = self.sets.fold.hash, self.sets.categories, recipe.engine
        processes.agree({"recipe": recipe_hash(recipe), "labeled fold": fold})
        self.plan = derive_batch(recipe.data.batch, processes.count, engine.images_per_device, engine.lr_for_images)
        labeled = self.sets.labeled
        self.start = None if checkpoint else find_start(recipe.detector, [category.name for category in categories])
        method = build_method(
            recipe,
            len(categories),
            load_weights=checkpoint is None,
            start=self.start,
            labeled_boxes_per_image=tuple((labeled.boxes_per_class() / max(1, len(labeled))).tolist()),
        )
        self.method = place(method, recipe, processes.device)
        self.updater = Updater(self.method, engine, processes, recipe.seed, self.plan.lr_factor)
        self.health = Health(
            self.sets.labeled,
            self.sets.hidden,
            self.sets.labeled_too,
            engine.steps,
            recipe.watch.quiet_after,
            processes.device,
            Advice(*recipe.method.advice),
        )
        self.stored = describe_stored(self.sets.unlabeled, self.sets.hidden, self.sets.labeled, self.sets.labeled_too)
        self.pace = Pace(processes)
        self.origin = Origin.of(recipe, categories, fold)
        self.step, self.seconds, self.best, self.best_step = 0, 0.0, -1.0, 0
        self.sources = [source()]
        self.averages: dict[int, dict[str, float]] = {}
        self._saved_step = -1
        self._taken_step: int | None = None
        self._unread: Outcome | None = None
        self._warning: str | None = None
        if checkpoint is not None and saved is not None:
            self._restore(checkpoint, saved)

    def open(self, run: Path, whole: Path | None = None) -> None:
        """Write into this folder from here on; an empty one learns what the run is.

        Where it is a part of a run in the folder `whole`, one goes on with that.
        """
        self.run, self.whole = run, whole or run
        if self.processes.is_first:
            if not (run / RECIPE).exists():
                write_whole(run / RECIPE, dump_recipe(self.recipe))
            self.sets.fold.save(run / "fold.json")  # also where a crash came between the two
        self.log = RunLog(run, self.recipe, self.pace, self.step)
        self.checkpoints = Checkpoints(run / "checkpoints", self.recipe.engine.checkpoint.keep, self.log.warn)
        if self.processes.is_first:
            self.checkpoints.tidy()
        self._began = time.perf_counter()

    @property
    def way_on(self) -> str:
        """What to do with this run once it has stopped."""
        if can_go_on(self.whole):
            return f"go on with `ssodkit run --resume {self.whole}`"
        return f"start anew with `ssodkit run {self.run / RECIPE}`"

    @property
    def progress(self) -> Progress:
        """How far the run is."""
        return Progress(self.step, self.recipe.engine.steps)

    @property
    def tested(self) -> Progress:
        """How far the networks are, which may be those of an earlier checkpoint once the run is at its end."""
        return replace(self.progress, step=self.step if self._taken_step is None else self._taken_step)

    def is_due(self, every: int | None) -> bool:
        """Whether the step just made is one of every so many."""
        return every is not None and self.step % every == 0

    def batches(self, until: int) -> Iterator[tuple[SemiBatch, ...]]:
        """What this process trains on in each step up to number `until`, from where the run is."""
        return self.pace.watch(self.batches_of(range(self.step, until)))

    def batches_of(self, steps: range, workers: int | None = None) -> Iterator[tuple[SemiBatch, ...]]:
        """What this process trains on in any steps; `workers` loader processes, by default the recipe's."""
        return training_batches(
            self.sets,
            self.recipe.views,
            self.plan,
            self.recipe.seed,
            steps,
            self.processes.rank,
            self.processes.device,
            self.recipe.engine.workers if workers is None else workers,
            partial(_uses_unlabeled, self.recipe.method, self.recipe.engine.steps),
            self._skip if self.broken.rule.skip else None,
        )

    def _skip(self, skipped: Skipped) -> None:
        self.broken.add(skipped, self.log.warn)
        self.broken.refuse_many()

    def update(self, batches: tuple[SemiBatch, ...], wish_to_stop: bool) -> bool:
        """One step; the one before is settled, as `settle` says. Its numbers have arrived: nothing waits."""
        outcome = self.updater(batches, self.progress, wish_to_stop)
        self.pace.lap()
        self.step = outcome.step
        self.health.add(outcome.step, outcome.reports)
        wished = self.settle()
        self._unread = outcome
        return wished

    def settle(self) -> bool:
        """Read and log the numbers of the last update, if nobody did; say whether any process wished to stop in it.

        Raises TrainingError if something was not finite.
        """
        outcome, self._unread = self._unread, None
        if outcome is None:
            return False
        numbers = outcome.read()
        if numbers.is_halted:
            raise self._explain(outcome, numbers)
        self.log.step(outcome, numbers)
        return numbers.wish_to_stop

    def report_health(self) -> None:
        """Log how the pseudo-labels have been since the last report."""
        summary, warning = self.health.report(self.recipe.method.teaches_unlabeled(self.progress))
        if summary is not None:
            self.log.record("health", self.step, summary)
        if warning is not None:
            self.log.warn(warning)

    @property
    def is_evaluation_due(self) -> bool:
        """Whether the networks are scored after the step just made.

        After the last one that is for the best checkpoint alone, as the test images follow.
        """
        if self.step == self.recipe.engine.steps:
            return self.sets.validation is not None
        return self.step > 0 and self.is_due(self.recipe.engine.evaluate_every)

    def evaluate_if_cut_off(self) -> None:
        """Score the networks if the run was stopped between the checkpoint that it goes on from and its evaluation."""
        if self.is_evaluation_due and not self.processes.gather(self.log.has("evaluation", self.step))[0]:
            self.evaluate()

    def save(self, name: str = LAST) -> None:
        """Write a checkpoint, unless this step has it; everything up to this step must have been settled."""
        if name == LAST and self._saved_step == self.step:
            return
        self.health.settle()
        self.broken.share(self.log.warn)
        with self.pace.paused():
            if self.processes.is_first:
                self.checkpoints.save(self._state(), self.method.networks(), name)
            self.processes.gather(None)
        if name == LAST:
            self._saved_step = self.step

    def evaluate(self) -> None:
        """Score the networks on the way, on the validation set if there is one; only then the best are kept."""
        on_test = self.sets.validation is None
        with self.pace.paused():
            scores = self.score(on_test)
        averages = {name: scores[name]["AP"] or 0.0 for name in self.method.networks()}
        average = averages[scores["result"]]
        if not on_test and average > self.best:
            self.best, self.best_step = average, self.step
            self.save(BEST)  # before the line, which says that nothing is left to do for this step
        self.averages[self.step] = averages
        self.log.record("evaluation", self.step, {"set": "test" if on_test else "validation", **scores})
        listed = ", ".join(f"{name} {100 * average:.1f}" for name, average in averages.items())
        which = "test" if on_test else "validation"
        self.log.say(f"AP after step {self.step} on the {which} images: {listed}{classes_in_words(scores)}")
        alarm = teacher_alarm(self.averages, self.recipe.engine.steps)
        if alarm is not None and not self.is_past_peak:
            self.log.warn(alarm)

    def validation_averages(self, step: int) -> dict[str, float] | None:
        """Network -> its AP on the validation images after a step whose networks are at hand; None without images."""
        if self.sets.validation is None:
            return None
        if step not in self.averages:  # scored by a part of the run that a crash made this one forget
            scores = self.score(on_test=False)
            self.averages[step] = {name: scores[name]["AP"] or 0.0 for name in self.method.networks()}
        return self.averages[step]

    @property
    def is_past_peak(self) -> bool:
        """Whether the recipe's patience is at its end; the evaluations that were due so far have been made."""
        every, patience = self.recipe.engine.evaluate_every, self.recipe.engine.patience
        return patience is not None and every is not None and self.step // every - self.best_step // every >= patience

    def take_result(self) -> tuple[Path, int]:
        """The checkpoint that is the run's result, and its step; the networks are its own from here on.

        Nothing may be trained or saved afterwards.
        """
        if self.recipe.evaluation.checkpoint == LAST:
            return self.run / "checkpoints" / LAST, self.step
        checkpoint = find_networks(self.run, self.recipe)
        for name, network in self.method.networks().items():
            load_network(checkpoint, name, network)
        self._taken_step = read_step(checkpoint)
        return checkpoint, self._taken_step

    def score(self, on_test: bool = True) -> dict[str, Any]:
        """The scores of all networks, as `result.json` has them."""
        images = self.sets.test if on_test or self.sets.validation is None else self.sets.validation
        with self.log.showing("scoring, batch") as on_progress:
            scores = score_networks(
                self.method.networks(), images, self.recipe, self.processes, on_progress, self.tested
            )
        return as_result(scores, self.recipe)

    def introduce(self) -> None:
        """Say what this run is made of."""
        engine, sets, fold, device = self.recipe.engine, self.sets, self.sets.fold, self.processes.device
        many = f", {self.processes.count} processes" if self.processes.count > 1 else ""
        unlabeled = 0 if sets.unlabeled is None else len(sets.unlabeled)
        validation = "" if sets.validation is None else f"{len(sets.validation)} validation, "
        self.log.say(f"run      {self.run}  (recipe {self.recipe.name}, seed {self.recipe.seed})")
        self.log.say(f"device   {device_name(device)}, {precision_on(device, engine.precision)}{many}")
        self.log.say(
            f"data     {len(sets.labeled)} labeled images ({fold.describe()}, hash {fold.hash}), "
            f"{unlabeled} unlabeled, {validation}{len(sets.test)} test; {len(sets.categories)} classes"
        )
        weights = () if self.start is None else (f"weights  {self.start.describe()}",)
        for line in (f"batch    {self.plan.describe()}", *weights, *(f"note     {note}" for note in sets.notes)):
            self.log.say(line)
        if self.stored is not None and not self.log.has("health", 0):
            self.log.record("health", 0, self.stored)
        if not self.step:
            for finding in check_meeting(self.recipe, sets, self.method.networks()):
                self.log.warn(str(finding))
        if self.step:
            self.log.say(f"resumed  after step {self.step}")
        if self._warning is not None:
            self.log.warn(self._warning)

    def facts(self) -> dict[str, Any]:
        """What a result must be read with."""
        return {
            "step": self.step,
            "recipe": recipe_hash(self.recipe),
            "seed": self.recipe.seed,
            "fold": self.sets.fold.facts(),
            "device": device_name(self.processes.device),
            "processes": self.processes.count,
            "precision": precision_on(self.processes.device, self.recipe.engine.precision),
            "seconds": self._seconds_so_far(),
            "versions": versions(),
            "sources": self.sources,
        }

    def _seconds_so_far(self) -> float:
        return self.seconds + time.perf_counter() - self._began

    def _unlabeled_files(self) -> str:
        return "none" if self.sets.unlabeled is None else self.sets.unlabeled.describe_files()

    def _state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "origin": self.origin.as_state(),
            "method": self.method.state_dict(),
            "optimizer": self.updater.optimizer.state_dict(),
            "scale": self.updater.scale.state_dict(),
            "health": self.health.state_dict(),
            "pace": self.pace.state_dict(),
            "broken": self.broken.state_dict(),
            "unlabeled": self._unlabeled_files(),
            "best": self.best,
            "averages": dict(self.averages),
            "seconds": self._seconds_so_far(),
            "versions": versions(),
            "sources": self.sources,
        }

    def _restore(self, checkpoint: Path, state: dict[str, Any]) -> None:
        self._read(checkpoint, state, self._take_over)
        best = checkpoint.with_name(BEST)
        if is_checkpoint(best):
            self._read(best, load_state(best), self._take_over_best)

    def _read(self, checkpoint: Path, state: dict[str, Any], take_over: Callable[[dict[str, Any]], None]) -> None:
        try:
            self.origin.refuse_other(state["origin"], checkpoint)
            take_over(state)
        except KeyError as error:
            raise incomplete(checkpoint, error) from error
        except (RuntimeError, ValueError) as error:
            raise unfitting(checkpoint, error) from error

    def _take_over_best(self, state: dict[str, Any]) -> None:
        """What the run's best checkpoint holds is the best so far; the one that is gone on from may not know it."""
        self.best, self.best_step = state["best"], state["step"]

    def _take_over(self, state: dict[str, Any]) -> None:
        self.method.load_state_dict(state["method"])
        self.updater.optimizer.load_state_dict(state["optimizer"])
        self.updater.scale.load_state_dict(state["scale"])
        self.health.load_state_dict(state["health"])
        if "pace" in state:  # in earlier versions a line that was begun started afresh
            self.pace.load_state_dict(state["pace"])
        now = self._unlabeled_files()
        if state["unlabeled"] != now:
            self._warning = (
                f"the unlabeled images are others than before the stop: {state['unlabeled']} then, {now} now"
            )
        self.step, self.seconds = state["step"], state["seconds"]
        self.averages = dict(state.get("averages", {}))  # absent in checkpoints of earlier versions
        self.sources = [*(each for each in state["sources"] if each not in self.sources), *self.sources]
        self._saved_step = self.step

    def _explain(self, outcome: Outcome, numbers: Numbers) -> TrainingError:
        """The error for a step that was not finite; what repeats it is saved."""
        rank, classes = self.processes.rank, len(self.sets.categories)
        path = save_replay(self.run / "replay", outcome, self.method, self.recipe, classes, rank)
        names = self._name_images(outcome, numbers.not_finite)
        again = f", then {self.way_on}" if self._saved_step >= 0 else ""
        return not_finite(outcome.step, numbers, self.updater.scale.enabled, names, path, again)

    def _name_images(self, outcome: Outcome, terms: tuple[str, ...]) -> list[str]:
        """Files of a step, over all processes; of the streams that `terms` are about, if any."""
        streams, names = streams_of(terms), list[str]()
        beside = "" if self.recipe.views.labeled_mosaic is None else " and three beside it"
        for batch in outcome.batches:
            for kind, stream, images, more in (
                ("labeled", batch.labeled, self.sets.labeled, beside),
                ("unlabeled", batch.unlabeled, self.sets.unlabeled, ""),
            ):
                if stream is not None and images is not None and kind in streams:
                    ids = next(iter(stream.views.values())).image_ids.cpu().numpy()
                    names += [images.name(place) + more for place in images.positions(ids).tolist()]
        return [name for part in self.processes.gather(names) for name in part]


def _uses_unlabeled(method: MethodConfig, steps: int, step: int) -> bool:
    return method.uses_unlabeled(Progress(step, steps))

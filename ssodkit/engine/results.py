"""The end of a run: its networks scored, its pictures drawn, its numbers written and shown."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ssodkit.data.files import write_whole
from ssodkit.engine.checkpoint import LAST
from ssodkit.engine.gallery import Gallery
from ssodkit.engine.health import LAST_SHARE, Summary
from ssodkit.engine.metrics import Scores
from ssodkit.engine.session import Session
from ssodkit.engine.tables import class_table, score_table

RESULT = "result.json"


@dataclass(frozen=True)
class RunResult:
    """Where a run's files lie, and what it scored."""

    run: Path
    checkpoint: Path
    """The one that is scored."""
    step: int
    """Finished updates."""
    scores: Mapping[str, Scores]
    """Network -> scores at the recipe's first test threshold; empty where the run was stopped on purpose."""
    result: str | None
    """The network that is the run's result."""
    pictures: Path | None


def conclude(session: Session, gallery: Gallery, evaluates: bool) -> RunResult:
    """Score, draw, write and say what came out; without `evaluates`, only say how to go on."""
    if not evaluates:
        session.log.say(f"stopped after step {session.step}; {session.way_on}")
        return RunResult(session.run, session.run / "checkpoints" / LAST, session.step, {}, None, None)
    checkpoint, scored_step = session.take_result()
    best = f" of step {scored_step}, the best on the validation images," if checkpoint.name != LAST else ""
    networks = " and ".join(session.method.networks())
    session.log.say(f"scoring {networks}{best} on {len(session.sets.test)} test images")
    scores = session.score()
    pseudo_labels = session.health.last() or session.stored
    pictures = gallery.conclude()  # before the result: a run that has one is finished
    facts = {**session.facts(), "checkpoint": checkpoint.name, "scored_step": scored_step}
    result = {**scores, "validation": session.validation_averages(scored_step), "pseudo_labels": pseudo_labels, **facts}
    if session.processes.is_first:
        write_whole(session.run / RESULT, json.dumps(result, indent=2, allow_nan=False) + "\n")
    session.log.record("result", session.step, scores)
    session.log.say(score_table({**result, "step": scored_step}))
    session.log.say(class_table(result))
    if pseudo_labels is not None:
        which = "stored pseudo-labels" if session.stored else f"pseudo-labels of the last {LAST_SHARE:.0%} of the steps"
        session.log.say(_describe(which, pseudo_labels))
    session.log.say(f"run folder   {session.run}\ncheckpoint   {checkpoint}")
    if pictures is not None:
        session.log.say(f"pictures     {pictures}")
    by_network = next(iter(scores["thresholds"].values()))
    return RunResult(session.run, checkpoint, session.step, by_network, scores["result"], pictures)


def _describe(which: str, pseudo_labels: Summary) -> str:
    text = f"{which}: "
    if "precision" in pseudo_labels:
        parts = [f"{name} {_three_digits(pseudo_labels[name])}" for name in ("precision", "recall")]
        text += f"{', '.join(parts)} against the hidden labels; "
    return text + (
        f"{pseudo_labels['boxes_per_image']:.2f} boxes per image, "
        f"labeled images have {pseudo_labels['labeled_boxes_per_image']:.2f}"
    )


def _three_digits(share: float | None) -> str:
    return "-" if share is None else f"{share:.3f}"

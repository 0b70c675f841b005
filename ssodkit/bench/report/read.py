"""A run as a report sees it: from its folder, finished or not, or from the result file that is left of it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml

from ssodkit.bench.report.shapes import is_whole_line, is_whole_result
from ssodkit.bench.results import CellResult, median_speed, peak_memory
from ssodkit.engine.checkpoint import FIRST_STAGE, RECIPE
from ssodkit.engine.gallery import FOLDER, MOMENTS
from ssodkit.engine.logging import METRICS, read_record
from ssodkit.engine.results import RESULT
from ssodkit.errors import TrainingError
from ssodkit.ops.boxes import pairwise_iou
from ssodkit.recipe.read import Mistake, read_yaml_file

GALLERIES = 8
"""The first so many runs that have one are shown with it."""
IMAGES = 16
"""At most, of each of them."""

Record = Mapping[str, Any]
"""A line of `metrics.jsonl` or of `moments.jsonl`, or a file of plain numbers."""


@dataclass(frozen=True)
class RunRecord:
    """All that is shown of a run. What it did not write is empty, which is a normal case."""

    name: str
    """Of this run alone."""
    row: str
    """What it is a repetition of: the row of its suite, or itself."""
    panel: str
    """Runs of one panel are drawn in one figure: a suite's share of labels; empty for runs given one by one."""
    is_baseline: bool
    """Whether others are compared with it: it learns from labeled images only, or its suite says so."""
    is_finished: bool
    recipe: Record
    recipe_text: str
    steps: tuple[Record, ...] = ()
    health: tuple[Record, ...] = ()
    evaluations: tuple[Record, ...] = ()
    """`step`, `set` and `thresholds` of each, and `per_class` and `result` where the run wrote them; the last is the
    result's where the run is finished."""
    result: Record | None = None
    """Where, with what and how long it was trained."""
    images_per_second: float | None = None
    """Median over the log lines."""
    memory_gb: float | None = None
    """Peak."""
    moments: tuple[Record, ...] = ()
    """Of the gallery; each found box has its `iou` with the best true box, of any class."""
    gallery: Path | None = None
    """Where the gallery's images lie."""
    notes: tuple[str, ...] = ()
    """Sentences on what could not be read."""

    @property
    def threshold(self) -> str:
        """The test threshold that counts: the recipe's first."""
        return str(self.recipe["evaluation"]["thresholds"][0])

    @property
    def classes(self) -> tuple[str, ...]:
        """Names by label, where the run wrote them: in its gallery, or, in earlier versions, of pseudo-labels alone."""
        in_gallery = self.moments[-1].get("classes") if self.moments else None
        return tuple(in_gallery or (self.health[-1].get("boxes_per_class") if self.health else None) or ())

    @property
    def per_class(self) -> tuple[int, Record] | None:
        """Step and scores by class of the last evaluation on the test images, of the network that is the result."""
        for evaluation in reversed(self.evaluations):
            if evaluation["set"] == "test" and evaluation.get("per_class"):
                return evaluation["step"], evaluation["per_class"][evaluation["result"]]
        return None

    @property
    def last_step(self) -> int:
        """The last one that it wrote of."""
        return max((line[-1]["step"] for line in (self.steps, self.evaluations) if line), default=0)


def read_run(run: Path, name: str, row: str | None = None, panel: str = "") -> RunRecord:
    """A run folder, without its gallery. Raises TrainingError if it holds no run.

    The recipe is taken as written: an old one is shown though this version could not train it.
    """
    recipe = _read_recipe(run)
    lines, broken = _read_lines(run / METRICS)
    result = _read_result(run / RESULT)
    steps = tuple(line for line in lines if line["kind"] == "step")
    evaluations = [line for line in lines if line["kind"] == "evaluation" and "thresholds" in line]
    notes = [f"{broken} of its log cannot be read."] if broken else []
    if result is not None:
        evaluations.append({**result, "set": "test"})
    elif not lines and (run / FIRST_STAGE).is_dir():
        notes.append(f"It is in its first stage, a run of its own in {FIRST_STAGE}.")
    return RunRecord(
        name=name,
        row=row or name,
        panel=panel,
        is_baseline=learns_from_labels_only(recipe),
        is_finished=result is not None,
        recipe=recipe,
        recipe_text=(run / RECIPE).read_text(encoding="utf-8"),
        steps=steps,
        health=tuple(line for line in lines if line["kind"] == "health"),
        evaluations=tuple(evaluations),
        result=result,
        images_per_second=median_speed(steps),
        memory_gb=peak_memory(steps),
        gallery=run / FOLDER,
        notes=tuple(notes),
    )


def from_result(result: CellResult, name: str, row: str, panel: str) -> RunRecord:
    """What a result file still knows of a run whose folder is gone."""
    facts = result.model_dump(mode="json")
    return RunRecord(
        name=name,
        row=row,
        panel=panel,
        is_baseline=learns_from_labels_only(result.recipe),
        is_finished=True,
        recipe=result.recipe,
        recipe_text=yaml.safe_dump(result.recipe, sort_keys=False, allow_unicode=True),
        health=tuple(facts["health"]),
        evaluations=tuple(facts["evaluations"]),
        result={**facts, "step": result.steps},
        images_per_second=result.images_per_second,
        memory_gb=result.memory_gb,
        notes=("There is no run folder of this name; this is what its result file holds.",),
    )


def with_moments(record: RunRecord, at_most: int) -> RunRecord:
    """The record with the moments of its gallery, of so many images; as it is where there is none."""
    if record.gallery is None:
        return record
    moments, broken = _read_lines(record.gallery / MOMENTS)
    notes = (*record.notes, f"{broken} of its gallery cannot be read.") if broken else record.notes
    seen = tuple(
        {**moment, "images": [_with_ious(image) for image in moment["images"][:at_most]]} for moment in moments
    )
    return replace(record, moments=seen, notes=notes)


def best_ious(boxes: Sequence[Sequence[float]], truth: Sequence[Sequence[float]]) -> list[float]:
    """Of each box the IoU with the true box, of whatever class, that it overlaps most; 0 where there is none."""
    found = torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4)
    if not truth:
        return [0.0] * len(found)
    ious = pairwise_iou(found, torch.tensor(truth, dtype=torch.float64))
    return [round(iou, 4) for iou in ious.amax(dim=1).tolist()]


def learns_from_labels_only(recipe: Record) -> bool:
    """Whether it is what others are compared with."""
    return recipe["method"]["type"] == "supervised" and not recipe["data"]["batch"]["unlabeled"]


def _with_ious(image: Record) -> Record:
    found, truth = image["found"], image["truth"]
    if found is None or truth is None:
        return image
    return {**image, "found": {**found, "iou": best_ious(found["boxes"], truth["boxes"])}}


def _read_recipe(run: Path) -> Record:
    path = run / RECIPE
    if not path.is_file():
        raise TrainingError(f"{run} holds no run: there is no {RECIPE} in it. Give the folder that `ssodkit run` made.")
    mistakes: list[Mistake] = []
    written = read_yaml_file(path, mistakes)
    recipe = written.plain if written is not None and not mistakes else None
    try:
        recipe["evaluation"]["thresholds"][0], recipe["name"], recipe["engine"]["steps"]  # type: ignore[index]
        learns_from_labels_only(recipe)  # type: ignore[arg-type]
    except (TypeError, KeyError, IndexError) as error:
        raise TrainingError(f"{path} is not the recipe of a run: `ssodkit run` wrote another one there.") from error
    return recipe  # type: ignore[return-value]


def _read_result(path: Path) -> Record | None:
    if not path.is_file():
        return None
    try:
        result = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise TrainingError(f"{path} is not what a finished run writes: {error}. Leave this run out.") from error
    if not is_whole_result(result):
        raise TrainingError(f"{path} is not what a finished run writes. Leave this run out.")
    return result


def _read_lines(path: Path) -> tuple[list[Record], str]:
    """The records of a file that a run may be writing, and, for a sentence, how many of its lines are none."""
    lines = path.read_bytes().splitlines() if path.is_file() else []
    read = [read_record(line) for line in lines if line.strip()]
    records: list[Record] = [record for record in read if record is not None and is_whole_line(record)]
    broken = len(read) - len(records)
    return records, "" if not broken else f"{broken} line{'s' if broken > 1 else ''}"

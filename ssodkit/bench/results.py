"""Result files: what one training of a suite came to, with all that is needed to judge it and to make it again.

A file is written from a finished run folder alone, and never changed. It is found by the hash of its recipe, so that
suites share cells, and a cell whose recipe changed is missing again.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_core import from_json

from ssodkit.bench.suite import Cell
from ssodkit.data.files import write_whole
from ssodkit.data.shares import Share
from ssodkit.engine.checkpoint import FIRST_STAGE, read_recipe
from ssodkit.engine.logging import METRICS
from ssodkit.engine.results import RESULT
from ssodkit.errors import RecipeError, TrainingError
from ssodkit.plugins import Config, load_plugins
from ssodkit.recipe.model import Recipe
from ssodkit.recipe.show import Redrawn, recipe_hash

FORMAT = 1
"""Of the files; a change that old files do not satisfy raises it, with a step in `MIGRATIONS`."""
MIGRATIONS: Mapping[int, Any] = {}
"""Format -> what makes a mapping of the next one of it."""

Score = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)] | None
"""A fraction, None where the test images have no such box."""
Scores = dict[str, Score]
"""By metric."""


class Source(Config):
    """The checkout that trained."""

    commit: str | None
    clean: bool | None
    """Whether package and recipes were as committed."""


class LabeledFold(Config, extra="allow"):
    """Which images were labeled."""

    mode: str
    percent: float
    shots: int | None = None
    fold: int
    images: int = Field(ge=0)
    hash: str = Field(min_length=1)


class ClassScore(Config):
    """What a network scored on the test images' boxes of one class, at the test threshold that counts."""

    boxes: int = Field(ge=0)
    AP: Score
    AP50: Score


class Evaluation(Config):
    """What the networks scored after a step."""

    step: int = Field(ge=0)
    set: Literal["test", "validation"]
    thresholds: dict[str, dict[str, Scores]] = Field(min_length=1)
    """Test threshold -> network -> scores."""


class Health(Config):
    """The pseudo-labels between the record before and this step, as the run's health report has them."""

    step: int = Field(ge=0)
    boxes_per_image: float
    labeled_boxes_per_image: float
    precision: float | None = None
    """Against hidden labels; None where there are none, or no pseudo-label."""
    recall: float | None = None


class CellResult(Config):
    """One finished training."""

    format: Literal[1] = 1
    recipe: dict[str, Any]
    """Resolved: what `ssodkit run` trains again."""
    first_stage: dict[str, Any] | None = None
    """The recipe that was trained before it, to label its unlabeled images."""
    recipe_hash: str
    """Of both."""
    fold: LabeledFold
    sources: tuple[Source, ...]
    """Several where the run was continued by another commit."""
    versions: dict[str, str]
    device: str
    processes: int = Field(ge=1)
    precision: str
    seed: int
    seconds: float = Field(ge=0.0)
    """Wall time of the training, evaluations and waiting for data included."""
    images_per_second: float | None
    """See `median_speed`."""
    memory_gb: float | None
    """See `peak_memory`."""
    result: Literal["teacher", "student"]
    """The network that is the run's result."""
    evaluations: tuple[Evaluation, ...] = Field(min_length=1)
    """By step; the last is of the run's result, after its last step, and it is what counts."""
    health: tuple[Health, ...] = ()
    per_class: dict[str, dict[str, ClassScore]] = Field(default_factory=dict)
    """Network -> class -> scores of the last checkpoint; empty in files that were written before they were kept."""

    @field_validator("evaluations")
    @classmethod
    def _last_is_of_the_test_set(cls, evaluations: tuple[Evaluation, ...]) -> tuple[Evaluation, ...]:
        if evaluations[-1].set != "test":
            raise ValueError("the last evaluation is not of the test set")
        return evaluations

    @property
    def steps(self) -> int:
        """Of the training."""
        return self.evaluations[-1].step

    @property
    def threshold(self) -> str:
        """The test threshold that counts: the recipe's first."""
        return str(self.recipe["evaluation"]["thresholds"][0])

    def score(self, metric: str, network: str | None = None, threshold: str | None = None) -> float | None:
        """A score of the last checkpoint, a fraction; by default of the network and at the threshold that count."""
        scores = self.evaluations[-1].thresholds.get(threshold or self.threshold, {})
        return scores.get(network or self.result, {}).get(metric)

    def brief(self) -> "CellResult":
        """What a table shows of it: without the recipe, earlier evaluations and health."""
        return self.model_copy(
            update={"recipe": {}, "first_stage": None, "evaluations": self.evaluations[-1:], "health": ()}
        )


@dataclass(frozen=True)
class Found:
    """The result files of a folder."""

    results: Mapping[str, CellResult]
    """By the hash of the recipe as it is understood today."""
    refused: tuple[str, ...]
    """A sentence for each file that is not a result, or not of its recipe."""

    def of(self, cells: Iterable[Cell]) -> dict[str, CellResult]:
        """Hash -> result, of those cells that have one."""
        return {cell.hash: self.results[cell.hash] for cell in cells if cell.hash in self.results}


def collect(run: Path) -> CellResult:
    """The result of a finished run. Raises TrainingError where the folder holds none."""
    recipe = read_recipe(run)
    first = read_recipe(run / FIRST_STAGE) if (run / FIRST_STAGE).is_dir() else None
    try:
        result = json.loads((run / RESULT).read_text(encoding="utf-8"))
        records = [json.loads(line) for line in (run / METRICS).read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise TrainingError(f"{run} is no finished run: {error}") from error
    try:
        steps = [record for record in records if record["kind"] == "step"]
        evaluations = [
            {"step": record["step"], "set": record["set"], "thresholds": record["thresholds"]}
            for record in records
            if record["kind"] == "evaluation"
        ]
        return CellResult(
            recipe=recipe.model_dump(mode="json"),
            first_stage=None if first is None else first.model_dump(mode="json"),
            recipe_hash=recipe_hash(recipe, first),
            evaluations=[*evaluations, {"step": result["step"], "set": "test", "thresholds": result["thresholds"]}],
            health=[
                {name: record.get(name) for name in Health.model_fields}
                for record in records
                if record["kind"] == "health"
            ],
            images_per_second=median_speed(steps),
            memory_gb=peak_memory(steps),
            per_class=result.get("per_class", {}),
            **{name: result[name] for name in _TAKEN_OVER},
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise TrainingError(
            f"{run / RESULT} or {METRICS} beside it is not what a run of this version writes: {_first_line(error)}"
        ) from error


_TAKEN_OVER = ("fold", "sources", "versions", "device", "processes", "precision", "seed", "seconds", "result")


def median_speed(steps: Sequence[Mapping[str, Any]]) -> float | None:
    """Images per second over the log lines of training; None where there is none."""
    return median(step["images_per_second"] for step in steps) if steps else None


def peak_memory(steps: Sequence[Mapping[str, Any]]) -> float | None:
    """Of a GPU's tensors, or of the process on a CPU, in GB; None where no log line says it."""
    return max((step["memory_gb"] for step in steps), default=None)


def write_result(result: CellResult, path: Path) -> None:
    """Write the file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(result.model_dump(mode="json"), indent=1, allow_nan=False) + "\n")


def read_result(path: Path) -> CellResult:
    """One file. Raises TrainingError, with a sentence that names it, if it is not the result of the recipe in it."""
    try:
        content = from_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path} cannot be read as JSON: {error}. Delete it, and it is made again.") from error
    if not isinstance(content, dict) or not isinstance(content.get("format"), int):
        raise TrainingError(f"{path} is no result file: it names no format. Move it elsewhere.")
    if content["format"] > FORMAT:
        raise TrainingError(
            f"{path} was written by a newer ssodkit (format {content['format']}, this one knows up to {FORMAT}). "
            "Update ssodkit, or move the file elsewhere."
        )
    while content["format"] < FORMAT:
        if content["format"] not in MIGRATIONS:
            raise TrainingError(
                f"{path} has the format {content['format']}, which no ssodkit wrote. Move it elsewhere."
            )
        content = MIGRATIONS[content["format"]](content)
    try:
        return CellResult.model_validate(content)
    except ValidationError as error:
        raise TrainingError(f"{path} is no result file: {_first_line(error)}. Move it elsewhere.") from error


def read_results(folder: Path, wanted: Iterable[Cell] | None = None, brief: bool = False) -> Found:
    """All results in a folder; what cannot be read is listed, and does no harm to the others.

    With `wanted`, only files that bear the name of one of these cells' recipes are opened. A file is known by its
    recipe: where fields with defaults were added since, it is still the same recipe. With `brief`, results are without
    their recipes and what happened on the way, so that thousands fit into memory.
    """
    load_plugins()
    wanted = None if wanted is None else tuple(wanted)
    names = None if wanted is None else {cell.recipe.name for cell in wanted}
    hashes = {cell.hash for cell in wanted or ()}
    results: dict[str, CellResult] = {}
    refused = []
    understood: dict[str, Redrawn] = {}
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        if names is not None and not any(path.name.startswith(f"{name}-") for name in names):
            continue
        try:
            result = read_named(path)
            is_known = result.recipe_hash in hashes  # then nothing was added to recipes since, and it need not be read
            found = result.recipe_hash if is_known else _hash_today(result, path, understood)
            results.setdefault(found, result.brief() if brief else result)
        except TrainingError as error:
            refused.append(str(error))
    return Found(results, tuple(refused))


def hash_in(name: str) -> str:
    """The hash of the recipe at the end of a cell's name."""
    return name.rpartition("-")[2]


def read_named(path: Path) -> CellResult:
    """One file that is called like its recipe. Raises TrainingError, with a sentence that names it, if it is none."""
    result = read_result(path)
    if hash_in(path.stem) != result.recipe_hash:
        raise TrainingError(
            f"{path} holds the result of the recipe {result.recipe_hash}, which is not what its name says. "
            "Give it back its name, or move it elsewhere."
        )
    _refuse_other_recipe(result, path)
    return result


def _refuse_other_recipe(result: CellResult, path: Path) -> None:
    """Raise TrainingError where the recipe in a file is not the one that its fold, seed and length are of."""
    recipe = result.recipe
    try:
        pairs = [
            ("percent", result.fold.percent, recipe["data"]["percent"]),
            ("shots", result.fold.shots, recipe["data"].get("shots")),
            ("fold", result.fold.fold, recipe["data"]["fold"]),
            ("seed", result.seed, recipe["seed"]),
            *([] if recipe["engine"].get("patience") else [("length", result.steps, recipe["engine"]["steps"])]),
        ]
        thresholds = recipe["evaluation"]["thresholds"]
        if not isinstance(thresholds, list) or not thresholds:
            raise TypeError("evaluation.thresholds is no list of numbers")
        recipe["name"], recipe["method"]["type"], recipe["data"]["batch"]["unlabeled"]
    except (KeyError, TypeError) as error:
        raise TrainingError(f"{path} holds no whole recipe: {_first_line(error)}. Move it elsewhere.") from error
    wrong = [f"{name} {theirs} instead of {ours}" for name, ours, theirs in pairs if ours != theirs]
    if wrong:
        raise TrainingError(f"{path} is not the result of the recipe in it: {', '.join(wrong)}. Move it elsewhere.")


def _hash_today(result: CellResult, path: Path, understood: dict[str, Redrawn]) -> str:
    """Of the recipe as this version understands it; `understood` grows. Raises TrainingError if it does not."""
    try:
        data = result.recipe["data"]
        share = Share(float(data["percent"]), data.get("shots"))
        draw = share, int(data["fold"]), int(result.recipe["seed"])
        plain = {**result.recipe, "seed": 0, "data": {**data, **Share()._asdict(), "fold": 1}}
        # Of a first stage nothing counts that depends on the draw, which makes one key of all.
        stage = result.first_stage and {**result.first_stage, "seed": 0, "data": result.first_stage["data"]["batch"]}
        key = json.dumps([plain, stage], sort_keys=True)
        if key not in understood:
            first = None if result.first_stage is None else Recipe.model_validate(result.first_stage)
            understood[key] = Redrawn(Recipe.model_validate(plain), first)
    except (KeyError, TypeError, ValueError, RecipeError) as error:
        raise TrainingError(
            f"{path} is of a recipe that this version does not understand: {_first_line(error)}. Move it elsewhere."
        ) from error
    return understood[key].at(*draw)[1]


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return f"it has no {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]

"""The rules of a comparison: what a table's numbers must have in common, and refusal where they do not.

The last checkpoint counts, of one network at one test threshold, on one test set; methods learn from the same labels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ssodkit.bench.results import CellResult
from ssodkit.bench.suite import Cell
from ssodkit.data.shares import Share
from ssodkit.engine.metrics import COCO_NAMES
from ssodkit.engine.tables import COLUMNS
from ssodkit.errors import RecipeError, TrainingError
from ssodkit.recipe.fit import walk
from ssodkit.recipe.model import Recipe
from ssodkit.teachers.base import TeacherConfig

Done = Sequence[tuple[Cell, CellResult]]


@dataclass(frozen=True)
class Scored:
    """What the numbers of a table are."""

    metric: str
    network: str
    """Where a training has one network alone, that one is scored."""
    threshold: str
    """Test score threshold, as result files write it."""

    def network_of(self, result: CellResult) -> str:
        """The network of a training that is scored."""
        networks = self._scores(result)
        return self.network if self.network in networks or len(networks) != 1 else next(iter(networks))

    def points(self, result: CellResult) -> float | None:
        """The score of the last checkpoint in points, from 0 to 100; None where the test images have no such box."""
        fraction = self._scores(result)[self.network_of(result)][self.metric]
        return None if fraction is None else 100.0 * fraction

    def _scores(self, result: CellResult) -> Mapping[str, Mapping[str, float | None]]:
        return result.evaluations[-1].thresholds[self.threshold]


def choose_scored(
    cells: Sequence[Cell], done: Done, metric: str, network: str | None = None, threshold: float | None = None
) -> Scored:
    """What to show: by default the network and the test threshold that the recipes call their result.

    Raises RecipeError where a metric, network or threshold does not exist, or the recipes do not agree on them, and
    TrainingError where a result lacks it.
    """
    scored = Scored(metric, _choose_network(cells, network), _choose_threshold(cells, threshold))
    known = list(dict.fromkeys(name for _, result in done for name in _names(result)) or [*COCO_NAMES, *COLUMNS])
    if metric not in known:
        raise RecipeError(f"there is no metric '{metric}' here; one of: {', '.join(dict.fromkeys(known))}")
    for cell, result in done:
        networks = result.evaluations[-1].thresholds.get(scored.threshold)
        if networks is None:
            raise TrainingError(f"{cell.name} has no scores at the test threshold {scored.threshold}. {CURE}")
        if scored.network not in networks and len(networks) != 1:
            raise TrainingError(f"{cell.name} has no {scored.network}; its networks: {', '.join(networks)}. {CURE}")
        if any(metric not in scores for scores in networks.values()):
            raise TrainingError(f"{cell.name} was not scored by '{metric}'. {CURE}")
    return scored


CURE = "Delete its result file and its folder among the runs, and its cell runs again."


def _names(result: CellResult) -> list[str]:
    networks = result.evaluations[-1].thresholds.values()
    return [name for scores in networks for one in scores.values() for name in one]


def _choose_network(cells: Sequence[Cell], asked: str | None) -> str:
    first: dict[str, Cell] = {}
    for cell in cells:
        if asked is None and _has_teacher(cell.recipe):
            first.setdefault(cell.recipe.evaluation.result, cell)
    if len(first) > 1:
        one, other = list(first)
        raise RecipeError(
            f"the result of '{first[one].method}' is its {one}, that of '{first[other].method}' its {other}, and a "
            "column shows one kind; give --network, or set evaluation.result in the suite"
        )
    if asked == "teacher" and not any(_has_teacher(cell.recipe) for cell in cells):
        raise RecipeError("no method of this suite has a teacher; give --network student, or leave it out")
    return asked or next(iter(first), "student")


def _has_teacher(recipe: Recipe) -> bool:
    return any(isinstance(part, TeacherConfig) for _, part in walk(recipe.method))


def _choose_threshold(cells: Sequence[Cell], asked: float | None) -> str:
    first: dict[float, Cell] = {}
    for cell in cells:
        known = cell.recipe.evaluation.thresholds
        if asked is None:
            first.setdefault(known[0], cell)
        elif asked not in known:
            names = ", ".join(map(str, known))
            raise RecipeError(f"'{cell.method}' is not tested at the threshold {asked}; its thresholds: {names}")
    if len(first) > 1:
        one, other = list(first)[:2]
        raise RecipeError(
            f"the result of '{first[one].method}' is at the test threshold {one}, that of '{first[other].method}' at "
            f"{other}, and a column shows one; give --threshold, or set evaluation.thresholds in the suite"
        )
    return str(next(iter(first), asked))


def check_labels(cell: Cell, baseline: Cell) -> None:
    """Raise RecipeError where a row and its baseline learn from different shares of labels, or from other folds."""
    for name, ours, theirs, cure in (
        ("", cell.share, baseline.share, "`percents` or `shots`"),
        ("fold ", cell.fold, baseline.fold, "`folds`"),
    ):
        if ours != theirs:
            raise RecipeError(
                f"'{cell.method}' learns from {name}{ours}, its baseline '{baseline.method}' from {name}{theirs}, "
                f"and a gain compares equal labels; say {cure} in the suite"
            )


def check_protocol(cells: Sequence[Cell], done: Done) -> None:
    """Raise RecipeError where cells learn from or are tested on different images, and TrainingError where results do
    not compare."""
    for cell in cells:
        if cell.recipe.data.test != cells[0].recipe.data.test:
            raise RecipeError(
                f"'{cells[0].method}' and '{cell.method}' are tested on different images, and cannot share a table; "
                "set data.test in the suite"
            )
    drawn: dict[tuple[Share, int], Cell] = {}
    for cell in cells:
        other = drawn.setdefault((cell.share, cell.fold), cell)
        if _images_of(cell) != _images_of(other):
            raise RecipeError(
                f"'{other.method}' and '{cell.method}' learn from different labeled images, and cannot share a table; "
                "set data.train and data.folds in the suite"
            )
    first: dict[tuple[Share, int], tuple[Cell, CellResult]] = {}
    for cell, result in done:
        if result.steps != cell.recipe.engine.steps and cell.recipe.engine.patience is None:
            raise TrainingError(
                f"{cell.name} was scored after step {result.steps} of {cell.recipe.engine.steps}, and the last "
                f"checkpoint is what counts. {CURE}"
            )
        earlier, theirs = first.setdefault((cell.share, cell.fold), (cell, result))
        if theirs.fold.hash != result.fold.hash:
            raise TrainingError(
                f"{earlier.name} and {cell.name} were trained on different labeled images, although both are fold "
                f"{cell.fold} of {cell.share} (hashes {theirs.fold.hash} and {result.fold.hash}), so they "
                "cannot be compared. Delete the result file of the wrong one and its folder among the runs, and its "
                "cell runs again."
            )


def _images_of(cell: Cell) -> tuple[object, object]:
    """What says which images are labeled, beside share and fold."""
    data = cell.recipe.data
    return data.train, data.folds if cell.share.percent < 100.0 else None

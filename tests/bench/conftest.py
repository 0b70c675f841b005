"""What the benchmark is tested with: one run that really trained, and results that are made by hand."""

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from ssodkit.bench.published import Published
from ssodkit.bench.results import CellResult
from ssodkit.bench.suite import Cell, Suite, cells_of
from ssodkit.bench.table import Table, load_table, make_table
from ssodkit.engine.train import train
from ssodkit.recipe.check import load_recipe

WATCHED = (
    "data.train.images=20",
    "data.test.images=4",
    "data.percent=20",
    "data.batch.labeled=2",
    "data.batch.unlabeled=2",
    "engine.steps=4",
    "engine.evaluate_every=2",
    "engine.workers=0",
    "watch.log_every=1",
    "watch.health_every=2",
    "watch.pictures=0",
    "watch.gallery.images=3",
    "watch.gallery.moments=2",
    "method.selector.objectness.above=0.08",
    "method.selector.classes.above=0.08",
    "method.selector.boxes.below=1.0",
    "method.scorers.0.asks.above=0.08",
    "method.unlabeled_weight=2.0",
)

MakeResult = Callable[..., CellResult]


@pytest.fixture(scope="session")
def watched() -> tuple[str, ...]:
    """What makes a small run of `soft_teacher`, in which everything that a run reports happens."""
    return WATCHED


@pytest.fixture(scope="session")
def watched_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of `soft_teacher`: 4 steps, scored and looked at after steps 2 and 4."""
    run = tmp_path_factory.mktemp("runs") / "watched"
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("SSODKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        train(load_recipe("soft_teacher", WATCHED), out=run, device="cpu")
    return run


@pytest.fixture
def make_result() -> MakeResult:
    """A cell, its AP in points, changes -> a result as a run of the cell would leave it. AP50 is 20 points more."""
    return result_of


def result_of(cell: Cell, points: float, **changes: Any) -> CellResult:
    """As `make_result` says; the student is 1 point below its teacher, and at the threshold 0.001 both are 1 above."""

    def scores(value: float) -> Mapping[str, float | None]:
        return {"AP": value / 100, "AP50": (value + 20) / 100, "AP_L": None}

    networks = {"student": scores(points - 1), "teacher": scores(points)}
    lower = {"student": scores(points), "teacher": scores(points + 1)}
    result: dict[str, Any] = {
        "recipe": cell.recipe.model_dump(mode="json"),
        "recipe_hash": cell.hash,
        "fold": {
            "mode": "soft_teacher",
            **cell.share._asdict(),
            "fold": cell.fold,
            "hash": f"{cell.share.slug}-{cell.fold}",
            "images": 50,
        },
        "sources": [{"commit": "0123456789abcdef", "clean": True}],
        "versions": {"ssodkit": "0.9", "torch": "2.15"},
        "device": "cpu, 2 threads",
        "processes": 1,
        "precision": "fp32",
        "seed": cell.seed,
        "seconds": 100.0,
        "images_per_second": 50.0,
        "memory_gb": 1.5,
        "result": "teacher",
        "evaluations": [
            {"step": cell.recipe.engine.steps, "set": "test", "thresholds": {"0.05": networks, "0.001": lower}}
        ],
    }
    return CellResult.model_validate({**result, **changes})


MakeTable = Callable[..., Table]


@pytest.fixture(scope="session")
def write_suite(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Changes of the keys -> the file of a suite: supervised and Soft Teacher, 5 % of the labels, two folds."""

    def write(**changes: Any) -> Path:
        suite = {
            "name": "mine",
            "about": "Two methods on the embedded data.",
            "percents": [5],
            "folds": [1, 2],
            "methods": [
                {"recipe": "supervised", "title": "Supervised"},
                {"recipe": "soft_teacher", "title": "Soft Teacher", "baseline": "supervised"},
            ],
        }
        path = tmp_path_factory.mktemp("suite") / "mine.yaml"
        path.write_text(json.dumps({key: value for key, value in {**suite, **changes}.items() if value is not None}))
        return path

    return write


@pytest.fixture(scope="session")
def shipped_cells() -> Callable[[str], tuple[Suite, tuple[Cell, ...]]]:
    """The name of a shipped suite -> what `cells_of` reads, once."""
    return cache(cells_of)


@pytest.fixture(scope="session")
def shipped_table(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Table, tuple[str, ...]]]:
    """The name of a shipped suite -> what `load_table` makes of it where nothing is trained, once."""
    nothing = tmp_path_factory.mktemp("results")
    return cache(lambda name: load_table(name, nothing))


Points = Mapping[str, list[float | None]]


@pytest.fixture
def make_results() -> Callable[..., dict[str, CellResult]]:
    """Cells, method -> AP in points of its cells in their order, None where one is not done -> hash -> result."""

    def make(cells: tuple[Cell, ...], points: Points, **changes: Any) -> dict[str, CellResult]:
        found = {}
        for method, values in points.items():
            mine = [cell for cell in cells if cell.method == method]
            for cell, value in zip(mine, values, strict=True):
                if value is not None:
                    found[cell.hash] = result_of(cell, value, **changes)
        return found

    return make


@pytest.fixture
def make_tables(write_suite: Callable[..., Path], make_results: Callable[..., dict[str, CellResult]]) -> MakeTable:
    """Points of the methods, changes of the suite, options of the table -> the table."""

    def make(points: Points, numbers: tuple[Published, ...] = (), options: Any = None, **changes: Any) -> Table:
        suite, cells = cells_of(write_suite(**changes))
        return make_table(suite, cells, make_results(cells, points), numbers, **(options or {}))

    return make

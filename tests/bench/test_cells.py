"""The cells of a suite: which recipes they have, and what reading them costs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ssodkit.bench.suite import cells_of, choose
from ssodkit.data.shares import Share
from ssodkit.errors import RecipeError
from ssodkit.recipe.check import first_stage, load_recipe
from ssodkit.recipe.show import recipe_hash

METHODS = [
    {"recipe": "supervised", "set": {"engine.steps": 400}},
    {"recipe": "stac", "baseline": "supervised"},
]
MINE = {"set": {"data.test.images": 10}, "methods": METHODS, "percents": None, "folds": None}

Write = Callable[..., Path]


@pytest.fixture
def write(write_suite: Write) -> Write:
    """Changes of the keys -> the file of a suite of these two methods."""
    return lambda **changes: write_suite(**{**MINE, **changes})


def test_cells_of__have_the_recipes_that_would_have_been_read_one_by_one(write: Write):
    _, cells = cells_of(write(percents=[1, 2.5], folds=[2, 1], seeds=[0, 9]))
    assert len(cells) == 2 * 2 * 2 * 2
    for cell in cells[1:16:2]:
        steps = ["engine.steps=400"] if cell.method == "supervised" else []
        draw = [f"data.percent={cell.share.percent}", f"data.fold={cell.fold}", f"seed={cell.seed}"]
        recipe = load_recipe(cell.method, ["data.test.images=10", *steps, *draw])
        assert (cell.recipe, cell.hash) == (recipe, recipe_hash(recipe, first_stage(recipe)))


def test_cells_of__shots_take_the_place_of_the_recipes_own_share(write: Write):
    _, cells = cells_of(write(percents=[1], shots=[5, 10], methods=[{"recipe": "stac"}]))
    assert [cell.recipe.data.share for cell in cells] == [Share(1.0), Share(shots=5), Share(shots=10)]
    recipe = load_recipe("stac", ["data.test.images=10", "data.percent=100", "data.shots=10"])
    assert (cells[2].recipe, cells[2].hash) == (recipe, recipe_hash(recipe, first_stage(recipe)))
    assert cells[2].name == f"stac-10shots-fold1-seed0-{cells[2].hash}"
    assert choose(cells, ["shots=10"]) == cells[2:]
    assert choose(cells, ["percent=1"]) == cells[:1]
    with pytest.raises(RecipeError, match="no cell has this shots; shots is one of: 5, 10"):
        choose(cells, ["shots=7"])
    with pytest.raises(RecipeError, match="no cell has this shots; the suite says otherwise how many are labeled"):
        choose(cells[:1], ["shots=7"])


def test_cells_of__run_fold_by_fold_and_folds_have_seeds_of_their_own(write: Write):
    _, cells = cells_of(write(percents=[2.5], folds=[1, 2]))
    drawn = [(cell.method, cell.fold, cell.seed) for cell in cells]
    assert drawn == [("supervised", 1, 0), ("stac", 1, 0), ("supervised", 2, 1), ("stac", 2, 1)]


def test_cells_of__without_shares_and_folds_take_the_recipes_own(write: Write):
    _, cells = cells_of(write())
    assert [(cell.share, cell.fold, cell.seed) for cell in cells] == [(Share(2.5), 1, 0)] * 2


def test_cells_of__recipes_are_read_once_per_row_and_not_per_cell(write: Write, monkeypatch: pytest.MonkeyPatch):
    parsed = []
    compose = yaml.compose

    def count(*arguments: Any, **named: Any) -> Any:
        parsed.append(arguments)
        return compose(*arguments, **named)

    monkeypatch.setattr(yaml, "compose", count)
    costs = []
    for percents, folds in (([1], [1]), ([1, 2], list(range(1, 51)))):
        parsed.clear()
        _, cells = cells_of(write(percents=percents, folds=folds))
        assert len(cells) == 2 * len(percents) * len(folds)
        costs.append(len(parsed))
    assert costs[0] > 2
    assert costs[1] == costs[0]


def test_cells_of__a_mistake_in_a_rows_recipe_names_the_row(write: Write):
    path = write(methods=[*METHODS, {"recipe": "mean_teacher", "set": {"engine.stepps": 3}}])
    with pytest.raises(RecipeError, match=r"methods\.2 \(mean_teacher\): .*engine\.stepps: unknown key"):
        cells_of(path)


def test_cells_of__two_rows_of_the_same_training_are_refused(write: Write):
    path = write(methods=[*METHODS, {"recipe": "stac", "name": "twin"}])
    with pytest.raises(RecipeError, match="the rows 'stac' and 'twin' are the same training"):
        cells_of(path)


def test_cells__of_two_stages_are_others_when_the_first_stages_recipe_changes(tmp_path: Path):
    """And only then: neither their draws, nor a recipe of one stage."""

    def hashes(steps: int) -> dict[str, list[str]]:
        (tmp_path / "first.yaml").write_text(f"extends: supervised\nname: first\nengine: {{steps: {steps}}}\n")
        (tmp_path / "two.yaml").write_text("extends: stac\nname: two\ndata: {unlabeled: {made_by: first.yaml}}\n")
        suite = tmp_path / "mine.yaml"
        suite.write_text(
            "name: mine\nabout: Two stages.\nfolds: [1, 2]\nmethods: [{recipe: two.yaml}, {recipe: supervised}]\n"
        )
        cells = cells_of(suite)[1]
        for cell in cells:
            assert cell.hash == recipe_hash(cell.recipe, first_stage(cell.recipe))
        return {name: [cell.hash for cell in cells if cell.method == name] for name in ("two", "supervised")}

    before, after = hashes(3), hashes(4)
    assert before["supervised"] == after["supervised"]
    assert not set(before["two"]) & set(after["two"])
    assert hashes(3) == before

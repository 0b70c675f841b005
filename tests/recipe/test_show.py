"""The resolved recipe as text: read back equal, compared by a hash, and shown with where each value comes from."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from ssodkit.data.shares import Share
from ssodkit.recipe.check import load_recipe, load_with_places
from ssodkit.recipe.model import Recipe
from ssodkit.recipe.show import COMMENT_COLUMN, Redrawn, dump_recipe, recipe_hash, show_recipe

Load = Callable[..., Recipe]


def test_dump_recipe__is_read_back_equal_from_another_folder(
    load_changed: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    recipe = load_changed("unlabeled_weight: 4.0", "unlabeled_weight: {type: step, before: 0, after: 4, at: 33 %}")
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.yaml").write_text(dump_recipe(recipe))
    monkeypatch.chdir("/")
    again = load_recipe(run / "recipe.yaml")
    assert again == recipe
    assert dump_recipe(again) == dump_recipe(recipe)


@pytest.mark.parametrize(
    "name", ["1e-4", "5", "null", "true", "a: b", "x # y", "two\nlines", "größe", " ", "-.inf", "on"]
)
def test_dump_recipe__text_that_looks_like_something_else_stays_text(load_changed: Load, tmp_path: Path, name: str):
    recipe = load_changed()
    named = recipe.model_copy(update={"views": recipe.views.model_copy(update={"labeled": {name: recipe.views.test}})})
    path = tmp_path / "again.yaml"
    path.write_text(dump_recipe(named))
    assert load_recipe(path) == named
    assert list(yaml.safe_load(dump_recipe(named))["views"]["labeled"]) == [name]


def test_dump_recipe__infinity_is_read_back(load_changed: Load, tmp_path: Path):
    recipe = load_changed("below: 0.02", "below: .inf")
    assert recipe.method.selector.boxes.below == float("inf")
    path = tmp_path / "again.yaml"
    path.write_text(dump_recipe(recipe))
    assert load_recipe(path) == recipe


def test_recipe_hash__differs_where_a_value_differs(load_changed: Load):
    before = recipe_hash(load_changed())
    assert len(before) == 16
    assert recipe_hash(load_changed()) == before
    assert recipe_hash(load_changed("  strong", "  # a comment\n    strong")) == before
    assert recipe_hash(load_changed(overrides=("engine.steps=101",))) != before
    assert recipe_hash(load_changed(overrides=("method.scorers.1.draws=6",))) != before


def test_recipe_hash__does_not_depend_on_where_plugins_lie(load_changed: Load):
    recipe = load_changed()
    assert recipe_hash(recipe.model_copy(update={"plugins": ("/elsewhere/toy_parts.py",)})) == recipe_hash(recipe)


def shown(path: Path, *overrides: str) -> dict[str, str]:
    """Each line of the shown recipe, without indent, and its comment."""
    lines = show_recipe(*load_with_places(path, overrides)).splitlines()
    return {line.partition("  #")[0].strip(): line.partition("  # ")[2] for line in lines}


def test_show_recipe__each_value_has_its_origin(toy: Path, monkeypatch: pytest.MonkeyPatch):
    mine = toy.with_name("mine.yaml")
    mine.write_text("extends: toy.yaml\nname: mine")
    monkeypatch.chdir(toy.parent)
    lines = shown(mine, "engine.steps=99")
    assert lines["name: mine"] == "mine.yaml:2:7"
    assert lines["percent: 2.5"] == "toy.yaml:6:12"
    assert lines["steps: 99"] == "--set engine.steps=99"
    assert lines["precision: fp32"] == "default"
    assert lines["drops: [60, 80 %, never]"] == "toy.yaml:41:57"
    assert lines["engine:"] == ""


def test_show_recipe__what_a_short_form_stands_for_has_its_place(toy: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(toy.parent)
    lines = show_recipe(*load_with_places(toy)).splitlines()
    weight = lines.index("  unlabeled_weight:")
    assert [line.partition("# ")[2] for line in lines[weight + 1 : weight + 3]] == ["toy.yaml:30:21", "toy.yaml:30:21"]
    weak = lines.index("    weak:")
    assert [line.partition("# ")[2] for line in lines[weak + 1 : weak + 3]] == ["toy.yaml:9:19", "default"]


def test_show_recipe__is_the_dumped_recipe_with_comments(toy: Path):
    recipe, tree = load_with_places(toy)
    text = show_recipe(recipe, tree)
    assert yaml.safe_load(text) == yaml.safe_load(dump_recipe(recipe))
    assert {line.index("#") for line in text.splitlines() if "#" in line and len(line.partition("#")[0]) < 66} == {
        COMMENT_COLUMN
    }


def test_recipe_hash__does_not_depend_on_where_the_first_stage_lies(tmp_path: Path):
    hashes = []
    for folder in (tmp_path / "one", tmp_path / "other"):
        folder.mkdir()
        (folder / "first.yaml").write_text("extends: supervised\nname: first\n")
        (folder / "mine.yaml").write_text("extends: stac\ndata: {unlabeled: {made_by: first.yaml}}\n")
        recipe = load_recipe(folder / "mine.yaml")
        hashes.append((recipe_hash(recipe), Redrawn(recipe).at(Share(5.0), 2, 1)[1]))
    assert hashes[0] == hashes[1]
    assert hashes[0][0] != recipe_hash(load_recipe("stac"))


@pytest.mark.parametrize("name", ["supervised", "stac", "consistent_teacher", "coco/soft_teacher", "voc/mean_teacher"])
def test_redrawn__is_the_recipe_that_would_have_been_read(name: str):
    again = Redrawn(load_recipe(name, ["data.percent=10", "data.fold=1"]))
    for percent, fold, seed in ((10.0, 1, 0), (2.5, 3, 2), (100.0, 5, 7)):
        read = load_recipe(name, [f"data.percent={percent}", f"data.fold={fold}", f"seed={seed}"])
        assert again.at(Share(percent), fold, seed) == (read, recipe_hash(read))
        assert dump_recipe(again.at(Share(percent), fold, seed)[0]) == dump_recipe(read)

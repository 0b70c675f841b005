"""Loading a recipe as users do: by path, with plug-ins beside it, and without any data."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ssodkit.errors import RecipeError
from ssodkit.recipe.check import load_recipe, load_with_places
from ssodkit.recipe.model import Recipe

Load = Callable[..., Recipe]
Refused = Callable[..., list[str]]


def test_load_recipe__values_overrides_and_defaults(load_changed: Load):
    recipe = load_changed(overrides=("engine.steps=200", "method.scorers.1.draws=3"))
    assert (recipe.engine.steps, recipe.method.scorers[1].draws) == (200, 3)
    assert recipe.engine.lr.value == 0.01
    assert recipe.method.unlabeled_weight.type == "constant"
    assert recipe.data.folds == "stac"


def test_load_recipe__another_recipe_may_extend_it(toy: Path):
    mine = toy.with_name("mine.yaml")
    mine.write_text("extends: toy.yaml\nname: mine\nmethod: {selector: {boxes: {below: 0.05}}}")
    recipe = load_recipe(mine)
    assert (recipe.name, recipe.method.selector.boxes.below) == ("mine", 0.05)


def test_load_recipe__no_file_that_the_data_names_need_exist(load_changed: Load):
    recipe = load_changed(
        "train: {type: digits, part: train}", "train: {type: coco, annotations: nowhere.json, images: nowhere}"
    )
    assert recipe.data.train.annotations == Path("nowhere.json")


def test_load_recipe__a_plugin_is_relative_to_the_file_that_names_it(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "plug_check.py").write_text(
        "from typing import Literal\n"
        "from ssodkit.plugins import register\n"
        "from ssodkit.assigners.selectors.base import SelectorConfig\n"
        "@register\n"
        "class PlugConfig(SelectorConfig):\n"
        "    type: Literal['plug_check'] = 'plug_check'\n"
        "    def build(self, context):\n"
        "        raise NotImplementedError\n"
    )
    toy.write_text(toy.read_text().replace("plugins: [", "plugins: [plug_check.py, "))
    (tmp_path / "deeper").mkdir()
    mine = tmp_path / "deeper" / "mine.yaml"
    mine.write_text("extends: ../toy.yaml\nmethod: {selector: {type: plug_check}}")
    monkeypatch.chdir("/")
    recipe = load_recipe(mine, trust_plugins=True)
    assert recipe.method.selector.type == "plug_check"
    assert recipe.plugins[0] == str(tmp_path / "plug_check.py")


def test_load_recipe__every_plugin_that_cannot_be_imported_is_shown_at_its_place(refused: Refused, toy: Path):
    lines = refused("plugins: [", "plugins: [gone.py, ")
    assert lines == [
        f"2:11 plugins.0: the module '{toy.with_name('gone.py')}' cannot be imported: "
        f"there is no file {toy.with_name('gone.py')}"
    ]
    assert len(refused("plugins: [", "plugins: [gone.py, gone_too, ")) == 2


def test_load_recipe__a_broken_plugin_is_the_cause_of_the_error(toy: Path):
    toy.with_name("plug_bad.py").write_text("x = 1 / 0")
    toy.write_text("plugins: [plug_bad.py]")
    with pytest.raises(RecipeError, match=r"ZeroDivisionError: division by zero \(.*plug_bad.py, line 1\)") as refusal:
        load_recipe(toy, trust_plugins=True)
    assert isinstance(refusal.value.__cause__, RecipeError)
    assert isinstance(refusal.value.__cause__.__cause__, ZeroDivisionError)


def test_load_recipe__plugins_that_are_no_list_are_a_mistake(refused: Refused, toy: Path):
    toy.write_text("plugins: mine.py")
    with pytest.raises(RecipeError, match=r"toy.yaml:1:10 plugins: must be a list, not 'mine.py'"):
        load_recipe(toy)


def test_load_with_places__the_tree_says_where_each_value_was_written(toy: Path):
    recipe, tree = load_with_places(toy, ["seed=3"])
    assert recipe.seed == 3
    assert str(tree.value["seed"].place) == "--set seed=3"
    assert str(tree.value["engine"].value["steps"].place) == f"{toy}:40:10"

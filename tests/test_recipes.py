"""Every shipped recipe is loaded and checked, and editors find its schema."""

import os
from pathlib import Path

import pytest

from ssodkit.recipe.check import load_recipe
from ssodkit.recipe.read import shipped_recipes
from ssodkit.recipe.show import dump_recipe

RECIPES = Path(__file__).parents[1] / "recipes"
FILES = sorted(RECIPES.rglob("*.yaml"))
NAMES = [path.relative_to(RECIPES).with_suffix("").as_posix() for path in FILES if "bases" not in path.parts]
AT_LEAST = 7
EMBEDDED = [name for name in NAMES if "/" not in name]


def test_recipes__are_found():
    assert len(NAMES) >= AT_LEAST
    assert len(EMBEDDED) >= 2
    assert shipped_recipes() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_recipes__every_shipped_recipe_is_right(name: str, tmp_path: Path):
    recipe = load_recipe(name)
    assert load_recipe(RECIPES / f"{name}.yaml") == recipe
    saved = tmp_path / "recipe.yaml"
    saved.write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(saved) == recipe


@pytest.mark.parametrize("steps", [2, 3, 10])
@pytest.mark.parametrize("name", EMBEDDED)
def test_recipes__an_embedded_recipe_runs_for_any_number_of_steps(name: str, steps: int):
    assert load_recipe(name, [f"engine.steps={steps}"]).engine.steps == steps


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(RECIPES).as_posix())
def test_recipes__the_first_line_points_editors_at_the_schema(path: Path):
    schema = Path(os.path.relpath(RECIPES / "recipe.schema.json", path.parent)).as_posix()
    assert path.read_text(encoding="utf-8").splitlines()[0] == f"# yaml-language-server: $schema={schema}"

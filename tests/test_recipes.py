"""Every shipped recipe is loaded and checked, and editors find its schema."""

import os
from pathlib import Path

import pytest
from two_steps import take_two_steps

from ssodkit.methods.pseudo_label import PseudoLabelConfig
from ssodkit.recipe.check import first_stage, load_recipe
from ssodkit.recipe.read import shipped_recipes
from ssodkit.recipe.show import dump_recipe
from ssodkit.structures.progress import Progress

RECIPES = Path(__file__).parents[1] / "recipes"
FILES = sorted(RECIPES.rglob("*.yaml"))
NAMES = [path.relative_to(RECIPES).with_suffix("").as_posix() for path in FILES if "bases" not in path.parts]
AT_LEAST = 27
EMBEDDED = [name for name in NAMES if "/" not in name]


def test_recipes__are_found():
    assert len(NAMES) >= AT_LEAST
    assert len(EMBEDDED) >= 8
    assert shipped_recipes() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_recipes__every_shipped_recipe_is_right(name: str, tmp_path: Path):
    recipe = load_recipe(name)
    assert load_recipe(RECIPES / f"{name}.yaml") == recipe
    saved = tmp_path / "recipe.yaml"
    saved.write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(saved) == recipe


@pytest.mark.parametrize("name", NAMES)
def test_recipes__every_shipped_recipe_takes_two_steps_at_a_tiny_size(name: str):
    recipe = load_recipe(name)
    changes = [] if name in EMBEDDED else ["detector.backbone.name=resnet18", "detector.neck.channels=32"]
    if "roi" in recipe.detector.stages:
        changes += ["detector.roi.width=16"]
    if isinstance(recipe.method, PseudoLabelConfig):  # whatever a new network says is taught
        changes += ["method.teacher.score=0.0", "method.unlabeled_weight=1.0"]
        changes += {
            "fixed": ["method.selector.above=0.0", "method.selector.ignore_from=null"],
            "gmm": [],
            "soft_teacher": [
                "method.selector.objectness.above=0.0",
                "method.selector.classes.above=0.0",
                "method.scorers.0.asks.above=0.0",
                "method.selector.boxes.below=10.0",
            ],
        }[recipe.method.selector.type]
    take_two_steps(load_recipe(name, changes))


@pytest.mark.parametrize("steps", [2, 3, 10])
@pytest.mark.parametrize("name", EMBEDDED)
def test_recipes__an_embedded_recipe_runs_for_any_number_of_steps(name: str, steps: int):
    assert load_recipe(name, [f"engine.steps={steps}"]).engine.steps == steps


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(RECIPES).as_posix())
def test_recipes__the_first_line_points_editors_at_the_schema(path: Path):
    schema = Path(os.path.relpath(RECIPES / "recipe.schema.json", path.parent)).as_posix()
    assert path.read_text(encoding="utf-8").splitlines()[0] == f"# yaml-language-server: $schema={schema}"


def test_recipes__stac_learns_at_the_published_rates_in_both_stages():
    for name, rates in {
        "coco/stac": {0: 0.0033, 500: 0.00665, 1000: 0.01, 119_999: 0.01, 120_000: 0.001, 160_000: 0.0001},
        "coco/supervised_stac": {0: 0.0033, 500: 0.00665, 1000: 0.01, 120_000: 0.001, 179_999: 0.0001},
        "voc/stac": {0: 0.001, 59_999: 0.001, 60_000: 0.0003, 120_000: 0.00009, 159_999: 0.00009},
        "voc/supervised_stac": {0: 0.001, 59_999: 0.001, 60_000: 0.0001, 79_999: 0.0001},
    }.items():
        engine = load_recipe(name).engine
        seen = {step: engine.lr.at(Progress(step, engine.steps)) for step in rates}
        assert seen == pytest.approx(rates), name
        assert engine.lr_for_images == load_recipe(name).data.batch.slots


def test_recipes__both_stages_of_stac_have_one_detector():
    for name in ("stac", "coco/stac", "voc/stac"):
        recipe = load_recipe(name)
        first = first_stage(recipe)
        assert first is not None
        assert first.detector == recipe.detector
        assert first.views.labeled == recipe.views.labeled
        assert first.views.test == recipe.views.test

"""Recipes whose labels another recipe makes: how it is found, what it shares, and what is refused."""

from pathlib import Path

import pytest

from ssodkit.errors import RecipeError
from ssodkit.recipe.check import first_stage, load_recipe
from ssodkit.recipe.show import dump_recipe

SHORT = ("engine.steps=7", "data.percent=10", "data.fold=3", "seed=5", "data.batch.labeled=4", "data.train.images=60")


@pytest.fixture
def refused():
    """The error of the recipe `stac` with overrides."""

    def message(*overrides: str) -> str:
        with pytest.raises(RecipeError) as refusal:
            load_recipe("stac", overrides)
        return str(refusal.value)

    return message


def test_first_stage__is_the_named_recipe_on_the_same_data_percent_fold_and_seed():
    recipe = load_recipe("stac", (*SHORT, "method.loss_scale=1.0"))
    first = first_stage(recipe)
    assert first is not None
    assert (first.name, first.seed, first.engine.steps, first.method.type) == ("supervised", 5, 7, "supervised")
    assert first.data.batch == load_recipe("supervised").data.batch.model_copy(update={"labeled": 4})
    same = {"train", "test", "validation", "percent", "fold", "folds", "labeled"}
    assert first.data.model_dump(include=same) == recipe.data.model_dump(include=same)
    assert first.data.unlabeled == recipe.data.unlabeled.of


def test_first_stage__most_recipes_have_none():
    assert first_stage(load_recipe("supervised")) is None
    stored = ("data.unlabeled.made_by=null", "data.unlabeled.file=labels.json")
    assert first_stage(load_recipe("stac", stored)) is None


def test_load_recipe__the_first_stage_is_found_beside_a_recipe_and_from_any_folder(tmp_path: Path):
    (tmp_path / "base.yaml").write_text("extends: supervised\nname: base\n")
    (tmp_path / "mine.yaml").write_text("extends: stac\nname: mine\ndata: {unlabeled: {made_by: base.yaml}}\n")
    recipe = load_recipe(tmp_path / "mine.yaml")
    assert recipe.data.unlabeled.made_by == str(tmp_path / "base.yaml")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text(dump_recipe(recipe))
    assert load_recipe(tmp_path / "run" / "recipe.yaml") == recipe
    assert first_stage(recipe).name == "base"


def test_load_recipe__a_shipped_first_stage_keeps_its_name_so_that_runs_compare():
    assert load_recipe("stac").data.unlabeled.made_by == "supervised"


def test_load_recipe__overrides_of_what_both_stages_have_reach_the_first():
    recipe = load_recipe("stac", ("engine.steps=7", "method.unlabeled_weight=1.0", "watch.pictures=0"))
    assert recipe.data.unlabeled.made_with == ("engine.steps=7", "watch.pictures=0")
    first = first_stage(recipe)
    assert (first.engine.steps, first.watch.pictures) == (7, 0)


def test_load_recipe__what_a_recipe_sets_for_its_first_stage_comes_before_the_command_line(tmp_path: Path):
    (tmp_path / "mine.yaml").write_text('extends: stac\ndata: {unlabeled: {made_with: ["engine.steps=3"]}}\n')
    assert first_stage(load_recipe(tmp_path / "mine.yaml")).engine.steps == 3
    assert first_stage(load_recipe(tmp_path / "mine.yaml", ["engine.steps=4"])).engine.steps == 4


def test_load_recipe__a_first_stage_that_does_not_exist_is_refused(refused):
    assert refused("data.unlabeled.made_by=supervisd") == (
        "--set data.unlabeled.made_by=supervisd: data.unlabeled.made_by: there is no recipe 'supervisd': no such file, "
        "and none of this name is shipped; did you mean 'supervised'?"
    )


def test_load_recipe__a_first_stage_that_needs_stored_labels_is_refused(refused):
    assert "'stac' learns from stored labels itself" in refused("data.unlabeled.made_by=stac")


def test_load_recipe__a_first_stage_for_other_data_is_refused(refused):
    assert "is a recipe for data of the type 'voc', and this one has 'digits'" in refused(
        "data.unlabeled.made_by=voc/supervised"
    )


def test_load_recipe__a_mistake_in_the_first_stage_is_shown(refused):
    assert "engine.stepps: unknown key; did you mean 'steps'?" in refused("data.unlabeled.made_with=[engine.stepps=3]")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("method.unlabeled_weight=null",), "the method 'supervised', as it is set here, reads no stored labels"),
        (("data.unlabeled={type: rest}",), "learns from the labels of unlabeled images, which this source has none of"),
        (("data.batch.unlabeled=0",), "no step has an unlabeled image, whose stored labels shall teach"),
        (("data.unlabeled.file=labels.json",), "give either `file` or `made_by`"),
    ],
)
def test_check_fit__stored_labels_and_what_learns_from_them_need_each_other(refused, overrides, message):
    assert message in refused(*overrides)


def test_check_fit__stored_labels_need_a_strong_view(tmp_path: Path):
    (tmp_path / "mine.yaml").write_text("extends: stac\n")
    text = dump_recipe(load_recipe("stac")).replace("    strong:\n", "    other:\n")
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(RecipeError, match="stored labels teach in a view `strong` of the unlabeled images"):
        load_recipe(tmp_path / "mine.yaml")


def test_check_fit__another_method_refuses_stored_labels():
    with pytest.raises(RecipeError, match="the method 'pseudo_label', as it is set here, reads no stored labels"):
        load_recipe("soft_teacher", ["data.unlabeled={type: stored, file: labels.json}"])

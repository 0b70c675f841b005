"""What the keys of recipes mean."""

import pytest
from command import Call

from ssodkit.errors import RecipeError
from ssodkit.plugins import load_plugins, members, slots
from ssodkit.recipe.catalog import SECTIONS, describe_slot
from ssodkit.recipe.check import load_with_places
from ssodkit.recipe.explain import explain, in_words
from ssodkit.recipe.model import Recipe


@pytest.fixture(scope="module", autouse=True)
def plugins():
    load_plugins()


def test_explain__says_meaning_type_range_and_default():
    assert explain("engine.images_per_device").splitlines() == [
        "engine.images_per_device",
        "  At most so many images in one forward; the rest of a step is accumulated. Null: no limit.",
        "  part of   How long, how fast, in which precision.",
        "  type      a whole number, at least 1 or null",
        "  default   null",
    ]


def test_explain__without_a_recipe_every_plugin_that_has_the_key_is_explained():
    text = explain("method.unlabeled_weight")
    owners = [line for line in text.splitlines() if line.startswith("method.unlabeled_weight  (of method ")]
    having = [name for name, config in members("method").items() if "unlabeled_weight" in config.fields_by_key()]
    assert [line.split("(of method ")[1].rstrip(")") for line in owners] == having
    assert len(having) > 1


def test_explain__with_a_recipe_its_plugin_its_value_and_where_that_was_written():
    recipe, tree = load_with_places("soft_teacher", ["method.selector.classes.above=0.65"])
    assert "  here      0.65  (--set method.selector.classes.above=0.65)" in explain(
        "method.selector.classes.above", recipe, tree
    )
    text = explain("views.unlabeled.strong.transforms.0", recipe, tree)
    assert "  is        zoom: " in text
    assert "views.unlabeled.strong.transforms.0.factor" in text
    assert explain("seed", recipe, tree).endswith("  here      0  (default)\n")


def test_explain__a_slot_lists_what_it_may_be():
    text = explain("engine.lr")
    for name in members("schedule"):
        assert f"  may be    {name}: " in text
    assert "  may be    yolo: " in explain("data.train")
    assert explain("data.test.annotations").startswith("data.test.annotations  (of coco)\n")


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("engine.stepz", "engine.stepz: there is no 'stepz' in engine; did you mean 'steps'"),
        ("engin", "there is no 'engin' in a recipe; did you mean 'engine'"),
        ("engine.steps.x", "there is no 'x' in engine.steps; engine.steps has no keys"),
        ("", "there is no '' in a recipe"),
    ],
)
def test_explain__a_key_that_does_not_exist_names_the_nearest(path: str, complaint: str):
    with pytest.raises(RecipeError, match=complaint):
        explain(path)


def test_explain__every_key_of_a_shipped_recipe_has_something_to_say():
    recipe, tree = load_with_places("consistent_teacher")

    def walk(value: object, path: str) -> int:
        if isinstance(value, dict):
            return sum(walk(item, f"{path}.{key}" if path else key) for key, item in value.items())
        assert explain(path, recipe, tree).startswith(path)
        return 1

    assert walk(recipe.model_dump(mode="json"), "") > 80


def test_in_words__types_and_bounds():
    assert in_words({"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 1}) == (
        "a list, each a whole number, at least 1, 1 or more of them"
    )
    assert in_words({"enum": ["a", "b"]}) == "one of a, b"
    assert in_words({"anyOf": [{"$ref": "#/x"}, {"type": "null"}]}) == "a mapping of keys or null"


def test_list__describes_the_parts_of_every_recipe(call: Call):
    assert set(SECTIONS) <= set(Recipe.model_fields)
    assert not set(SECTIONS) & set(slots())
    shown = call("list", "data").out
    for head in ("data: Which images", "data.train {type: coco}: ", "data.unlabeled {type: folder}: ", "data.batch: "):
        assert f"\n{head}" in f"\n{shown}"
    assert "views.labeled: One view" in describe_slot("views")
    assert "views.labeled.transforms: any of `ssodkit list transform`" in describe_slot("views")
    assert "engine.optimizer {type: adamw}: AdamW" in describe_slot("engine")
    assert not any("Undefined" in describe_slot(section) for section in SECTIONS)


def test_recipe_explain__is_a_verb(call: Call):
    ended = call("recipe", "explain", "seed", "supervised", "--set", "seed=3")
    assert (ended.code, ended.err) == (0, "")
    assert "  here      3  (--set seed=3)" in ended.out
    assert call("recipe", "explain", "sed").err == "sed: there is no 'sed' in a recipe; did you mean 'seed'?\n"

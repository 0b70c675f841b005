"""The JSON schema that editors use: it takes every shipped recipe, and refuses what the recipe check refuses."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import ssodkit
from ssodkit.recipe.schema import recipe_schema

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "recipes" / "recipe.schema.json"
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))
TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}


@pytest.fixture
def schema() -> Any:
    return json.loads(recipe_schema())


def complaints(value: Any, schema: Any, root: Any) -> Iterator[str]:
    """What a validator says, for the keywords that the schema uses; empty where the value is right."""
    if "$ref" in schema:
        yield from complaints(value, root["$defs"][schema["$ref"].removeprefix("#/$defs/")], root)
    if "anyOf" in schema:
        branches = [list(complaints(value, branch, root)) for branch in schema["anyOf"]]
        if all(branches):
            yield f"{value!r} fits none: {branches}"
    if "type" in schema and not _is_of_type(value, schema["type"]):
        yield f"{value!r} is no {schema['type']}"
        return
    if "const" in schema and value != schema["const"]:
        yield f"{value!r} is not {schema['const']!r}"
    if "enum" in schema and value not in schema["enum"]:
        yield f"{value!r} is none of {schema['enum']}"
    if "pattern" in schema and not re.search(schema["pattern"], value):
        yield f"{value!r} does not match {schema['pattern']}"
    yield from _outside(value, schema)
    if isinstance(value, dict):
        for key, item in value.items():
            if key in schema.get("properties", {}):
                yield from complaints(item, schema["properties"][key], root)
            elif schema.get("additionalProperties") is False:
                yield f"unknown key {key}"
            elif isinstance(schema.get("additionalProperties"), dict):
                yield from complaints(item, schema["additionalProperties"], root)
            yield from complaints(key, schema.get("propertyNames", {}), root)
    if isinstance(value, list):
        for index, item in enumerate(value):
            parts = schema.get("prefixItems", [])
            yield from complaints(item, parts[index] if index < len(parts) else schema.get("items", {}), root)


def _is_of_type(value: Any, kind: str) -> bool:
    if kind in ("number", "integer"):
        return isinstance(value, int if kind == "integer" else int | float) and not isinstance(value, bool)
    return isinstance(value, TYPES[kind])


def _outside(value: Any, schema: Any) -> Iterator[str]:
    if isinstance(value, int | float):
        if value < schema.get("minimum", value) or value > schema.get("maximum", value):
            yield f"{value} is out of range"
        if value <= schema.get("exclusiveMinimum", value - 1) or value >= schema.get("exclusiveMaximum", value + 1):
            yield f"{value} is out of range"


def test_recipe_schema__the_shipped_file_is_up_to_date():
    # Another process: plug-ins that tests registered here must not count.
    environment = os.environ | {"PYTHONPATH": str(Path(ssodkit.__file__).parents[1])}
    command = [sys.executable, "-m", "ssodkit", "recipe", "schema"]
    fresh = subprocess.run(
        command, env=environment, capture_output=True, check=True, text=True, encoding="utf-8"
    ).stdout
    assert SHIPPED.read_text(encoding="utf-8") == fresh, (
        "plug-ins or fields have changed; renew it with `ssodkit recipe schema --out recipes/recipe.schema.json`"
    )


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.relative_to(ROOT / "recipes").as_posix())
def test_recipe_schema__takes_every_shipped_recipe_and_base(schema: Any, path: Path):
    assert list(complaints(yaml.safe_load(path.read_text(encoding="utf-8")) or {}, schema, schema)) == []


def test_recipe_schema__there_are_recipes_to_take():
    assert len(RECIPES) >= 5


@pytest.mark.parametrize(
    "wrong",
    [
        {"stepz": 1},
        {"name": "a b"},
        {"engine": {"steps": 0}},
        {"engine": {"steps": "many"}},
        {"engine": {"lr": {"type": "no_such_schedule"}}},
        {"engine": {"lr": {"type": "constant", "valeu": 1.0}}},
        {"engine": {"optimizer": {"type": "adamw", "momentum": 0.9}}},
        {"data": {"train": {"type": "voc", "annotation": "a"}}},
        {"views": {"labeled": {"weak": [{"type": "no_such_transform"}]}}},
        {"extends": {"a": 1}},
    ],
)
def test_recipe_schema__refuses_what_is_no_recipe(schema: Any, wrong: Any):
    assert list(complaints(wrong, schema, schema))


@pytest.mark.parametrize(
    "partial",
    [
        {},
        {"extends": "soft_teacher", "name": "mine"},
        {"extends": ["a.yaml", "b.yaml"], "engine": {"steps": 5}},
        {"engine": {"lr": 0.01}},
        {"engine": {"lr": {"value": 0.02}}},
        {"data": {"train": {"images": 500}}},
        {"views": {"labeled": {"weak": []}, "unlabeled": {"strong": {"draws_as": "weak"}}}},
    ],
)
def test_recipe_schema__takes_a_recipe_that_states_only_what_differs(schema: Any, partial: Any):
    assert list(complaints(partial, schema, schema)) == []


def test_recipe_schema__every_slot_has_one_definition_that_others_refer_to(schema: Any):
    text = json.dumps(schema)
    references = set(re.findall(r'"#/\$defs/([^"]+)"', text))
    assert references <= set(schema["$defs"])
    assert {"slot:schedule", "slot:detector", "slot:method", "slot:matcher", "slot:transform"} <= references
    assert {"type": "number"} in schema["$defs"]["slot:schedule"]["anyOf"]


def test_recipe_schema__explains_fields_in_the_words_of_their_docstrings(schema: Any):
    assert (
        schema["$defs"]["DataConfig"]["properties"]["percent"]["description"]
        == "Share of `train` whose labels are used."
    )

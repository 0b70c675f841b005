"""The JSON schema of a recipe, which editors use to complete and to explain; every registered plug-in is in it."""

import json
from typing import Any

from pydantic.json_schema import models_json_schema

from ssodkit.plugins import Config, members, slots
from ssodkit.recipe.model import Recipe

EXTENDS = {
    "description": "Recipes to change: paths relative to this file, or names of shipped recipes; the later wins.",
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
}
PLAIN = {"number": 0.0, "array": []}
"""A value of each JSON type, to ask a slot whether a plain value of that type stands for one of its members."""


def recipe_schema() -> str:
    """The schema as JSON text. Plug-ins are loaded by now.

    No key is required anywhere, `type` included: a recipe extends others and states only what differs.
    """
    plugins = [(slot, config) for slot in slots() for config in members(slot).values()]
    models: list[type[Config]] = [Recipe, *(config for _, config in plugins)]
    references, schema = models_json_schema([(model, "validation") for model in models])
    definitions = schema["$defs"]
    for slot in slots():
        choices = [references[config, "validation"] for of, config in plugins if of == slot]
        definitions[f"slot:{slot}"] = {"anyOf": choices + _shorthands(slot)}
    definitions["ViewConfig"] = _or_list_of_transforms(definitions["ViewConfig"])
    definitions["TermChange"] = {"anyOf": [definitions["TermChange"], {"type": "number"}]}
    recipe = definitions.pop(references[Recipe, "validation"]["$ref"].removeprefix("#/$defs/"))
    recipe["properties"] = {"extends": EXTENDS, **recipe["properties"]}
    finished = _finish({"$schema": "https://json-schema.org/draft/2020-12/schema", **recipe, "$defs": definitions})
    return json.dumps(finished, indent=1, ensure_ascii=False) + "\n"


def _shorthands(slot: str) -> list[dict[str, Any]]:
    """Schemas of the plain values that stand for a member of a slot, such as a number for a schedule, or its name."""
    config = next(iter(members(slot).values()))
    names = [name for name in members(slot) if config.from_shorthand(name) is not name]
    kinds = [{"type": kind} for kind, value in PLAIN.items() if config.from_shorthand(value) is not value]
    return kinds + ([{"enum": names}] if names else [])


def _or_list_of_transforms(view: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [view, {"type": "array", "items": view["properties"]["transforms"]["items"]}]}


def _finish(schema: Any) -> Any:
    """What pydantic cannot say: slots refer to their members, and partial mappings are right."""
    if isinstance(schema, list):
        return [_finish(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    finished: dict[str, Any] = {}
    for keyword, value in schema.items():
        match keyword:
            case "required" | "title" | "discriminator":
                continue
            case "slot":
                finished["$ref"] = f"#/$defs/slot:{value}"
            case "oneOf":
                # Without its `type`, a partial mapping may fit several members of a union.
                finished["anyOf"] = _finish(value)
            case "properties" | "$defs":
                finished[keyword] = {name: _finish(item) for name, item in value.items()}
            case "default":
                # JSON knows no infinity.
                finished[keyword] = json.loads(json.dumps(value), parse_constant=str)
            case _:
                finished[keyword] = _finish(value)
    return finished

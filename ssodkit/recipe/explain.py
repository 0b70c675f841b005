"""What a key of a recipe means: its field's docstring, type, range and default, from what the JSON schema is made of.

Where a slot may hold several plug-ins, all that have the key are explained, unless a recipe says which one is meant.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from ssodkit.errors import RecipeError
from ssodkit.plugins import Config, PluginConfig, SlotMarker, members, suggest
from ssodkit.recipe.catalog import default_of, doc_of, one_line
from ssodkit.recipe.model import Recipe
from ssodkit.recipe.read import Written
from ssodkit.recipe.show import origin_of


@dataclass(frozen=True)
class _Found:
    """What stands at a path: the type of its value, and the field whose docstring speaks of it."""

    annotation: Any
    value: Any = None
    """In the recipe that was given; None where there is none."""
    owner: type[Config] | None = None
    field: FieldInfo | None = None
    key: str = ""


def explain(path: str, recipe: Recipe | None = None, tree: Written | None = None) -> str:
    """What `path`, such as `engine.lr`, means. Plug-ins are loaded by now; `tree` says where `recipe` was written.

    Raises RecipeError that names the keys which exist where the path leaves them.
    """
    found = [_Found(Recipe, recipe)]
    for depth, key in enumerate(keys := path.split(".")):
        inner = [each for one in found for each in _below(one, key)]
        if not inner:
            before, known = ".".join(keys[:depth]), list(dict.fromkeys(name for one in found for name in _names(one)))
            where = f"in {before}" if before else "in a recipe"
            cure = suggest(key, known) if known else f"{before} has no keys"
            raise RecipeError(f"{path}: there is no '{key}' {where}; {cure}")
        found = inner
    texts = list(dict.fromkeys(_explained(path, one) for one in found))
    if recipe is not None and tree is not None:
        value = one_line(found[0].value)
        texts = [f"{text}  here      {value}  ({origin_of(tuple(keys), tree)})\n" for text in texts]
    return "\n".join(texts)


def _below(found: _Found, key: str) -> Iterator[_Found]:
    """What a key leads to: a field of a config, an item of a list, or any name in a mapping."""
    for config, value in _configs(found):
        name = config.fields_by_key().get(key)
        if name is not None:
            field = config.model_fields[name]
            yield _Found(_with_metadata(field), getattr(value, name, None), config, field, key)
    for part in _parts(found.annotation):
        origin, arguments = get_origin(part), get_args(part)
        if origin in (dict, Mapping) or (isinstance(origin, type) and issubclass(origin, Mapping)):
            inner = found.value.get(key) if isinstance(found.value, Mapping) else None
            yield _Found(arguments[1], inner, found.owner, found.field, key)
        elif origin in (tuple, list, Sequence) and key.isdigit():
            items, place = found.value, int(key)
            inner = items[place] if isinstance(items, tuple | list) and place < len(items) else None
            yield _Found(arguments[0], inner, found.owner, found.field, key)


def _names(found: _Found) -> list[str]:
    return [key for config, _ in _configs(found) for key in config.fields_by_key()]


def _configs(found: _Found) -> list[tuple[type[Config], Any]]:
    """The configs that a value may be, with the value; the one that it is, where a recipe says so."""
    if isinstance(found.value, Config):
        return [(type(found.value), found.value)]
    return [(config, None) for part in _parts(found.annotation) for config in _members(part)]


def _members(part: Any) -> list[type[Config]]:
    if _is_slot(part):
        return list(members(get_args(part)[0].slot).values())
    return [part] if isinstance(part, type) and issubclass(part, Config) else []


def _parts(annotation: Any) -> list[Any]:
    """The members of a union, each without its metadata but that of a slot."""
    if get_origin(annotation) in (Union, UnionType):
        return [part for each in get_args(annotation) for part in _parts(each)]
    if get_origin(annotation) is not Annotated or _is_slot(annotation):
        return [annotation]
    return _parts(get_args(annotation)[0])


def _is_slot(annotation: Any) -> bool:
    return get_origin(annotation) is Annotated and any(isinstance(each, SlotMarker) for each in annotation.__metadata__)


def _with_metadata(field: FieldInfo) -> Any:
    """A field's type; pydantic keeps a slot's mark beside it."""
    marks = [each for each in field.metadata if isinstance(each, SlotMarker)]
    return Annotated[field.annotation, marks[0]] if marks else field.annotation


def _explained(path: str, found: _Found) -> str:
    assert found.owner is not None
    assert found.field is not None
    is_own = path.endswith(found.key) and found.key in found.owner.fields_by_key()
    schema = found.owner.model_json_schema().get("properties", {}).get(found.key, {}) if is_own else {}
    meaning = " ".join((found.field.description or "").split())
    configs = [config for config, _ in _configs(found)]
    lines = [f"{path}{_of(found.owner)}", *([f"  {meaning}"] if meaning else [])]
    if found.owner is not Recipe:
        lines.append(f"  part of   {doc_of(found.owner)[0]}")
    if words := in_words(schema):
        lines.append(f"  type      {words}")
    if is_own:
        lines.append(f"  default   {'none: it is required' if found.field.is_required() else default_of(found.field)}")
    for config in configs:
        name = f"{config.model_fields['type'].default}: " if "type" in config.model_fields else ""
        lines.append(f"  {'is' if len(configs) == 1 else 'may be':<9} {name}{doc_of(config)[0]}")
    if len(configs) == 1:
        for key, attribute in configs[0].fields_by_key().items():
            said = " ".join((configs[0].model_fields[attribute].description or "").split())
            lines.append(f"    {path}.{key}{f'  # {said}' if said else ''}")
    return "\n".join(lines) + "\n"


def _of(config: type[Config]) -> str:
    if "type" not in config.model_fields:
        return ""
    kind = f"{config.slot} " if issubclass(config, PluginConfig) else ""
    return f"  (of {kind}{config.model_fields['type'].default})"


BOUNDS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
    "minItems": "{} or more of them",
    "pattern": "like {}",
}
TYPES = {
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
    "null": "null",
}


def in_words(schema: Mapping[str, Any]) -> str:
    """A piece of a JSON schema, such as `a number, at least 0, below 1`."""
    if "slot" in schema:
        return f"a {schema['slot']}: {', '.join(members(schema['slot']))}"
    if "enum" in schema or "const" in schema:
        return f"one of {', '.join(map(str, schema.get('enum', [schema.get('const')])))}"
    for keyword in ("anyOf", "oneOf", "allOf"):
        if keyword in schema:
            return " or ".join(dict.fromkeys(in_words(each) for each in schema[keyword]))
    if "$ref" in schema:
        return "a mapping of keys"
    if schema.get("type") == "array":
        items: Mapping[str, Any] = schema.get("items") or next(iter(schema.get("prefixItems", [])), {})
        kind = f"a list, each {in_words(items)}" if items else "a list"
    elif schema.get("type") == "object":
        kind = "a mapping of keys"
    else:
        kind = TYPES.get(schema.get("type", ""), str(schema.get("type", "")))
    bounds = [words.format(schema[name]) for name, words in BOUNDS.items() if name in schema]
    return ", ".join(part for part in (kind, *bounds) if part)

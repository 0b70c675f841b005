"""From a tree to a recipe: pydantic's errors become plain sentences at the places where the mistakes were written.

Other files of settings, such as a list of published numbers, are read the same way.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from ssodkit.plugins import Config, PluginConfig, members, suggest
from ssodkit.recipe.model import Recipe
from ssodkit.recipe.read import Mistake, Written, refuse

C = TypeVar("C", bound=Config)

Location = tuple[int | str, ...]

KEY = "[key]"
"""How pydantic ends the location of an error in a mapping's key."""

SENTENCES = {
    "bool_parsing": "must be true or false, not {value}",
    "bool_type": "must be true or false, not {value}",
    "dict_type": "must be a mapping of keys, not {value}",
    "finite_number": "must be finite, not {value}",
    "float_parsing": "must be a number, not {value}",
    "float_type": "must be a number, not {value}",
    "greater_than": "must be above {gt}, not {value}",
    "greater_than_equal": "must be at least {ge}, not {value}",
    "int_from_float": "must be a whole number, not {value}",
    "int_parsing": "must be a whole number, not {value}",
    "int_type": "must be a whole number, not {value}",
    "less_than": "must be below {lt}, not {value}",
    "less_than_equal": "must be at most {le}, not {value}",
    "list_type": "must be a list, not {value}",
    "literal_error": "must be {expected}, not {value}",
    "mapping_type": "must be a mapping of keys, not {value}",
    "model_type": "must be a mapping of keys, not {value}",
    "path_type": "must be a path, not {value}",
    "string_pattern_mismatch": "must match the pattern {pattern}, not {value}",
    "string_type": "must be text, not {value}; put it in quotes if it is meant as text",
    "too_long": "must have at most {max_length} items, not {actual_length}",
    "too_short": "must have {min_length} or more items, not {actual_length}",
    "tuple_type": "must be a list, not {value}",
}
"""Pydantic's kinds of errors in our words; its own are shown for any other kind."""


def validate(tree: Written) -> Recipe:
    """The recipe that a tree says. Plug-ins are loaded by now.

    Raises RecipeError that shows every unknown key, missing key and wrong value.
    """
    recipe: Recipe = _validate(Recipe, tree)
    return recipe


def validate_config(config: type[C], tree: Written) -> C:
    """The config that a tree says. Raises RecipeError as `validate` does."""
    answer: C = _validate(config, tree)
    return answer


def validate_list(config: type[C], tree: Written) -> tuple[C, ...]:
    """The configs of one kind that a list says. Raises RecipeError as `validate` does."""
    configs: tuple[C, ...] = _validate(tuple[config, ...], tree)  # type: ignore[valid-type]
    return configs


def _validate(root: Any, tree: Written) -> Any:
    try:
        return TypeAdapter(root).validate_python(tree.plain)
    except ValidationError as error:
        refuse(_mistakes(error, tree, root))
        raise AssertionError("pydantic reported an error without saying which") from error


def locate(tree: Written, location: Sequence[int | str]) -> tuple[Location, Written]:
    """The path of written keys that an error's location or a field's path follows, and what stands there.

    What was not written is stepped over: tags of unions, fields that a short form leaves out, defaults.
    """
    path: Location = ()
    node = tree
    for key in location:
        inner = node.value
        if isinstance(inner, dict) and key in inner:
            node = inner[str(key)]
        elif isinstance(inner, list) and isinstance(key, int) and key < len(inner):
            node = inner[key]
        else:
            continue
        path = (*path, key)
    return path, node


def dotted(path: Sequence[int | str]) -> str:
    """A path as recipes and `--set` write it."""
    return ".".join(map(str, path))


def _mistakes(error: ValidationError, tree: Written, root: Any) -> Iterator[Mistake]:
    details = error.errors(include_url=False)
    places = [locate(tree, item["loc"]) for item in details]
    for item, (path, node) in zip(details, places, strict=True):
        # Of a union of a word and a mapping, only the member that the user began to write is reported.
        other_form = "literal_error" if isinstance(node.value, dict) else "model_type"
        is_alternative = len(path) < len(item["loc"]) and item["loc"][-1] != KEY
        # A list that has a wrong item is counted as if it were empty.
        follows = (item["type"] == other_form and is_alternative) or item["type"] == "too_short"
        if follows and _count_within(places, path) > 1:
            continue
        yield _mistake(item, path, node, tree, root)


def _count_within(places: list[tuple[Location, Written]], path: Location) -> int:
    return sum(other[: len(path)] == path for other, _ in places)


def _mistake(item: ErrorDetails, path: Location, node: Written, tree: Written, root: Any) -> Mistake:
    kind, location, context = item["type"], item["loc"], item.get("ctx", {})
    place, key = node.place, dotted(path)
    if kind in ("missing", "slot_missing"):
        place, key = node.key, dotted((*path, location[-1]))
        text = "is missing" if kind == "missing" else item["msg"]
    elif kind == "extra_forbidden":
        place, text = node.key, _unknown_key(str(location[-1]), _config_at(location[:-1], tree, root))
    elif location[-1:] == (KEY,):
        place, text = node.key, f"a key here {SENTENCES[kind].format(**context, value=_shown(item['input']))}"
    elif kind == "union_tag_not_found":
        place, key = node.key, dotted((*path, "type"))
        text = f"say which is meant; one of: {', '.join(_types_at(location, tree, root))}"
    elif kind == "union_tag_invalid":
        place, key = node.value["type"].place, dotted((*path, "type"))
        text = f"there is no '{context['tag']}' here; {suggest(str(context['tag']), _types_at(location, tree, root))}"
    elif kind in SENTENCES:
        text = SENTENCES[kind].format(**context, value=_shown(item["input"]))
    else:
        text = item["msg"].removeprefix("Value error, ")
    return Mistake(place, key, text)


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    text = json.dumps(value, default=str, ensure_ascii=False)
    text = f"'{value}'" if isinstance(value, str) else text
    return text if len(text) <= 60 else f"{text[:57]}..."


def _unknown_key(key: str, config: type[Config] | None) -> str:
    """What to say about it; with the config's type, which may have been written in another file."""
    if config is None:
        return "unknown key"
    owner = f" of '{config.model_fields['type'].default}'" if "type" in config.model_fields else ""
    return f"unknown key{owner}; {suggest(key, sorted(config.fields_by_key()))}"


def _config_at(location: Location, tree: Written, root: Any) -> type[Config] | None:
    """The config class that a mapping at an error's location is read as."""
    return _choose(_annotation_at(location, tree, root), locate(tree, location)[1])


def _types_at(location: Location, tree: Written, root: Any) -> list[str]:
    """The types that a union at an error's location holds."""
    configs = _configs(_annotation_at(location, tree, root))
    return [config.model_fields["type"].default for config in configs]


def _annotation_at(location: Location, tree: Written, root: Any) -> Any:
    """The annotation of the field at an error's location; a union's tag in it leaves the union standing."""
    annotation = root
    for depth, key in enumerate(location):
        config = _choose(annotation, locate(tree, location[:depth])[1])
        name = config.fields_by_key().get(str(key)) if config else None
        if config and name:
            annotation = config.model_fields[name].annotation
            continue
        for part in _parts(annotation):
            container = get_origin(part)
            is_list = isinstance(container, type) and issubclass(container, tuple | list) and isinstance(key, int)
            if is_list or (isinstance(container, type) and issubclass(container, Mapping)):
                annotation = get_args(part)[1 if issubclass(container, Mapping) else 0]
    return annotation


def _choose(annotation: Any, node: Written) -> type[Config] | None:
    """The config class that a written mapping is meant for: the one of its `type`, where there is a choice."""
    name = node.value["type"].value if isinstance(node.value, dict) and "type" in node.value else None
    for config in _configs(annotation):
        if "type" not in config.model_fields or config.model_fields["type"].default == name:
            return config
    return None


def _configs(annotation: Any) -> list[type[Config]]:
    """The config classes that a field may hold; for a slot, its members."""
    configs: list[type[Config]] = []
    for part in _parts(annotation):
        if isinstance(part, type) and issubclass(part, PluginConfig):
            configs.extend(members(part.slot).values())
        elif isinstance(part, type) and issubclass(part, Config):
            configs.append(part)
    return configs


def _parts(annotation: Any) -> Iterator[Any]:
    """The members of a union, `Annotated` taken off."""
    if get_origin(annotation) is Annotated:
        yield from _parts(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for part in get_args(annotation):
            yield from _parts(part)
    else:
        yield annotation

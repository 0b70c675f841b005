"""The resolved recipe as text: to be saved with a run, to be compared, and to show where each value comes from."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from ssodkit.data.config import DataConfig
from ssodkit.data.shares import Share
from ssodkit.recipe.model import Recipe
from ssodkit.recipe.read import FLOAT, Written, parse_yaml
from ssodkit.recipe.validate import Location, locate

COMMENT_COLUMN = 64


def dump_recipe(recipe: Recipe) -> str:
    """YAML of the whole recipe, defaults included, that `load_recipe` reads back as an equal recipe from any folder."""
    return _to_yaml(recipe.model_dump(mode="json"))


def recipe_hash(recipe: Recipe, first: Recipe | None = None) -> str:
    """16 hexadecimal digits that differ where two runs would compute something else.

    Where plug-in files and data lie does not count; the names of the data's files and folders do. `first` is the
    recipe of the first stage, where it shall count with more than its name.
    """
    return _hash(_parts(recipe, first))


class Redrawn:
    """One recipe on other shares of labels, folds and seeds. Nothing else in a recipe depends on them, so it is read
    and written out once, however many of them a comparison has."""

    def __init__(self, recipe: Recipe, first: Recipe | None = None) -> None:
        self.recipe = recipe
        self._parts = _parts(recipe, first)

    def at(self, share: Share, fold: int, seed: int) -> tuple[Recipe, str]:
        """The recipe as it is read with these values, which are in their ranges, and its hash."""
        data = self.recipe.data.model_copy(update={**share._asdict(), "fold": fold})
        drawn = {"data": _as_json(_plain(data)), "seed": _as_json(seed)}
        return self.recipe.model_copy(update={"data": data, "seed": seed}), _hash({**self._parts, **drawn})


def _parts(recipe: Recipe, first: Recipe | None = None) -> dict[str, str]:
    """What counts of a recipe, key by key. Its first stage has the same data, fold and seed, but its own batch."""
    content = {**recipe.model_dump(exclude={"plugins", "data"}), "data": _plain(recipe.data)}
    parts = {key: _as_json(value) for key, value in content.items()}
    if first is None:
        return parts
    own = {key: part for key, part in _parts(first).items() if key not in ("data", "seed")}
    return {**parts, "first_stage": _as_json(_hash({**own, "batch": _as_json(first.data.batch.model_dump())}))}


def _plain(data: DataConfig) -> dict[str, Any]:
    """As written, but for the folder of the recipe that makes its labels."""
    plain = data.model_dump()
    source = plain["unlabeled"]
    if isinstance(source, dict) and source.get("made_by") is not None and Path(source["made_by"]).is_absolute():
        source["made_by"] = Path(source["made_by"]).name
    return plain


def _as_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=_name_of)


def _hash(parts: Mapping[str, str]) -> str:
    text = ", ".join(f'"{key}": {parts[key]}' for key in sorted(parts))
    return hashlib.sha256(f"{{{text}}}".encode()).hexdigest()[:16]


def _name_of(path: object) -> str:
    assert isinstance(path, Path)
    return path.name


def show_recipe(recipe: Recipe, tree: Written) -> str:
    """`dump_recipe` with a comment behind each value: the file, line and column that it comes from, or `default`."""
    text = dump_recipe(recipe)
    resolved = parse_yaml(text, "", [])
    assert resolved is not None
    origins = {leaf.place.line: _origin(path, leaf, tree) for path, leaf in leaves(resolved, ())}
    lines = (
        f"{line:<{COMMENT_COLUMN - 2}}  # {origins[number]}" if number in origins else line
        for number, line in enumerate(text.splitlines(), start=1)
    )
    return "\n".join(lines) + "\n"


def leaves(node: Written, path: Location) -> Iterator[tuple[Location, Written]]:
    """What the dumped text holds in one line each: scalars, empty mappings, and lists without mappings."""
    if isinstance(node.value, dict) and node.value:
        for key, item in node.value.items():
            yield from leaves(item, (*path, key))
    elif isinstance(node.value, list) and not _is_flat(node.plain):
        for index, item in enumerate(node.value):
            yield from leaves(item, (*path, index))
    else:
        yield path, node


def origin_of(path: Location, tree: Written) -> str:
    """Where the value at a path was written; `default` where it was not."""
    found, node = locate(tree, [int(key) if str(key).isdigit() else key for key in path])
    return str(node.place) if len(found) == len(path) else "default"


def _origin(path: Location, leaf: Written, tree: Written) -> str:
    found, node = locate(tree, path)
    is_written = found == path or not isinstance(node.value, dict | list) or node.plain == leaf.plain
    return str(node.place) if is_written else "default"


def _is_flat(value: object) -> bool:
    return isinstance(value, list) and not any(isinstance(item, dict | list) for item in value)


class _Dumper(yaml.SafeDumper):
    """Quotes what YAML 1.1 or 1.2 would take for something else than text; flat lists stand in one line."""

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> yaml.SequenceNode:
        return super().represent_sequence(tag, sequence, flow_style=_is_flat(sequence))

    def represent_text(self, text: str) -> yaml.ScalarNode:
        style = '"' if "\n" in text else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_representer(str, _Dumper.represent_text)
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+.0123456789"))


def _to_yaml(data: Any) -> str:
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=float("inf"))

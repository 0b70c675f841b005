"""From files to one tree: what a recipe `extends`, laid under it, and `--set` on top; every value keeps its place.

Mappings merge key by key, scalars and lists replace, and a mapping whose `type` changes starts afresh.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from ssodkit.errors import RecipeError
from ssodkit.recipe.read import (
    MOST_LEVELS,
    Mistake,
    Place,
    Written,
    find_recipe,
    parse_yaml,
    read_recipe_file,
    refuse,
)


def read_tree(name: str | Path, overrides: Iterable[str] = ()) -> Written:
    """The merged tree of a recipe, given by path or shipped name, with `a.b=c` overrides; not validated yet.

    Raises RecipeError that shows every mistake of reading and merging.
    """
    mistakes: list[Mistake] = []
    tree = _Layers(mistakes).read(find_recipe(str(name), Path.cwd()), ())
    for text in overrides:
        tree = override(tree, text, mistakes)
    refuse(mistakes)
    return tree


def merge(base: Written, over: Written) -> Written:
    """`over` laid on `base`: mappings key by key, unless their `type` differs; anything else replaces."""
    if not (isinstance(base.value, dict) and isinstance(over.value, dict)):
        return over
    if "type" in base.value and "type" in over.value and base.value["type"].value != over.value["type"].value:
        return over
    merged = dict(base.value)
    for key, item in over.value.items():
        merged[key] = merge(merged[key], item) if key in merged else item
    return replace(over, value=merged)


def override(tree: Written, text: str, mistakes: list[Mistake]) -> Written:
    """The tree with one `--set` applied: `a.b=c` with YAML as c; an item of a list by its index, as in `a.0.b=c`."""
    place = Place(f"--set {text}")
    path, equals, right = text.partition("=")
    keys = path.strip().split(".")
    found: list[Mistake] = []
    value = parse_yaml(right, place.source, found)
    if not equals or not all(keys):
        found.append(Mistake(place, "", "write it as `a.b=value`"))
    elif len(keys) > MOST_LEVELS:
        found.append(Mistake(place, "", f"nested in more than {MOST_LEVELS} levels"))
    mistakes.extend(replace(mistake, place=place, key=path) for mistake in found)
    if found:
        return tree
    return _set(tree, keys, _placed(value, place), path, mistakes)


class _Layers:
    """Reads files over everything that they extend: each once, however many ways lead to it."""

    def __init__(self, mistakes: list[Mistake]) -> None:
        self.mistakes = mistakes
        self.done: dict[Path, Written] = {}

    def read(self, path: Path, chain: tuple[Path, ...]) -> Written:
        """The tree of a file. `chain` are the files that led here, to find circles."""
        known = path.resolve()
        if known not in self.done:
            self.done[known] = self._read(path, (*chain, known))
        return self.done[known]

    def _read(self, path: Path, chain: tuple[Path, ...]) -> Written:
        written = read_recipe_file(path, self.mistakes)
        base: Written | None = None
        for key, item in _extended_names(written):
            try:
                parent = _find_parent(item.value, path.parent, chain)
            except RecipeError as error:
                self.mistakes.append(Mistake(item.place, key, str(error)))
                continue
            layer = self.read(parent, chain)
            base = merge(base, layer) if base else layer
        own = replace(written, value={key: item for key, item in written.value.items() if key != "extends"})
        return merge(base, own) if base else own


def _extended_names(written: Written) -> list[tuple[str, Written]]:
    """Each entry of `extends`, in order, after its dotted key."""
    entry = written.value.get("extends")
    if entry is None:
        return []
    if isinstance(entry.value, list):
        return [(f"extends.{index}", item) for index, item in enumerate(entry.value)]
    return [("extends", entry)]


def _find_parent(name: object, folder: Path, chain: tuple[Path, ...]) -> Path:
    if not isinstance(name, str):
        raise RecipeError("name a recipe, or a list of them")
    parent = find_recipe(name, folder)
    if parent.resolve() in chain:
        circle = [*chain[chain.index(parent.resolve()) :], parent]
        raise RecipeError(f"this recipe extends itself: {' -> '.join(file.name for file in circle)}")
    if len(chain) >= MOST_LEVELS:
        raise RecipeError(f"more than {MOST_LEVELS} recipes extend one another up to here")
    return parent


def _placed(value: Written | None, place: Place) -> Written:
    """The same piece of a recipe, all of it at one place."""
    inner = value.value if value else None
    if isinstance(inner, dict):
        inner = {key: _placed(item, place) for key, item in inner.items()}
    elif isinstance(inner, list):
        inner = [_placed(item, place) for item in inner]
    return Written(inner, place, place)


def _set(node: Written | None, keys: list[str], value: Written, path: str, mistakes: list[Mistake]) -> Written:
    """`node` with `value` at `keys`; mappings on the way are made where there are none."""
    if not keys:
        return merge(node, value) if node else value
    first, *rest = keys
    if node is not None and isinstance(node.value, list):
        if not first.isdigit() or int(first) >= len(node.value):
            text = f"'{first}' is no item of this list of {len(node.value)}; items count from 0"
            mistakes.append(Mistake(value.place, path, text))
            return node
        items = list(node.value)
        items[int(first)] = _set(items[int(first)], rest, value, path, mistakes)
        return replace(node, value=items)
    below = node.value.get(first) if node is not None and isinstance(node.value, dict) else None
    over = Written({first: _set(below, rest, value, path, mistakes)}, value.place, value.place)
    merged = merge(node, over) if node else over
    # A mapping that was only changed inside is still written where it was: its missing keys are not the override's.
    return merged if node is None or merged is over else replace(merged, place=node.place, key=node.key)

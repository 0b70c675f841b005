"""Loading a recipe: read and merge its files, load its plug-ins, validate it, and check that its parts fit together.

Recipes and plug-ins are all that is read: no data, weight or label file need exist.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from ssodkit.data.config import StoredSource, sources_of
from ssodkit.errors import RecipeError
from ssodkit.plugins import Config, load_module, load_plugins, locate_module
from ssodkit.recipe.fit import check_fit
from ssodkit.recipe.merge import read_tree
from ssodkit.recipe.model import Recipe
from ssodkit.recipe.read import Mistake, Written, refuse
from ssodkit.recipe.stages import MADE_BY, with_first_stage
from ssodkit.recipe.trust import refuse_unknown, remember
from ssodkit.recipe.validate import Location, dotted, locate, validate


def load_recipe(path: str | Path, overrides: Iterable[str] = (), trust_plugins: bool = False) -> Recipe:
    """The recipe in a file, or the shipped one of this name, with `a.b=c` overrides.

    Plug-ins that it names are run. One that was not run here before is refused, unless `trust_plugins`; then it is
    remembered. Raises RecipeError with one line per mistake: `file:line:column key: what is wrong`.
    """
    return load_with_places(path, overrides, trust_plugins)[0]


def load_with_places(
    path: str | Path, overrides: Iterable[str] = (), trust_plugins: bool = False
) -> tuple[Recipe, Written]:
    """A recipe, and the merged tree that says where each of its values was written."""
    overrides = tuple(overrides)
    tree = with_first_stage(read_with_plugins(path, overrides, trust_plugins), overrides)
    recipe = validate(tree)
    check_fit(recipe, tree)
    try:
        first_stage(recipe, trust_plugins)
    except RecipeError as error:
        place = locate(tree, MADE_BY.split("."))[1].place
        refuse([Mistake(place, MADE_BY, line) for line in str(error).splitlines()], error)
    return recipe, tree


def first_stage(recipe: Recipe, trust_plugins: bool = False) -> Recipe | None:
    """The recipe that a run trains before this one, to label its unlabeled images; None where it trains none.

    It is the one that `data.unlabeled.made_by` names, on the data, percent, fold and seed of this one. Raises
    RecipeError where it has mistakes, or cannot be a first stage of this one.
    """
    source = recipe.data.unlabeled
    if not isinstance(source, StoredSource) or source.made_by is None:
        return None
    tree = read_with_plugins(source.made_by, source.made_with, trust_plugins)
    first = validate(tree)
    if isinstance(first.data.unlabeled, StoredSource):
        raise RecipeError(f"'{source.made_by}' learns from stored labels itself; name a recipe that makes its own")
    check_fit(first, tree)
    kinds, own_kinds = ({each.type for each in sources_of(one.data.train)} for one in (first, recipe))
    if not kinds & own_kinds:
        raise RecipeError(
            f"'{source.made_by}' is a recipe for data of the type '{min(kinds)}', and this one has "
            f"'{min(own_kinds)}'; classes and image sizes would not fit"
        )
    data = recipe.data.model_copy(update={"unlabeled": source.of, "batch": first.data.batch})
    return first.model_copy(update={"data": data, "seed": recipe.seed})


def missing_paths(recipe: Recipe) -> list[str]:
    """The files and folders of a recipe that do not exist here: a sentence each, with the key that names it."""
    return [
        f"{dotted(key)}: '{path}' does not exist{'' if path.is_absolute() else ' from this folder'}"
        for key, path in _paths(recipe, ())
        if not path.exists()
    ]


def _paths(value: object, key: Location) -> Iterator[tuple[Location, Path]]:
    """All paths in a value, and the keys that lead there."""
    if isinstance(value, Path):
        yield key, value
    elif isinstance(value, Config):
        for name, field in value.fields_by_key().items():
            yield from _paths(getattr(value, field), (*key, name))
    elif isinstance(value, tuple | list):
        for place, item in enumerate(value):
            yield from _paths(item, (*key, place))
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _paths(item, (*key, name))


def read_with_plugins(path: str | Path, overrides: Iterable[str] = (), trust_plugins: bool = False) -> Written:
    """The merged tree of a recipe, not validated; plug-ins are loaded, and those in files named by absolute path."""
    tree = read_tree(path, overrides)
    load_plugins()
    entry = tree.value.get("plugins")
    if entry is None or not isinstance(entry.value, list):
        return tree
    modules = _for_each(entry, lambda item: locate_module(str(item.value), item.place.folder))
    locations = [item.value for item in modules]
    if not trust_plugins:
        try:
            refuse_unknown(locations)
        except RecipeError as error:
            refuse([Mistake(entry.place, "plugins", str(error))], error)
    _for_each(replace(entry, value=modules), lambda item: load_module(item.value))
    if trust_plugins:
        remember(locations)
    return replace(tree, value=tree.value | {"plugins": replace(entry, value=modules)})


def _for_each(entry: Written, action: Callable[[Written], object]) -> list[Written]:
    """The items of a list with what `action` gives as their values; its RecipeErrors are shown all at once."""
    items: list[Written] = []
    mistakes: list[Mistake] = []
    cause: RecipeError | None = None
    for index, item in enumerate(entry.value):
        try:
            items.append(replace(item, value=action(item)))
        except RecipeError as error:
            mistakes.append(Mistake(item.place, f"plugins.{index}", str(error)))
            cause = cause or error
    refuse(mistakes, cause)
    return items

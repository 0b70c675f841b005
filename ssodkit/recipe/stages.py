"""Recipes of two stages: one whose unlabeled images are labeled by what another recipe has learned before."""

import json
from collections.abc import Iterable
from dataclasses import replace

from ssodkit.errors import RecipeError
from ssodkit.recipe.merge import override
from ssodkit.recipe.read import Mistake, Written, find_recipe, refuse, shipped_folder

SHARED = ("engine.", "detector.", "evaluation.", "watch.", "data.batch.labeled")
"""Beginnings of the keys that `--set` changes in both stages. Data, fold and seed are the same in any case."""
MADE_BY, MADE_WITH = "data.unlabeled.made_by", "data.unlabeled.made_with"


def with_first_stage(tree: Written, overrides: Iterable[str]) -> Written:
    """The tree of a recipe, the one that makes its labels named so that it is found from any folder.

    Overrides of what both stages have join `made_with`. A recipe of one stage stays as it is. Raises RecipeError
    where there is no recipe of that name.
    """
    source = _below(_below(tree, "data"), "unlabeled")
    made_by = _below(source, "made_by")
    if source is None or made_by is None or not isinstance(made_by.value, str):
        return tree
    mistakes: list[Mistake] = []
    try:
        path = find_recipe(made_by.value, made_by.place.folder).resolve()
    except RecipeError as error:
        refuse([Mistake(made_by.place, MADE_BY, str(error))], error)
    shipped = shipped_folder().resolve()
    name = path.relative_to(shipped).with_suffix("").as_posix() if path.is_relative_to(shipped) else str(path)
    tree = _replace(tree, replace(made_by, value=name))
    shared = [text for text in overrides if text.strip().startswith(SHARED)]
    if shared:
        written = _below(source, "made_with")
        changes = [*(written.plain if written is not None and isinstance(written.value, list) else ()), *shared]
        tree = override(tree, f"{MADE_WITH}={json.dumps(changes)}", mistakes)
    refuse(mistakes)
    return tree


def _below(node: Written | None, key: str) -> Written | None:
    return node.value.get(key) if node is not None and isinstance(node.value, dict) else None


def _replace(tree: Written, made_by: Written) -> Written:
    data = tree.value["data"]
    source = data.value["unlabeled"]
    source = replace(source, value=source.value | {"made_by": made_by})
    return replace(tree, value=tree.value | {"data": replace(data, value=data.value | {"unlabeled": source})})

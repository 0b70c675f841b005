"""Verbs that say what a recipe is and may be: list, recipe explain, recipe check, recipe show, recipe schema."""

from pathlib import Path
from typing import Annotated

import typer

from ssodkit.cli.options import Overrides, RecipeName, TrustPlugins


def list_(
    kind: Annotated[
        str | None,
        typer.Argument(metavar="KIND", help="Such as selector, to see its fields; or data, views, engine, ..."),
    ] = None,
) -> None:
    """List the plug-ins that recipes can name.

    With a KIND, the fields of its members; data, views, engine, evaluation and watch are parts of every recipe.
    """
    from ssodkit.plugins import load_plugins
    from ssodkit.recipe.catalog import describe_slot, list_plugins

    load_plugins()
    print(describe_slot(kind) if kind else list_plugins(), end="")


def explain(
    key: Annotated[str, typer.Argument(metavar="KEY", help="Such as engine.lr or method.selector.classes.above.")],
    recipe: Annotated[
        str | None, typer.Argument(metavar="[RECIPE]", help="To say which plug-ins are meant, and what the value is.")
    ] = None,
    overrides: Overrides = None,
    trust_plugins: TrustPlugins = False,
) -> None:
    """Say what a key of a recipe means.

    Its type, range and default, and the keys below it.
    """
    from ssodkit.plugins import load_plugins
    from ssodkit.recipe.check import load_with_places
    from ssodkit.recipe.explain import explain

    if recipe is None:
        load_plugins()
        print(explain(key), end="")
    else:
        print(explain(key, *load_with_places(recipe, overrides or (), trust_plugins)), end="")


def check(recipe: RecipeName, overrides: Overrides = None, trust_plugins: TrustPlugins = False) -> None:
    """Find every mistake in a recipe.

    No data, weights or labels need exist; a warning names each path that does not.
    """
    from ssodkit.recipe.check import load_recipe, missing_paths

    loaded = load_recipe(recipe, overrides or (), trust_plugins)
    print(f"{loaded.name}: no mistake found in {recipe}")
    for sentence in missing_paths(loaded):
        print(f"warning: {sentence}")


def show(recipe: RecipeName, overrides: Overrides = None, trust_plugins: TrustPlugins = False) -> None:
    """Print a recipe and where its values come from."""
    from ssodkit.recipe.check import load_with_places
    from ssodkit.recipe.show import show_recipe

    print(show_recipe(*load_with_places(recipe, overrides or (), trust_plugins)), end="")


def schema(
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Default: print it.")] = None,
    recipe: Annotated[str | None, typer.Argument(metavar="RECIPE", help="Include the plug-ins it names.")] = None,
    trust_plugins: TrustPlugins = False,
) -> None:
    """Write the JSON schema of recipes.

    With it, editors complete and explain recipes while they are written.
    """
    from ssodkit.plugins import load_plugins
    from ssodkit.recipe.check import read_with_plugins
    from ssodkit.recipe.schema import recipe_schema

    if recipe is None:
        load_plugins()
    else:
        read_with_plugins(recipe, trust_plugins=trust_plugins)
    text = recipe_schema()
    if out is None:
        print(text, end="")
    else:
        out.write_text(text, encoding="utf-8")

"""The list of what recipes can name."""

from typing import ClassVar, Literal

import pytest
from pydantic import Field

from ssodkit.errors import RecipeError
from ssodkit.plugins import Config, PluginConfig, members, register, slots
from ssodkit.recipe.catalog import describe_slot, list_plugins


class Taste(Config):
    sweet: float = 0.5
    sour: float | None = None


class AppleConfig(PluginConfig):
    """Round and red.

    Keeps well.
    """

    slot: ClassVar[str] = "test_fruit"

    type: Literal["apple"] = "apple"

    seeds: int
    """How many,
    counted by hand."""
    taste: Taste = Taste()
    ripe_at: str = Field("33 %", alias="at")


def test_list_plugins__has_one_line_per_plugin():
    register(AppleConfig)
    lines = list_plugins().splitlines()
    assert len(lines) == 1 + sum(len(members(slot)) for slot in slots())
    row = next(line for line in lines if line.startswith("test_fruit"))
    assert row.split(maxsplit=2) == ["test_fruit", "apple", "Round and red."]


def test_describe_slot__shows_fields_as_a_recipe_writes_them():
    register(AppleConfig)
    assert describe_slot("test_fruit").splitlines() == [
        "apple: Round and red.",
        "",
        "  Keeps well.",
        "    seeds:                            # required: How many, counted by hand.",
        "    taste: {sweet: 0.5}",
        "    at: 33 %",
    ]


def test_describe_slot__shows_every_plugin_of_every_slot():
    assert slots()
    for slot in slots():
        described = [line for line in describe_slot(slot).splitlines() if line[:1].strip()]
        assert [line.partition(":")[0] for line in described] == list(members(slot))


def test_describe_slot__an_unknown_slot_names_the_nearest():
    with pytest.raises(RecipeError, match="there is no kind of plug-in 'schedules'; did you mean 'schedule'"):
        describe_slot("schedules")

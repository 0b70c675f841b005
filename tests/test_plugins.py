"""Plug-ins: registration, slots that look members up when a value is validated, and other people's modules."""

import math
import sys
from abc import ABC
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from pages import forgetting
from pydantic import Field, ValidationError

from ssodkit.errors import RecipeError
from ssodkit.plugins import (
    Config,
    PluginConfig,
    Slot,
    UpToInfinity,
    load_plugins,
    locate_module,
    members,
    register,
    slots,
    suggest,
)


class FruitConfig(PluginConfig, ABC):
    """A slot of this test's own."""

    slot: ClassVar[str] = "fruit"

    @classmethod
    def from_shorthand(cls, value: object) -> object:
        return {"type": "apple", "seeds": value} if isinstance(value, int) else value


class Basket(Config):
    """Holds fruit in every way a recipe holds plug-ins."""

    one: Slot[FruitConfig]
    maybe: Slot[FruitConfig] | None = None
    some: tuple[Slot[FruitConfig], ...] = ()
    named: dict[str, Slot[FruitConfig]] = Field(default_factory=dict)


@pytest.fixture(autouse=True)
def fruit() -> Iterator[None]:
    """Apples and pears are registered during a test, and forgotten after it."""
    with forgetting():
        register(AppleConfig)
        register(PearConfig)
        yield


class AppleConfig(FruitConfig):
    """Has seeds."""

    type: Literal["apple"] = "apple"

    seeds: int = Field(5, ge=0)
    """How many."""


class PearConfig(FruitConfig):
    """Holds another fruit: slots nest."""

    type: Literal["pear"] = "pear"

    inside: Slot[FruitConfig] | None = None
    ripe_at: int = Field(3, alias="at")


PLUGIN = """\
from typing import Literal
from ssodkit.plugins import register
from ssodkit.schedules.base import ScheduleConfig

@register
class PlugConfig(ScheduleConfig):
    type: Literal["{name}"] = "{name}"
    span = property(lambda self: (0.0, 0.0))
    def at(self, progress):
        return 0.0
"""


def errors(value: object) -> list[tuple[tuple[int | str, ...], str]]:
    with pytest.raises(ValidationError) as refusal:
        Basket.model_validate(value)
    return [(error["loc"], error["msg"]) for error in refusal.value.errors()]


def test_register__a_name_taken_twice_names_both_modules():
    class OtherConfig(FruitConfig):
        type: Literal["apple"] = "apple"

    OtherConfig.__module__ = "somebody.elses"
    with pytest.raises(RecipeError, match=rf"the fruit 'apple' is registered twice: by {__name__} and by somebody.els"):
        register(OtherConfig)
    assert members("fruit")["apple"] is AppleConfig


def test_register__the_same_class_again_replaces_itself():
    assert register(AppleConfig) is AppleConfig
    assert list(members("fruit")) == ["apple", "pear"]


def test_register__refuses_what_has_no_slot_or_no_type():
    class NamelessConfig(FruitConfig):
        pass

    with pytest.raises(TypeError, match="needs a field `type"):
        register(NamelessConfig)
    with pytest.raises(TypeError, match="is no plug-in"):
        register(Config)


def test_slot__takes_members_registered_after_the_field_was_declared():
    basket = Basket.model_validate(
        {"one": {"type": "apple", "seeds": 2}, "some": [{"type": "pear"}], "named": {"x": {"type": "apple"}}}
    )
    assert basket.one == AppleConfig(seeds=2)
    assert basket.some == (PearConfig(),)
    assert basket.named == {"x": AppleConfig()}
    assert basket.maybe is None


def test_slot__shorthand_and_built_members_are_taken():
    assert Basket.model_validate({"one": 7}).one == AppleConfig(seeds=7)
    assert Basket(one=AppleConfig(seeds=1)).one == AppleConfig(seeds=1)


def test_slot__a_dump_is_read_back_equal():
    basket = Basket.model_validate({"one": {"type": "pear", "inside": 3, "at": 9}, "some": [1, {"type": "pear"}]})
    dumped = basket.model_dump(mode="json")
    assert dumped["one"] == {"type": "pear", "inside": {"type": "apple", "seeds": 3}, "at": 9}
    assert Basket.model_validate(dumped) == basket


def test_slot__errors_keep_the_whole_path_and_name_the_members():
    assert errors({"one": "apple"}) == [(("one",), "write a fruit as {type: NAME, ...}; names: apple, pear")]
    assert errors({"one": {}}) == [(("one", "type"), "say which fruit is meant; one of: apple, pear")]
    assert errors({"one": {"type": "aple"}}) == [(("one", "type"), "there is no fruit 'aple'; did you mean 'apple'?")]
    assert errors({"one": {"type": ["apple"]}})[0][0] == ("one", "type")
    nested = {"one": 1, "named": {"x": {"type": "pear", "inside": {"type": "apple", "seeds": -1, "sead": 1}}}}
    assert [place for place, _ in errors(nested)] == [
        ("named", "x", "inside", "seeds"),
        ("named", "x", "inside", "sead"),
    ]


def test_fields_by_key__a_field_is_known_by_its_alias():
    assert PearConfig.fields_by_key() == {"type": "type", "inside": "inside", "at": "ripe_at"}


def test_suggest__names_the_nearest_or_all():
    assert suggest("aple", ["apple", "pear"]) == "did you mean 'apple'?"
    assert suggest("zzz", ["apple", "pear"]) == "one of: apple, pear"


def test_load_plugins__finds_every_slot_of_the_package():
    load_plugins()
    assert {"schedule", "matcher", "selector", "criterion", "teacher", "transform"} <= set(slots())
    assert "constant" in members("schedule")


def test_load_plugins__a_file_beside_the_recipe_by_path_or_by_name(tmp_path: Path):
    (tmp_path / "plug_by_path.py").write_text(PLUGIN.format(name="by_path"))
    (tmp_path / "plug_by_name.py").write_text(PLUGIN.format(name="by_name"))
    load_plugins(["plug_by_path.py", "plug_by_name"], tmp_path)
    assert {"by_path", "by_name"} <= set(members("schedule"))
    # A worker process that unpickles a config imports its module by this name.
    assert members("schedule")["by_path"].__module__ == "plug_by_path"


def test_load_plugins__a_module_of_a_package_beside_the_recipe_may_import_its_neighbor(tmp_path: Path):
    package = tmp_path / "plug_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "names.py").write_text("NAME = 'by_package'")
    (package / "plug.py").write_text("from .names import NAME\n" + PLUGIN.format(name="by_package"))
    assert locate_module("plug_package.plug", tmp_path) == str(package / "plug.py")
    load_plugins(["plug_package.plug"], tmp_path)
    assert members("schedule")["by_package"].__module__ == "plug_package.plug"


def test_load_plugins__says_which_file_is_missing_or_broken_and_where(tmp_path: Path):
    (tmp_path / "plug_broken.py").write_text("import ssodkit\n\nssodkit.no_such_thing\n")
    with pytest.raises(RecipeError, match=r"there is no file .*plug_missing\.py"):
        load_plugins(["plug_missing.py"], tmp_path)
    with pytest.raises(RecipeError, match=r"AttributeError: .*no_such_thing.* \(.*plug_broken\.py, line 3\)"):
        load_plugins(["plug_broken"], tmp_path)
    with pytest.raises(RecipeError, match="ModuleNotFoundError: No module named 'plug_nowhere'"):
        load_plugins(["plug_nowhere"], tmp_path)


def test_load_plugins__a_file_never_hides_another_module_of_its_name(tmp_path: Path):
    (tmp_path / "selectors.py").write_text(PLUGIN.format(name="hidden"))
    with pytest.raises(RecipeError, match=r"its module name 'selectors' is taken by .*; rename the file"):
        load_plugins(["selectors.py"], tmp_path)


def install(folder: Path, distribution: str, entry: str, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What pip leaves behind: a module, and a folder that says its name and its entry points."""
    about = folder / f"{distribution}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[ssodkit.plugins]\n{entry}\n")
    (folder / f"{distribution}.py").write_text(code)
    monkeypatch.setattr(sys, "path", [*sys.path, str(folder)])


def test_load_plugins__an_installed_package_registers_by_its_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    install(tmp_path, "plug_installed", "mine = plug_installed", PLUGIN.format(name="installed"), monkeypatch)
    load_plugins()
    assert members("schedule")["installed"].__module__ == "plug_installed"


def test_load_plugins__an_installed_package_that_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    install(tmp_path, "plug_fails", "mine = plug_fails", "raise ValueError('half installed')", monkeypatch)
    with pytest.raises(RecipeError, match=r"'mine' of the installed package plug_fails cannot .*: half installed"):
        load_plugins()


class NumbersConfig(Config):
    number: float | None = None
    count: int = 0
    pairs: tuple[tuple[float, int], ...] = ()
    named: dict[str, float] = {}  # noqa: RUF012 - pydantic copies it
    word_or_number: float | Literal["same"] = "same"
    limit: UpToInfinity = 0.0
    file: Path = Path()


class AroundConfig(Config):
    inner: tuple[NumbersConfig, ...]


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf, True, "1", 10**400])
@pytest.mark.parametrize(
    ("field", "wrap"),
    [
        ("number", lambda value: value),
        ("count", lambda value: 0.5 if value == 10**400 else value),
        ("pairs", lambda value: [[value, 1]]),
        ("named", lambda value: {"a": value}),
        ("word_or_number", lambda value: value),
    ],
)
def test_config__numbers_are_finite_and_no_booleans_wherever_they_stand(field: str, wrap: Any, wrong: object):
    for config, values in ((NumbersConfig, {field: wrap(wrong)}), (AroundConfig, {"inner": [{field: wrap(wrong)}]})):
        with pytest.raises(ValidationError):
            config.model_validate(values)


def test_config__whole_numbers_are_numbers_and_other_types_take_what_yaml_has():
    config = NumbersConfig.model_validate({"number": 1, "pairs": [[1, 2]], "named": {"a": 0}, "file": "a.json"})
    assert (config.number, config.pairs, config.named, config.file) == (1.0, ((1.0, 2),), {"a": 0.0}, Path("a.json"))


def test_config__a_field_may_say_that_infinity_has_a_meaning():
    assert NumbersConfig(limit=math.inf).limit == math.inf
    for wrong in (math.nan, -math.inf, True):
        with pytest.raises(ValidationError):
            NumbersConfig(limit=wrong)

"""Plug-ins: what a recipe can name. A plug-in is a frozen config with a `type`, and the code that it builds.

A config class declares its slot (`MatcherConfig.slot == "matcher"`); a field of type `Slot[MatcherConfig]` takes any
registered member of that slot, looked up when a value is validated, so plug-ins may be registered later.
"""

import difflib
import importlib
import importlib.metadata
import importlib.util
import pkgutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError, core_schema

from ssodkit.errors import RecipeError

T = TypeVar("T")

ENTRY_POINTS = "ssodkit.plugins"
PACKAGES = (
    "ssodkit.schedules",
    "ssodkit.assigners.matchers",
    "ssodkit.assigners.selectors",
    "ssodkit.data.augment",
    "ssodkit.detectors.criteria",
    "ssodkit.detectors.backbones",
    "ssodkit.detectors",
    "ssodkit.reliability",
    "ssodkit.teachers",
    "ssodkit.methods",
)
"""Folders whose every module is imported by `load_plugins`."""


class Config(BaseModel):
    """Base of everything in a recipe: frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True)


class PluginConfig(Config):
    """Base of the slots' configs. A member is final: `type: Literal["name"] = "name"` and a `build`."""

    slot: ClassVar[str] = ""
    needs: ClassVar[frozenset[str]] = frozenset()
    """Capabilities that another part of the recipe must provide, like `exact_regions`."""
    provides: ClassVar[frozenset[str]] = frozenset()
    writes: ClassVar[str] = ""
    """The score that this part adds to detections."""

    type: str

    @property
    def reads(self) -> frozenset[str]:
        """The scores that this part, as configured, asks of detections."""
        return frozenset()

    @classmethod
    def from_shorthand(cls, value: object) -> object:
        """What a plain value in this slot's place stands for; a slot's base may override it."""
        return value


@dataclass(frozen=True)
class BuildContext:
    """What only the whole recipe knows, for `PluginConfig.build`."""

    num_classes: int
    steps: int
    detector: PluginConfig
    """Networks are built by `context.detector.build(context)`."""
    unlabeled_per_step: int = 0
    """Images of the global batch."""
    minimum_visible: float = 0.0
    """Pseudo-boxes of which less than this share stays inside the student's view are dropped."""
    joined: Literal["auto", "always", "never"] = "auto"
    """Labeled and unlabeled views in one forward; `auto`: where joining adds at most 10 % pixels."""
    load_weights: bool = True
    """False builds backbones with random weights, without network: for tests and benchmarks."""


class _Registry:
    """Slot name -> type name -> config class."""

    def __init__(self) -> None:
        self.members: dict[str, dict[str, type[PluginConfig]]] = {}

    def add(self, config: type[PluginConfig]) -> None:
        name = type_name(config)
        known = self.members.setdefault(config.slot, {})
        other = known.get(name)
        if other is not None and (other.__module__, other.__qualname__) != (config.__module__, config.__qualname__):
            raise RecipeError(
                f"the {config.slot} '{name}' is registered twice: by {other.__module__} and by {config.__module__}"
            )
        known[name] = config


_registry = _Registry()


def register(config: type[T]) -> type[T]:
    """Class decorator: let recipes name this plug-in. Slot and name are read from the class.

    Raises RecipeError if another class has the name, TypeError if the class has no slot or no type.
    """
    if not (isinstance(config, type) and issubclass(config, PluginConfig) and config.slot):
        raise TypeError(f"{config!r} is no plug-in: derive it from a slot's config, such as SelectorConfig")
    _registry.add(config)
    return config


def type_name(config: type[PluginConfig]) -> str:
    """The name by which recipes call a plug-in: the default of its field `type`."""
    name = config.model_fields["type"].default
    if not isinstance(name, str):
        raise TypeError(f'{config.__qualname__} needs a field `type: Literal["name"] = "name"`')
    return name


def members(slot: str) -> Mapping[str, type[PluginConfig]]:
    """Type name -> config class of every registered plug-in of a slot."""
    return dict(sorted(_registry.members.get(slot, {}).items()))


def slots() -> tuple[str, ...]:
    """Names of all slots that have a member."""
    return tuple(sorted(_registry.members))


class SlotMarker:
    """Validates a value as a member of the annotated slot, whatever is registered by then."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        base: type[PluginConfig] = source
        return core_schema.no_info_plain_validator_function(
            lambda value: _validate_member(base, value),
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda value: value.model_dump(mode="json") if isinstance(value, BaseModel) else value
            ),
            metadata={
                "pydantic_js_functions": [lambda schema, handler: {"$ref": f"#/$defs/slot:{base.slot}"}],
                "slot": base.slot,
            },
        )


Slot = Annotated[T, SlotMarker()]
"""`Slot[MatcherConfig]` is a field that takes any registered matcher."""


def _validate_member(base: type[PluginConfig], value: object) -> PluginConfig:
    if isinstance(value, base):
        return value
    value = base.from_shorthand(value)
    known = members(base.slot)
    if not isinstance(value, Mapping):
        raise PydanticCustomError(
            "slot_form",
            "write a {slot} as {{type: NAME, ...}}; names: {names}",
            {"slot": base.slot, "names": ", ".join(known)},
        )
    name = value.get("type")
    if name is None:
        raise _error_at("type", "missing", f"say which {base.slot} is meant; one of: {', '.join(known)}", value)
    if name not in known:
        near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else f"one of: {', '.join(known)}"
        raise _error_at("type", "unknown_type", f"there is no {base.slot} '{name}'; {hint}", name)
    return known[name].model_validate(value)


def _error_at(key: str, kind: str, message: str, value: object) -> ValidationError:
    error = PydanticCustomError("slot_" + kind, "{message}", {"message": message})
    return ValidationError.from_exception_data("slot", [InitErrorDetails(type=error, loc=(key,), input=value)])


def load_plugins(modules: Iterable[str] = (), folder: Path | None = None) -> None:
    """Import every built-in plug-in, the installed ones (entry points), and a recipe's own `modules`.

    A module is a dotted name, looked up beside the recipe (`folder`) first, or a path ending in `.py` relative to it.
    Raises RecipeError that names the module or distribution which cannot be imported.
    """
    for package in PACKAGES:
        for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
            if not module.ispkg:
                importlib.import_module(f"{package}.{module.name}")
    for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
        try:
            entry.load()
        except Exception as error:
            owner = entry.dist.name if entry.dist else entry.value
            raise RecipeError(f"the plug-in '{entry.name}' of the installed package {owner} fails: {error}") from error
    for name in modules:
        _load_module(name, folder or Path.cwd())


def _load_module(name: str, folder: Path) -> ModuleType:
    try:
        if not name.endswith(".py"):
            if str(folder) not in sys.path:
                sys.path.insert(0, str(folder))
            return importlib.import_module(name)
        path = (folder / name).resolve()
        alias = f"ssodkit_plugin_{path.stem}_{abs(hash(str(path))):x}"
        if alias in sys.modules:
            return sys.modules[alias]
        spec = importlib.util.spec_from_file_location(alias, path)
        if spec is None or spec.loader is None or not path.is_file():
            raise FileNotFoundError(f"there is no file {path}")
        module = importlib.util.module_from_spec(spec)
        sys.modules[alias] = module
        spec.loader.exec_module(module)
        return module
    except Exception as error:
        sys.modules.pop(name, None)
        raise RecipeError(f"plugins: '{name}' cannot be imported: {type(error).__name__}: {error}") from error

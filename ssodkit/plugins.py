"""Plug-ins: what a recipe can name. A plug-in is a frozen config with a `type`, and the code that it builds.

A config class declares its slot (`MatcherConfig.slot == "matcher"`); a field of type `Slot[MatcherConfig]` takes any
registered member of that slot, looked up when a value is validated, so plug-ins may be registered later.
"""

import difflib
import importlib
import importlib.metadata
import importlib.util
import math
import pkgutil
import sys
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import (
    AfterValidator,
    AllowInfNan,
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
)
from pydantic_core import InitErrorDetails, PydanticCustomError, core_schema

from ssodkit.errors import Interrupted, RecipeError

T = TypeVar("T")

ENTRY_POINTS = "ssodkit.plugins"
PACKAGES = (
    "ssodkit.schedules",
    "ssodkit.assigners.matchers",
    "ssodkit.assigners.selectors",
    "ssodkit.assigners.regions",
    "ssodkit.data.augment",
    "ssodkit.detectors.criteria",
    "ssodkit.detectors.backbones",
    "ssodkit.detectors.heads",
    "ssodkit.detectors.normalizers",
    "ssodkit.detectors",
    "ssodkit.reliability",
    "ssodkit.teachers",
    "ssodkit.consistency",
    "ssodkit.methods",
)
"""Folders whose every module is imported by `load_plugins`."""


def _make_numbers_strict(schema: Any) -> None:
    """Let every number inside a schema take numbers alone; paths and tuples still take what YAML has for them."""
    if isinstance(schema, dict):
        if schema.get("type") in ("int", "float"):
            schema["strict"] = True
        schema = list(schema.values())
    if isinstance(schema, list | tuple):
        for part in schema:
            _make_numbers_strict(part)


class Config(BaseModel):
    """Base of everything in a recipe: frozen, and unknown keys are refused.

    Numbers are finite, and neither a boolean nor a text is one. `UpToInfinity` is for fields in which infinity has a
    meaning; NaN has none anywhere.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        validate_default=True,
        serialize_by_alias=True,
        allow_inf_nan=False,
        ser_json_inf_nan="constants",
    )

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: type[BaseModel], handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        schema = handler(source)
        _make_numbers_strict(schema)
        return schema

    @classmethod
    def fields_by_key(cls) -> Mapping[str, str]:
        """The keys that recipes write, and the fields they set: another name only where a field has an alias."""
        return {field.alias or name: name for name, field in cls.model_fields.items()}

    @property
    def key_needs(self) -> Mapping[str, str]:
        """Keys that, as they are set here, have an effect only where another part provides a capability: which one."""
        return {}


def _check_up_to_infinity(number: float) -> float:
    if math.isnan(number) or number == -math.inf:
        raise ValueError(f"must be a number or `.inf`, not {number}")
    return number


UpToInfinity = Annotated[float, AllowInfNan(True), AfterValidator(_check_up_to_infinity)]
"""A number, or positive infinity."""


class PluginConfig(Config):
    """Base of the slots' configs. A member is final: `type: Literal["name"] = "name"` and a `build`."""

    slot: ClassVar[str] = ""
    needs: ClassVar[frozenset[str]] = frozenset()
    """Capabilities that another part of the recipe must provide, like `exact_regions`, however this one is set."""
    provides: ClassVar[frozenset[str]] = frozenset()
    """Capabilities that this part has, however it is set."""
    offers: ClassVar[Mapping[str, str]] = {}
    """Capabilities that it has only if it is set so -> how, such as {"uncertainty": "uncertainty: true"}."""
    writes: ClassVar[str] = ""
    """The score that this part adds to detections."""
    teaches: ClassVar[str] = ""
    """The answer of a stage that learns from this part."""

    type: str

    @property
    def needed(self) -> frozenset[str]:
        """The capabilities that this part, as configured, needs."""
        return self.needs

    @property
    def provided(self) -> frozenset[str]:
        """The capabilities that this part, as configured, has."""
        return self.provides

    @property
    def reads(self) -> frozenset[str]:
        """The scores that this part, as configured, asks of detections."""
        return frozenset()

    @classmethod
    def from_shorthand(cls, value: object) -> object:
        """What a plain value in this slot's place stands for; a slot's base may override it."""
        return value


Joined = Literal["auto", "always", "never"]
"""Whether views go through a network as rows of one batch; `auto`: where that adds at most 10 % pixels."""


@dataclass(frozen=True)
class BuildContext:
    """What only the whole recipe knows, for `PluginConfig.build`."""

    num_classes: int
    detector: PluginConfig
    """Networks are built by `context.detector.build(context)`."""
    unlabeled_images: int = 1
    """Unlabeled images of one step, over all processes; on average, where they are drawn."""
    images: int = 1
    """Images of one step, of both kinds, over all processes: no forward has more of either."""
    labeled_boxes_per_image: tuple[float, ...] | None = None
    """Of each class, in the labeled images; None where no data is at hand, as where a checkpoint is loaded."""
    minimum_visible: float = 0.0
    """Pseudo-boxes of which less than this share stays inside the student's view are dropped."""
    joined: Joined = "auto"
    """Labeled and unlabeled views in one forward."""
    load_weights: bool = True
    """False builds backbones with random weights, without network: for tests and benchmarks."""


_registry: dict[str, dict[str, type[PluginConfig]]] = {}
"""Slot -> type -> config class."""


def register(config: type[T]) -> type[T]:
    """Class decorator: let recipes name this plug-in. Slot and name are read from the class.

    Raises RecipeError if another class has the name, TypeError if the class has no slot or no type.
    """
    if not (isinstance(config, type) and issubclass(config, PluginConfig) and config.slot):
        raise TypeError(f"{config!r} is no plug-in: derive it from a slot's config, such as SelectorConfig")
    name = type_name(config)
    known = _registry.setdefault(config.slot, {})
    other = known.get(name, config)
    if (other.__module__, other.__qualname__) != (config.__module__, config.__qualname__):
        raise RecipeError(
            f"the {config.slot} '{name}' is registered twice: by {other.__module__} and by {config.__module__}"
        )
    known[name] = config
    return config


def type_name(config: type[PluginConfig]) -> str:
    """The name by which recipes call a plug-in: the default of its field `type`."""
    name = config.model_fields["type"].default
    if not isinstance(name, str):
        raise TypeError(f'{config.__qualname__} needs a field `type: Literal["name"] = "name"`')
    return name


def members(slot: str) -> Mapping[str, type[PluginConfig]]:
    """Type name -> config class of every registered plug-in of a slot, by name."""
    return dict(sorted(_registry.get(slot, {}).items()))


def slots() -> tuple[str, ...]:
    """Names of all slots that have a member."""
    return tuple(sorted(_registry))


class SlotMarker:
    """Validates a value as a member of the annotated slot, whatever is registered by then."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        base: type[PluginConfig] = source
        return core_schema.no_info_plain_validator_function(
            lambda value: _validate_member(base, value),
            serialization=core_schema.plain_serializer_function_ser_schema(lambda value: value.model_dump(mode="json")),
            metadata={"slot": base.slot},
        )

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """A placeholder: slots nest, so only the schema of the whole recipe can say what they hold."""
        while schema["type"] == "function-after":  # what the field asks of the member, beside the slot
            schema = schema["schema"]
        return {"slot": schema["metadata"]["slot"]}


Slot = Annotated[T, SlotMarker()]
"""`Slot[MatcherConfig]` is a field that takes any registered matcher."""


def _validate_member(base: type[PluginConfig], value: object) -> PluginConfig:
    if isinstance(value, base):
        return value
    value = base.from_shorthand(value)
    known = members(base.slot)
    names = ", ".join(known)
    if not isinstance(value, Mapping):
        raise _custom_error("slot_form", f"write a {base.slot} as {{type: NAME, ...}}; names: {names}")
    name = value.get("type")
    if name is None:
        raise _error_at_type("slot_missing", f"say which {base.slot} is meant; one of: {names}", value)
    if not isinstance(name, str) or name not in known:
        raise _error_at_type("slot_unknown", f"there is no {base.slot} '{name}'; {suggest(str(name), known)}", name)
    return known[name].model_validate(value)


def suggest(name: str, known: Iterable[str]) -> str:
    """What to say about a name that does not exist: the nearest one that does, else all of them."""
    near = difflib.get_close_matches(name, known := list(known), n=1, cutoff=0.5)
    return f"did you mean '{near[0]}'?" if near else f"one of: {', '.join(known)}"


def _custom_error(kind: str, message: str) -> PydanticCustomError:
    return PydanticCustomError(kind, "{message}", {"message": message})


def _error_at_type(kind: str, message: str, value: object) -> ValidationError:
    return ValidationError.from_exception_data("slot", [mistake_at(("type",), message, value, kind)])


def mistake_at(
    location: tuple[str | int, ...], message: str, value: object, kind: str = "value_error"
) -> InitErrorDetails:
    """One of the mistakes that a validator of several fields may raise together, at its own place below the model's.

    For `ValidationError.from_exception_data`; a ValueError would have the place of the whole model.
    """
    return InitErrorDetails(type=_custom_error(kind, message), loc=location, input=value)


_STOPS = (Interrupted, KeyboardInterrupt)
"""What ends the program while somebody's module is imported. All else that leaves it is its own, SystemExit, too."""


def load_plugins(modules: Iterable[str] = (), folder: Path | None = None) -> None:
    """Import every built-in plug-in, the installed ones (entry points), and `modules`, looked up from `folder`.

    Raises RecipeError that names the module or distribution which cannot be imported.
    """
    _load_built_in()
    for entry in _installed(tuple(sys.path)):
        try:
            entry.load()
        except _STOPS:
            raise
        except BaseException as error:
            owner = entry.dist.name if entry.dist else entry.value
            plugin = f"the plug-in '{entry.name}' of the installed package {owner}"
            raise RecipeError(f"{plugin} cannot be imported: {_reason(error)}") from error
    for name in modules:
        load_module(locate_module(name, folder or Path.cwd()))


@cache
def _load_built_in() -> None:
    for package in PACKAGES:
        for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
            if not module.ispkg:
                importlib.import_module(f"{package}.{module.name}")


@lru_cache(maxsize=1)
def _installed(path: tuple[str, ...]) -> importlib.metadata.EntryPoints:
    """Plug-ins of the distributions on the import path. All of them are opened to see, so it is done once."""
    return importlib.metadata.entry_points(group=ENTRY_POINTS)


def locate_module(name: str, folder: Path) -> str:
    """The absolute path of a plug-in module that lies beside a recipe in `folder`, else the name itself.

    A name is a path ending in `.py`, or dotted: a module or package in the folder, else an installed one. Raises
    RecipeError where it is neither.
    """
    if name.endswith(".py") and "\0" not in name:
        return str((folder / name).resolve())
    if not all(part.isidentifier() for part in name.split(".")):
        raise RecipeError(f"{name!r} names no module; write a path such as mine.py, or a name such as package.module")
    stem = folder.joinpath(*name.split("."))
    for path in (stem.with_name(f"{stem.name}.py"), stem / "__init__.py"):
        if path.is_file():
            return str(path.resolve())
    return name


def load_module(location: str) -> None:
    """Import an installed module, or a file by its module name, so that worker processes find it as well.

    The file's folder joins the end of the import path. Raises RecipeError where the module cannot be imported, or
    where another module has its name.
    """
    try:
        if not location.endswith(".py"):
            importlib.import_module(location)
            return
        path = Path(location)
        if not path.is_file():
            raise RecipeError(f"there is no file {path}")
        name, root = module_name(path)
        if str(root) not in sys.path:
            sys.path.append(str(root))
        importlib.invalidate_caches()
        *_, found = [None, *files_of_module(name)]
        if found is None or found.resolve() != path:
            raise RecipeError(f"its module name '{name}' is taken by {found or 'another module'}; rename the file")
        importlib.import_module(name)
    except _STOPS:
        raise
    except BaseException as error:
        raise RecipeError(f"the module '{location}' cannot be imported: {_reason(error)}") from error


def module_name(path: Path) -> tuple[str, Path]:
    """The dotted name of a plug-in's file, and the folder that it is imported from: the first that is no package."""
    names = [] if path.stem == "__init__" else [path.stem]
    root = path.parent
    while (root / "__init__.py").is_file():
        names.insert(0, root.name)
        root = root.parent
    return ".".join(names), root


def files_of_module(name: str) -> list[Path]:
    """The files that importing a module runs: its packages' and, in the end, its own; nothing is run here."""
    first, *rest = name.split(".")
    try:
        spec = importlib.util.find_spec(first)
    except ValueError:  # of a module without a spec, such as __main__: it runs already
        return []
    files = []
    while spec is not None:
        if spec.has_location and spec.origin is not None:
            files.append(Path(spec.origin))
        if not rest:
            break
        spec = PathFinder.find_spec(f"{spec.name}.{rest.pop(0)}", spec.submodule_search_locations or [])
    return files


def _reason(error: BaseException) -> str:
    """What went wrong in somebody's module, and in which line of it."""
    if isinstance(error, RecipeError):
        return str(error)
    _, *frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    place = f" ({frames[0].filename}, line {frames[0].lineno})" if frames else ""
    said = f": {error}" if str(error) else ""
    return f"{type(error).__name__}{said}{place}"

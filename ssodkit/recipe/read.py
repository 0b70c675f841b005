"""YAML with places: every key and every value remembers the file, line and column where it was written."""

import importlib.resources
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from ssodkit.errors import RecipeError
from ssodkit.plugins import suggest

MOST_PIECES = 100_000
"""Values of a document; the largest recipes have a thousand."""
MOST_LEVELS = 100
"""Of mappings and lists in one another."""


@dataclass(frozen=True, order=True)
class Place:
    """Where something was written: a file with line and column, both from 1, or a `--set` without them."""

    source: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source

    @property
    def folder(self) -> Path:
        """What relative paths at this place are relative to."""
        return Path(self.source).parent if self.line else Path.cwd()


@dataclass(frozen=True)
class Written:
    """A piece of a recipe: a scalar, a mapping or a list, whose pieces have places of their own."""

    value: Any
    """A scalar, `dict[str, Written]` or `list[Written]`."""
    place: Place
    key: Place
    """Of the key that leads here; where there is none, of the value."""

    @property
    def plain(self) -> Any:
        """The value as YAML readers know it, without places."""
        if isinstance(self.value, dict):
            return {key: item.plain for key, item in self.value.items()}
        return [item.plain for item in self.value] if isinstance(self.value, list) else self.value


@dataclass(frozen=True, order=True)
class Mistake:
    """One thing that is wrong in a recipe."""

    place: Place
    key: str
    """Dotted path, empty for the whole recipe."""
    text: str

    def __str__(self) -> str:
        where = f"{self.place}{'' if self.place.line else ':'} {self.key}" if self.key else self.place
        return _in_one_line(f"{where}: {self.text}")


def _in_one_line(text: str) -> str:
    """The same text, its line breaks and whatever else cannot be printed written as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def refuse(mistakes: Iterable[Mistake], cause: Exception | None = None) -> None:
    """Raise one RecipeError that shows all mistakes, one per line and by place; without any, do nothing."""
    if lines := [str(mistake) for mistake in sorted(set(mistakes))]:
        raise RecipeError("\n".join(lines)) from cause


def shipped_folder(name: str = "recipes") -> Path:
    """A folder that comes with the package: inside an installed one, beside it in a checkout."""
    package = Path(str(importlib.resources.files("ssodkit")))
    inside = package / name
    return inside if inside.is_dir() else package.parent / name


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with the package and can be run, such as `coco/soft_teacher`."""
    folder = shipped_folder()
    names = (path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))
    return sorted(name for name in names if not name.startswith("bases/"))


def find_recipe(name: str, folder: Path) -> Path:
    """The file that `name` means: a path, relative to `folder`, or the name of a shipped recipe.

    Raises RecipeError that names the nearest shipped recipe.
    """
    shipped = shipped_folder()
    for path in (folder / name, shipped / name, shipped / f"{name}.yaml"):
        if path.is_file():
            return path
    hint = suggest(name.removesuffix(".yaml"), shipped_recipes())
    raise RecipeError(f"there is no recipe '{name}': no such file, and none of this name is shipped; {hint}")


def read_recipe_file(path: Path, mistakes: list[Mistake]) -> Written:
    """The mapping in a file. Mistakes are added to the list; what they concern is left out."""
    written = read_yaml_file(path, mistakes)
    if written is not None and not isinstance(written.value, dict):
        mistakes.append(Mistake(written.place, "", "a recipe is a mapping of keys, such as `name: mine`"))
        written = None
    start = Place(_shown(path), 1, 1)
    return Written(written.value if written else {}, start, start)


def read_yaml_file(path: Path, mistakes: list[Mistake]) -> Written | None:
    """What a file says, None where it is empty or cannot be read; the latter is added to the mistakes."""
    source = _shown(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        mistakes.append(Mistake(Place(source, 1, 1), "", f"this file cannot be read: {reason}"))
        return None
    written, found = _parse_file(text, source)
    mistakes.extend(found)
    return written


@lru_cache(maxsize=256)
def _parse_file(text: str, source: str) -> tuple[Written | None, tuple[Mistake, ...]]:
    """What a file of this text says, and its mistakes: recipes share their bases, a suite's rows their recipes."""
    mistakes: list[Mistake] = []
    return parse_yaml(text, source, mistakes), tuple(mistakes)


def _shown(path: Path) -> str:
    """A path as errors name it: relative to where the user stands, if it lies below."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def parse_yaml(text: str, source: str, mistakes: list[Mistake]) -> Written | None:
    """The YAML document in `text`, None where it is empty. Mistakes are added to the list."""
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(source, mark.line + 1, mark.column + 1) if mark else Place(source, 1, 1)
        what = ", ".join(part for part in (error.problem, error.context) if part)
        mistakes.append(Mistake(place, "", what if isinstance(error, _TooDeep) else f"this is not YAML: {what}"))
        return None
    except yaml.YAMLError as error:
        mistakes.append(Mistake(Place(source, 1, 1), "", f"this is not YAML: {' '.join(str(error).split())}"))
        return None
    except ValueError:  # PyYAML's own conversions: an escape beyond Unicode, a version of more than 4,300 digits
        text = "this is not YAML: an escape or a version has too large a number"
        mistakes.append(Mistake(Place(source, 1, 1), "", text))
        return None
    return None if node is None else _Reader(source, mistakes).read(node, ())


class _Reader:
    """Turns YAML nodes into `Written`."""

    def __init__(self, source: str, mistakes: list[Mistake]) -> None:
        self.source = source
        self.mistakes = mistakes
        self.open: list[yaml.Node] = []
        """The mappings and lists around the node being read, to find an alias inside its own anchor."""
        self.pieces = 0
        """Scalars, mappings and lists read so far; an alias counts as all that it repeats."""

    def read(self, node: yaml.Node, keys: tuple[str, ...], key_place: Place | None = None) -> Written:
        place = self._place(node)
        value: Any = None
        self.pieces += 1
        if node in self.open:
            self._refuse(node, keys, "this alias contains itself")
        elif self.pieces > MOST_PIECES:
            if self.pieces == MOST_PIECES + 1:
                text = f"here the document passes {MOST_PIECES:,} values, counting what aliases repeat"
                self._refuse(node, keys, text)
        elif isinstance(node, yaml.ScalarNode):
            value = self._scalar(node, keys)
        else:
            self.open.append(node)
            value = self._mapping(node, keys) if isinstance(node, yaml.MappingNode) else self._list(node, keys)
            self.open.pop()
        return Written(value, place, key_place or place)

    def _mapping(self, node: yaml.MappingNode, keys: tuple[str, ...]) -> dict[str, Written]:
        items: dict[str, Written] = {}
        for key_node, value_node in node.value:
            key = self._scalar(key_node, keys) if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str):
                self._refuse(key_node, keys, "a key is text; put it in quotes if it looks like something else")
            elif key in items:
                first = items[key].key
                self._refuse(key_node, (*keys, key), f"this key stands twice; first in line {first.line}")
            else:
                items[key] = self.read(value_node, (*keys, key), self._place(key_node))
        return items

    def _list(self, node: yaml.Node, keys: tuple[str, ...]) -> list[Written]:
        return [self.read(item, (*keys, str(index))) for index, item in enumerate(node.value)]

    def _scalar(self, node: yaml.ScalarNode, keys: tuple[str, ...]) -> Any:
        try:
            value = _SCALARS[node.tag](node.value)
        except (KeyError, ValueError):
            self._refuse(node, keys, f"the tag '{node.tag}' has no meaning here")
            return None
        except OverflowError:
            self._refuse(node, keys, "this whole number has more than 64 bits; no field takes one")
            return None
        if isinstance(value, str) and (found := _UNWRITABLE.search(value)):
            self._refuse(node, keys, f"this text holds the character U+{ord(found[0]):04X}, which no file can hold")
        return value

    def _place(self, node: yaml.Node) -> Place:
        return Place(self.source, node.start_mark.line + 1, node.start_mark.column + 1)

    def _refuse(self, node: yaml.Node, keys: tuple[str, ...], text: str) -> None:
        self.mistakes.append(Mistake(self._place(node), ".".join(keys), text))


class _TooDeep(yaml.MarkedYAMLError):
    """YAML, but more mappings and lists in one another than a recipe has."""


class _Loader(yaml.SafeLoader):
    """YAML 1.2's scalars: 1e-4 is a number, and `on`, `no`, 2026-11-20 and 1:30 are text."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own name, filled below
    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """As PyYAML's, which calls itself for each level."""
        self.depth += 1
        if self.depth > MOST_LEVELS:
            mark = self.peek_event().start_mark
            raise _TooDeep(problem=f"nested in more than {MOST_LEVELS} levels", problem_mark=mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


_UNWRITABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
"""What YAML lets no file hold as it is, but takes as an escape."""
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$")
_TAG = "tag:yaml.org,2002:"


def _whole_number(text: str) -> int:
    """Raises OverflowError beyond 64 bits: no field takes such a number, and no library below would."""
    if abs(float(text)) >= 2.0**63:
        raise OverflowError
    return int(text.lstrip("+-0") or "0") * (-1 if text.startswith("-") else 1)


_Loader.add_implicit_resolver(_TAG + "null", re.compile(r"(~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver(_TAG + "bool", re.compile(r"(true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver(_TAG + "int", re.compile(r"[-+]?[0-9]+$"), list("-+0123456789"))
_Loader.add_implicit_resolver(_TAG + "float", FLOAT, list("-+.0123456789"))
_SCALARS: dict[str, Callable[[str], Any]] = {
    _TAG + "null": lambda text: None,
    _TAG + "bool": lambda text: text.lower() == "true",
    _TAG + "int": _whole_number,
    _TAG + "float": lambda text: float(text.lower().replace(".inf", "inf").replace(".nan", "nan")),
    _TAG + "str": str,
}

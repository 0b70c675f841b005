"""What a recipe can name, as text: every plug-in of every slot, and what its fields mean."""

import inspect
from typing import Any, get_args

import yaml
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from ssodkit.errors import RecipeError
from ssodkit.plugins import Config, PluginConfig, SlotMarker, members, slots, suggest
from ssodkit.recipe.model import Recipe

SECTIONS = ("data", "views", "engine", "evaluation", "watch")
"""Parts of a recipe that are no slot."""


def list_plugins() -> str:
    """One line per plug-in: slot, type and the first line of its description. Plug-ins are loaded by now."""
    rows = [("slot", "type", "what it is")]
    rows += [(slot, name, doc_of(config)[0]) for slot in slots() for name, config in members(slot).items()]
    first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
    return "".join(f"{slot:<{first}}  {name:<{second}}  {summary}\n" for slot, name, summary in rows)


def describe_slot(slot: str) -> str:
    """Every plug-in of a slot: its description, and its fields as a recipe writes them, with default and meaning.

    `slot` may be a section of a recipe as well, such as `data`, whose parts are described likewise. Raises RecipeError
    if there is no such thing.
    """
    if slot in SECTIONS:
        return _describe_section(slot)
    if slot not in slots():
        raise RecipeError(f"there is no kind of plug-in '{slot}'; {suggest(slot, [*slots(), *SECTIONS])}")
    return "\n".join(_describe(name, config) for name, config in members(slot).items())


def _describe_section(section: str) -> str:
    """A section's own keys, then each config that they may hold, by its `type` or the key that holds it."""
    texts: dict[type[Config], str] = {}
    _gather(section, Recipe.model_fields[section].annotation, texts)
    return "\n".join(texts.values())


def _gather(name: str, annotation: Any, texts: dict[type[Config], str]) -> None:
    if isinstance(annotation, type) and issubclass(annotation, Config):
        if annotation in texts:
            return
        if issubclass(annotation, PluginConfig) and annotation.model_fields["type"].is_required():
            texts[annotation] = f"{name}: any of `ssodkit list {annotation.slot}`\n"
            return
        kind = annotation.model_fields["type"].default if "type" in annotation.model_fields else None
        texts[annotation] = _describe(f"{name} {{type: {kind}}}" if kind else name, annotation)
        for key, attribute in annotation.fields_by_key().items():
            field = annotation.model_fields[attribute]
            if not any(isinstance(mark, SlotMarker) for mark in field.metadata):
                _gather(f"{name}.{key}", field.annotation, texts)
    for part in get_args(annotation):
        _gather(name, part, texts)


def _describe(name: str, config: type[Config]) -> str:
    summary, *rest = doc_of(config)
    lines = [f"{name}: {summary}", *(f"  {line}".rstrip() for line in rest)]
    for key, attribute in config.fields_by_key().items():
        field = config.model_fields[attribute]
        if key != "type":
            meaning = " ".join((field.description or "").split())
            needed = "required" if field.is_required() else ""
            comment = ": ".join(part for part in (needed, meaning) if part)
            lines.append(f"    {key + ': ' + default_of(field):<32}{'  # ' + comment if comment else ''}".rstrip())
    return "\n".join(lines) + "\n"


def doc_of(config: type[Config]) -> list[str]:
    """The lines of a config's docstring."""
    return (inspect.getdoc(config) or "").split("\n")


def default_of(field: FieldInfo) -> str:
    """The default as YAML in one line; empty where there is none."""
    if field.is_required():
        return ""
    return one_line(field.get_default(call_default_factory=True))


def one_line(value: object) -> str:
    """A value as YAML in one line."""
    plain = to_jsonable_python(value, exclude_none=True, by_alias=True, inf_nan_mode="constants")
    return yaml.safe_dump([plain], default_flow_style=True, sort_keys=False, width=float("inf")).strip()[1:-1]

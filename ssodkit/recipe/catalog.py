"""What a recipe can name, as text: every plug-in of every slot, and what its fields mean."""

import inspect

import yaml
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from ssodkit.errors import RecipeError
from ssodkit.plugins import PluginConfig, members, slots, suggest


def list_plugins() -> str:
    """One line per plug-in: slot, type and the first line of its description. Plug-ins are loaded by now."""
    rows = [("slot", "type", "what it is")]
    rows += [(slot, name, _doc(config)[0]) for slot in slots() for name, config in members(slot).items()]
    first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
    return "".join(f"{slot:<{first}}  {name:<{second}}  {summary}\n" for slot, name, summary in rows)


def describe_slot(slot: str) -> str:
    """Every plug-in of a slot: its description, and its fields as a recipe writes them, with default and meaning.

    Raises RecipeError if there is no such slot.
    """
    if slot not in slots():
        raise RecipeError(f"there is no kind of plug-in '{slot}'; {suggest(slot, slots())}")
    return "\n".join(_describe(name, config) for name, config in members(slot).items())


def _describe(name: str, config: type[PluginConfig]) -> str:
    summary, *rest = _doc(config)
    lines = [f"{name}: {summary}", *(f"  {line}".rstrip() for line in rest)]
    for key, attribute in config.fields_by_key().items():
        field = config.model_fields[attribute]
        if key != "type":
            meaning = " ".join((field.description or "").split())
            needed = "required" if field.is_required() else ""
            comment = ": ".join(part for part in (needed, meaning) if part)
            lines.append(f"    {key + ': ' + _default(field):<32}{'  # ' + comment if comment else ''}".rstrip())
    return "\n".join(lines) + "\n"


def _doc(config: type[PluginConfig]) -> list[str]:
    return (inspect.getdoc(config) or "").split("\n")


def _default(field: FieldInfo) -> str:
    """The default as YAML in one line; empty where there is none."""
    if field.is_required():
        return ""
    value = field.get_default(call_default_factory=True)
    plain = to_jsonable_python(value, exclude_none=True, by_alias=True, inf_nan_mode="constants")
    return yaml.safe_dump([plain], default_flow_style=True, sort_keys=False, width=float("inf")).strip()[1:-1]

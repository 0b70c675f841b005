"""Nested mappings and lists, seen flat."""

from collections.abc import Mapping
from typing import Any


def flatten(value: Any, key: str = "") -> dict[str, Any]:
    """One mapping with dotted keys, of all leaves; an empty mapping or list is a leaf."""
    if isinstance(value, Mapping) and value:
        parts = {f"{key}.{name}" if key else str(name): part for name, part in value.items()}
    elif isinstance(value, list | tuple) and value:
        parts = {f"{key}.{place}": part for place, part in enumerate(value)}
    else:
        return {key: value}
    return {name: leaf for inner, part in parts.items() for name, leaf in flatten(part, inner).items()}

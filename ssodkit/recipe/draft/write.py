"""A plan as text: YAML with the reason of each line behind it."""

from collections.abc import Sequence
from typing import Any

import yaml

from ssodkit.recipe.draft.plan import Line, Plan

COLUMN = 60
"""Where reasons begin, unless the line is longer."""
WIDTH = 120


def as_yaml(plan: Plan) -> str:
    """The recipe as a file; `load_recipe` reads it as it stands."""
    head = [line for sentence in plan.head for line in _wrapped(sentence)]
    rows = [_with_reason(f"  - {base}", why) for base, why in plan.extends]
    return "\n".join([*(f"# {line}" for line in head), "extends:", *rows, *_mapping(plan.lines, 0)]) + "\n"


def _mapping(lines: Sequence[Line], depth: int) -> list[str]:
    """Keys of this depth, each once, in the order in which they first come."""
    rows, pad = [], "  " * depth
    for key in dict.fromkeys(line.key.split(".")[depth] for line in lines):
        below = [line for line in lines if line.key.split(".")[depth] == key]
        leaf = next((line for line in below if len(line.key.split(".")) == depth + 1), None)
        if leaf is not None:
            rows.append(_with_reason(f"{pad}{key}: {_flow(leaf.value)}", leaf.reason))
        else:
            rows += [f"{pad}{key}:", *_mapping(below, depth + 1)]
    return rows


def _flow(value: Any) -> str:
    """A value in one line."""
    text: str = yaml.safe_dump(value, default_flow_style=True, width=1_000_000, sort_keys=False, allow_unicode=True)
    return text.removesuffix("...\n").strip()


def _with_reason(text: str, reason: str) -> str:
    """The line with its reason behind it, or above it where both are too long."""
    row = f"{text.ljust(COLUMN)} # {reason}" if reason else text
    if not reason or len(row) <= WIDTH:
        return row
    pad = " " * (len(text) - len(text.lstrip()))
    return f"{pad}# {reason}\n{text}"


def _wrapped(sentence: str) -> list[str]:
    words, rows = sentence.split(), [""]
    for word in words:
        if len(rows[-1]) + len(word) > WIDTH:
            rows.append("")
        rows[-1] = f"{rows[-1]} {word}".strip()
    return rows

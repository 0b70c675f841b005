"""What the doctor says: one finding for each thing that is wrong, looks wrong, or should be known."""

from dataclasses import dataclass
from typing import Literal

Severity = Literal["mistake", "warning", "note"]
"""A mistake stops a run, a warning says that it will learn or score less than it could, a note says how things are."""


@dataclass(frozen=True)
class Finding:
    """One thing, in words."""

    severity: Severity
    area: str
    """Such as `files`, `anchors`, `classes`."""
    where: str
    """A key of the recipe, or a file; empty where it is about no single place."""
    what: str
    how: str = ""
    """How it is mended; empty where there is nothing to mend."""

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        return f"{place}{self.what}. {self.how}".strip().removesuffix("..") if self.how else f"{place}{self.what}"

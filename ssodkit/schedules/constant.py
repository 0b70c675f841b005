"""Constant: one number for the whole run."""

from typing import Literal

from pydantic import Field

from ssodkit.plugins import register
from ssodkit.schedules.base import ScheduleConfig
from ssodkit.structures.progress import Progress


@register
class ConstantConfig(ScheduleConfig):
    """The same number at every step; a plain number in a schedule's place means this."""

    type: Literal["constant"] = "constant"

    value: float = Field(ge=0.0)

    def at(self, progress: Progress) -> float:
        """The number."""
        return self.value

    @property
    def span(self) -> tuple[float, float]:
        return self.value, self.value

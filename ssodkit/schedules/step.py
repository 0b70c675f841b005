"""Step: one number before a step, another from it on, such as a burn-in without unlabeled loss."""

from typing import Literal

from pydantic import Field

from ssodkit.plugins import register
from ssodkit.schedules.base import ScheduleConfig, StepNumber, to_step
from ssodkit.structures.progress import Progress


@register
class StepConfig(ScheduleConfig):
    """`before` up to a step, `after` from it on."""

    type: Literal["step"] = "step"

    before: float = Field(ge=0.0)
    after: float = Field(ge=0.0)
    at_step: StepNumber = Field(alias="at")  # `at` is the schedule's verb, so the field needs another name
    """The first step that gets `after`."""

    def at(self, progress: Progress) -> float:
        """One of the two numbers."""
        return self.after if progress.step >= to_step(self.at_step, progress.steps) else self.before

    @property
    def span(self) -> tuple[float, float]:
        return min(self.before, self.after), max(self.before, self.after)

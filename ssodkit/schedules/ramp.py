"""Ramp: a straight line from one number to another, such as an unlabeled weight that fades in."""

from typing import Literal

from pydantic import Field

from ssodkit.plugins import register
from ssodkit.schedules.base import ScheduleConfig, StepNumber, to_step
from ssodkit.structures.progress import Progress


@register
class RampConfig(ScheduleConfig):
    """`before` up to step `start`, then in a line to `after`, which is reached at step `end`."""

    type: Literal["ramp"] = "ramp"

    before: float = Field(0.0, ge=0.0)
    after: float = Field(1.0, ge=0.0)
    start: StepNumber = 0
    end: StepNumber

    def at(self, progress: Progress) -> float:
        """A number between the two; where `end` is not after `start`, it jumps at `start`."""
        start, end = to_step(self.start, progress.steps), to_step(self.end, progress.steps)
        share = (progress.step - start) / max(end - start, 1)
        return self.before + (self.after - self.before) * min(max(share, 0.0), 1.0)

    @property
    def span(self) -> tuple[float, float]:
        return min(self.before, self.after), max(self.before, self.after)

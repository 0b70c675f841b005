"""Every: one number in every n-th step, another between: the momentum of a teacher that is copied now and then."""

from typing import Literal

from pydantic import Field

from ssodkit.plugins import register
from ssodkit.schedules.base import ScheduleConfig, StepCount, to_step
from ssodkit.structures.progress import Progress


@register
class EveryConfig(ScheduleConfig):
    """`then` at each multiple of a number of steps, 0 among them, and `otherwise` between."""

    type: Literal["every"] = "every"

    steps: StepCount
    """How many, or a share of the run; less than one is one."""
    then: float = Field(ge=0.0)
    otherwise: float = Field(ge=0.0)

    def at(self, progress: Progress) -> float:
        """One of the two numbers."""
        return self.otherwise if progress.step % max(to_step(self.steps, progress.steps), 1) else self.then

    @property
    def span(self) -> tuple[float, float]:
        return min(self.then, self.otherwise), max(self.then, self.otherwise)

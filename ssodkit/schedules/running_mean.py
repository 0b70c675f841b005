"""Running mean: the momentum with which an average over steps starts as the plain mean of all states so far.

Source: Xu et al., Soft Teacher, ICCV 2021, arXiv:2106.09018; the rule is that of microsoft/SoftTeacher.
"""

from typing import Literal

from pydantic import Field

from ssodkit.plugins import register
from ssodkit.schedules.base import ScheduleConfig, StepCount, to_step
from ssodkit.structures.progress import Progress


@register
class RunningMeanConfig(ScheduleConfig):
    """Momentum min(cap, 1 - (1 + warmup) / (k + 1 + warmup)) after k updates.

    Without warm-up every state counts alike, until the cap makes the average forget.
    """

    type: Literal["running_mean"] = "running_mean"

    cap: float = Field(0.999, ge=0.0, le=1.0)
    warmup: StepCount = 0
    """A larger number rises more slowly: newer states count for more at the start."""

    def at(self, progress: Progress) -> float:
        """The momentum of the average's update number `progress.step`; update 0 copies."""
        head_start = 1 + to_step(self.warmup, progress.steps)
        return min(self.cap, 1.0 - head_start / (progress.step + head_start))

    @property
    def span(self) -> tuple[float, float]:
        return 0.0, self.cap

"""Warm-up and drops: the learning rate of the classical detector schedules."""

from typing import Literal

from pydantic import Field

from ssodkit.plugins import register
from ssodkit.schedules.base import ScheduleConfig, StepNumber, linear_warmup, to_step
from ssodkit.structures.progress import Progress


@register
class WarmupDropsConfig(ScheduleConfig):
    """A line from `factor` times the value up to the value; then multiplied by `gamma` from each drop on."""

    type: Literal["warmup_drops"] = "warmup_drops"

    value: float = Field(ge=0.0)
    warmup: StepNumber = 0
    """The step that first gets the whole value: 500 in mmdetection, 1000 in detectron2."""
    factor: float = Field(0.001, ge=0.0, le=1.0)
    """The share of the value at step 0."""
    drops: tuple[StepNumber, ...] = ()
    """The first steps that get a lower value."""
    gamma: float = Field(0.1, ge=0.0, le=1.0)

    def at(self, progress: Progress) -> float:
        """The learning rate."""
        steps = progress.steps
        dropped = sum(progress.step >= to_step(drop, steps) for drop in self.drops)
        return self.value * linear_warmup(progress.step, to_step(self.warmup, steps), self.factor) * self.gamma**dropped

    @property
    def span(self) -> tuple[float, float]:
        return 0.0, self.value

"""Warm-up and cosine: a learning rate that stays, then falls along half a cosine to the run's end.

Source of the cosine: Loshchilov and Hutter, SGDR, ICLR 2017, arXiv:1608.03983, eq. 5, without restarts.
"""

import math
from typing import Literal

from pydantic import Field

from ssodkit.plugins import register
from ssodkit.schedules.base import ScheduleConfig, StepNumber, linear_warmup, to_step
from ssodkit.structures.progress import Progress


@register
class WarmupCosineConfig(ScheduleConfig):
    """A line up to the value, flat until a step, then half a cosine down to a share of it."""

    type: Literal["warmup_cosine"] = "warmup_cosine"

    value: float = Field(ge=0.0)
    warmup: StepNumber = 0
    """The step that first gets the whole value."""
    factor: float = Field(0.001, ge=0.0, le=1.0)
    """The share of the value at step 0."""
    flat_until: StepNumber = 0
    """Where the cosine begins; it ends with the run."""
    final: float = Field(0.0, ge=0.0, le=1.0)
    """The share of the value that is left at the run's end."""

    def at(self, progress: Progress) -> float:
        """The learning rate."""
        steps = progress.steps
        flat_until = to_step(self.flat_until, steps)
        share = min(max(progress.step - flat_until, 0) / max(steps - flat_until, 1), 1.0)
        left = self.final + (1.0 - self.final) * 0.5 * (1.0 + math.cos(math.pi * share))
        return self.value * linear_warmup(progress.step, to_step(self.warmup, steps), self.factor) * left

    @property
    def span(self) -> tuple[float, float]:
        return 0.0, self.value

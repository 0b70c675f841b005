"""Rise and fall: a loss weight that swells, stays and fades out.

Source: Jeong et al., CSD, NeurIPS 2019, section 3.3, in the released code (soo89/CSD-SSD, soo89/CSD-RFCN).
"""

import math
from typing import Literal

from pydantic import Field

from ssodkit.plugins import register
from ssodkit.schedules.base import ScheduleConfig, StepNumber, to_step
from ssodkit.structures.progress import Progress


@register
class RiseAndFallConfig(ScheduleConfig):
    """With T steps: peak exp(-5 (1 - t/up)^2) before `up`, 0 at step 0; the peak up to `down`; after it
    peak exp(-12.5 (1 - (T - t)/(T - down))^2)."""

    type: Literal["rise_and_fall"] = "rise_and_fall"

    peak: float = Field(1.0, ge=0.0)
    up: StepNumber = "28.5715 %"
    """The step that first gets the peak: at 2/7 of two-stage CSD's run."""
    down: StepNumber = "85.7143 %"
    """The last step that gets it, at 6/7 of that run; `never`: it does not fade."""

    def at(self, progress: Progress) -> float:
        """The weight; where `down` is not after `up`, it falls from the peak at once."""
        step, steps = progress.step, progress.steps
        up = to_step(self.up, steps)
        down = max(up, to_step(self.down, steps))
        if step < up:
            return self.peak * math.exp(-5.0 * (1.0 - step / up) ** 2) if step else 0.0
        if step <= down:
            return self.peak
        left = (steps - step) / max(steps - down, 1)
        return self.peak * math.exp(-12.5 * (1.0 - left) ** 2)

    @property
    def span(self) -> tuple[float, float]:
        return 0.0, self.peak

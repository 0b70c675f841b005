"""Schedules: numbers that depend on how far the run is. Whatever is counted in steps stands in a recipe's schedule."""

import re
from abc import ABC, abstractmethod
from typing import Annotated, ClassVar

from pydantic import AfterValidator, BeforeValidator

from ssodkit.plugins import PluginConfig, Slot
from ssodkit.structures.progress import Progress

HIGHEST_RATE = 100.0
"""No learning rate is above this."""


class StepMarker:
    """Marks a field as a step number, so that the recipe check finds those beyond the run's end."""


def _check_step_number(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("a step number is an integer, a share of the run such as `33 %`, or `never`")
    if isinstance(value, int):
        if value < 0:
            raise ValueError("a step number is not negative")
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", value)
    if value != "never" and (match is None or float(match[1]) > 100):
        raise ValueError(f"'{value}' is no step number: an integer, a share of the run such as `33 %`, or `never`")
    return value


StepCount = Annotated[int | str, BeforeValidator(_check_step_number)]
"""How many steps: an integer, or a share of the run (`33 %`, rounded down). It may be more than the run has."""
StepNumber = Annotated[StepCount, StepMarker()]
"""A moment of the run: an integer, a share of the run, or `never`."""


def to_step(number: int | str, steps: int) -> int:
    """The step that `number` means in a run of `steps`; `never` is one beyond the run's end."""
    if isinstance(number, int):
        return number
    if number == "never":
        return steps + 1
    return int(float(number.strip().rstrip("%")) * steps / 100.0 + 1e-9)


class ScheduleConfig(PluginConfig, ABC):
    """A number as a function of progress; a plain number in its place means `constant`."""

    slot: ClassVar[str] = "schedule"

    @abstractmethod
    def at(self, progress: Progress) -> float:
        """The value for the step that begins after `progress.step` finished updates."""

    @property
    @abstractmethod
    def span(self) -> tuple[float, float]:
        """What no value of `at` is below, and what none is above, however long the run is."""

    @classmethod
    def from_shorthand(cls, value: object) -> object:
        """A plain number is a constant."""
        if isinstance(value, int | float) and not isinstance(value, bool):
            return {"type": "constant", "value": value}
        return value


def within(low: float, high: float) -> AfterValidator:
    """Marks a field of type `Slot[ScheduleConfig]`, whose values must stay from `low` to `high`."""

    def check(schedule: ScheduleConfig) -> ScheduleConfig:
        lowest, highest = schedule.span
        if lowest < low:
            raise ValueError(f"must be at least {low}, and this schedule falls to {lowest:g}")
        if highest > high:
            raise ValueError(f"must be at most {high}, and this schedule reaches {highest:g}")
        return schedule

    return AfterValidator(check)


Share = Annotated[Slot[ScheduleConfig], within(0.0, 1.0)]
"""From 0 to 1 all along."""
LossWeight = Annotated[Slot[ScheduleConfig], within(0.0, 1000.0)]
"""What a loss is multiplied by."""
LearningRate = Annotated[Slot[ScheduleConfig], within(0.0, HIGHEST_RATE)]
"""What an optimizer steps by."""


def linear_warmup(step: int, length: int, factor: float) -> float:
    """What a learning rate is multiplied by: from `factor` at step 0 in a line to 1 at step `length`, then 1.

    The warm-ups of mmdetection, 1 - (1 - t/length)(1 - factor), and of detectron2, factor (1 - t/length) + t/length,
    are this line; they differ in its length.
    """
    if step >= length:
        return 1.0
    return factor + (1.0 - factor) * step / length

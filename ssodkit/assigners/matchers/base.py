"""Matchers say which candidate learns from which target. They serve labeled and pseudo-labeled data alike."""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import nn

from ssodkit.plugins import BuildContext, PluginConfig
from ssodkit.structures.predictions import Predictions
from ssodkit.structures.progress import Progress
from ssodkit.structures.teaching import Assignment, Targets


class MatcherConfig(PluginConfig, ABC):
    """What it `needs` are capabilities of the stage: `places` where it reads where candidates lie, `strides` where it
    counts in cells, `predictions` where it reads what they answer."""

    slot: ClassVar[str] = "matcher"

    @property
    def learns_from(self) -> float | None:
        """The IoU from which on a candidate learns from a target; None where something else decides as well."""
        return None

    def misfit(self, levels: int) -> str | None:
        """A sentence that says why it cannot serve a pyramid of so many levels; None if it can."""
        return None

    @abstractmethod
    def build(self, context: BuildContext) -> "Matcher": ...


class Matcher(nn.Module, ABC):
    """Called without gradient, in fp32; targets of weight 0 and crowds never reach it (see `detectors.learning`)."""

    @abstractmethod
    def forward(self, predictions: Predictions, targets: Targets, progress: Progress) -> Assignment:
        """Every valid candidate's target, BACKGROUND or IGNORE; weight 1, nothing sampled yet."""

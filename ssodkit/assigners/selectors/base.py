"""Selectors say which of the teacher's detections become targets. They never see a detector."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from pydantic import Field, model_validator
from torch import Tensor, nn

from ssodkit.plugins import BuildContext, Config, PluginConfig, UpToInfinity
from ssodkit.structures.predictions import Detections
from ssodkit.structures.progress import Progress
from ssodkit.structures.run import Selection
from ssodkit.structures.teaching import Targets


class SetRule(Config):
    """What enters one target set: detections whose score lies strictly above, or strictly below, a number."""

    score: str
    """A score that detections carry: `confidence`, or what an instance scorer of the recipe writes."""
    above: float | None = None
    below: UpToInfinity | None = None
    """`.inf`: whatever an instance scorer was asked about."""
    ignore_from: UpToInfinity | None = None
    """What fails but reaches this stays in the set with weight 0: its candidates are ignored."""

    @model_validator(mode="after")
    def _one_side(self) -> "SetRule":
        if (self.above is None) == (self.below is None):
            raise ValueError("give either `above` or `below`")
        if self.ignore_from is not None:
            if self.above is not None and self.ignore_from > self.above:
                raise ValueError("`ignore_from` lies beyond `above`, so it would never act")
            if self.below is not None and self.ignore_from < self.below:
                raise ValueError("`ignore_from` lies beyond `below`, so it would never act")
        if self.score == "confidence":
            if self.above is not None and self.above > 1.0:
                raise ValueError(f"no confidence is above {self.above:g}: they lie between 0 and 1")
            if self.below is not None and self.below < 0.0:
                raise ValueError(f"no confidence is below {self.below:g}: they lie between 0 and 1")
        return self


class Suppress(Config):
    """Non-maximum suppression among the detections, before any threshold."""

    iou: float = Field(0.5, gt=0.0, le=1.0)
    across_classes: bool = True


class Shortlist(Config):
    """Which detections are considered, before any threshold."""

    at_most: int = Field(100, ge=1)
    """Detections per image that may become targets: the best by confidence."""
    suppress: Suppress | None = None
    deviations: float | None = Field(None, ge=0.0, le=100.0)
    """So many standard deviations above the mean confidence of its image's detections must a detection's be, at least;
    an only one is. Null: any (Semi-DETR: 1)."""


class SelectorConfig(Shortlist, PluginConfig, ABC):
    """Fields that all selectors share."""

    slot: ClassVar[str] = "selector"
    learns: ClassVar[bool] = False
    """It has state that fills from what it sees, and should see detections before they teach."""

    more_boxes: ClassVar[str] = "let more through in `method.selector`"
    """What helps where too few detections become targets: the middle of a sentence."""
    fewer_boxes: ClassVar[str] = "let less through in `method.selector`"
    """What helps where too many do."""

    @abstractmethod
    def build(self, context: BuildContext) -> "Selector": ...


@dataclass(frozen=True)
class SelectionContext:
    """What a selector knows beside the detections."""

    progress: Progress
    labeled: Targets
    """The step's ground truth, in the frame of the labeled views."""


class Selector(nn.Module, ABC):
    """Called without gradient, in the weak frame, before anything is carried."""

    @abstractmethod
    def forward(self, found: Detections, context: SelectionContext) -> Selection:
        """Target sets whose row i comes from detection i, and what each filter let through.

        A step calls it once for each of its micro-batches. What it wants to keep waits for `after_update`.
        """

    def after_update(self, progress: Progress, ok: Tensor) -> None:
        """The one place where a selector's state changes; `ok`, 0-d and on the device, says the step was finite."""

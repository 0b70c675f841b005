"""Max IoU: a candidate learns from the target it overlaps most, and is background if it overlaps none enough.

Source: Ren et al., Faster R-CNN, arXiv:1506.01497, section 3.1.2; what the published trainers add are fields.
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator

from ssodkit.assigners.matchers.base import Matcher, MatcherConfig
from ssodkit.ops.boxes import at_least_fp32
from ssodkit.ops.matching import best_overlaps
from ssodkit.plugins import BuildContext, register
from ssodkit.structures.predictions import Predictions
from ssodkit.structures.progress import Progress
from ssodkit.structures.teaching import BACKGROUND, IGNORE, Assignment, Targets


@register
class MaxIouConfig(MatcherConfig):
    """Positive, background, or ignored in between, by a candidate's best IoU."""

    type: Literal["max_iou"] = "max_iou"
    needs: ClassVar[frozenset[str]] = frozenset({"places"})

    positive: float = Field(0.7, gt=0.0, le=1.0)
    """Candidates whose best IoU reaches this learn from that target."""
    negative: float = Field(0.3, ge=0.0, le=1.0)
    """Candidates whose best IoU stays below this are background."""
    best_from: float | None = Field(0.3, ge=0.0, le=1.0)
    """A target's best candidates, equals included, are positive where their IoU reaches this and is above 0, so that
    no target is left without: 0.3 in mmdetection, 0 in torchvision and detectron2. Null: no such rule."""
    best_learns: Literal["that_target", "its_own"] = "that_target"
    """What they learn from: the target whose best they are (mmdetection), or the one they overlap most themselves
    (torchvision, detectron2)."""

    @property
    def learns_from(self) -> float | None:
        """The IoU of a positive."""
        return self.positive

    @model_validator(mode="after")
    def _thresholds_are_ordered(self) -> "MaxIouConfig":
        if self.negative > self.positive:
            raise ValueError("`negative` lies above `positive`, so candidates between them would be both")
        if self.best_from is None and self.best_learns != "that_target":
            raise ValueError("`best_learns` has no effect without `best_from`")
        return self

    def build(self, context: BuildContext) -> "MaxIou":
        return MaxIou(self)


class MaxIou(Matcher):
    """Quality is the IoU with the target that a positive learns from, and a background candidate's best IoU."""

    def __init__(self, config: MaxIouConfig) -> None:
        super().__init__()
        self.config = config

    @torch.no_grad()
    def forward(self, predictions: Predictions, targets: Targets, progress: Progress) -> Assignment:
        config, candidates = self.config, predictions.candidates
        found = best_overlaps(
            at_least_fp32(candidates.boxes), candidates.valid, targets.boxes, targets.valid, config.best_from
        )
        index = torch.where(found.iou < config.negative, BACKGROUND, IGNORE)
        index = torch.where(found.iou >= config.positive, found.target, index)
        is_best, quality = found.best_of >= 0, found.iou
        if config.best_learns == "its_own":
            index = torch.where(is_best, found.target, index)
        elif targets.boxes.shape[1]:
            index = torch.where(is_best, found.best_of, index)
            quality = torch.where(is_best, found.target_iou.gather(1, found.best_of.clamp(min=0)), quality)
        return Assignment.matched(index, quality, candidates.valid)

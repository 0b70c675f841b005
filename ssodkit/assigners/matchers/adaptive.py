"""Adaptive sample assignment: whoever answers best about a target learns from it, and its IoU says how much.

Source: Wang et al., Consistent-Teacher, CVPR 2023, arXiv:2209.01589; where paper and code (Adamdad/ConsistentTeacher)
differ, the code's rule.
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from ssodkit.assigners.matchers.answers import Answers, compare
from ssodkit.assigners.matchers.base import Matcher, MatcherConfig
from ssodkit.ops.adaptive_matching import (
    Takes,
    distance_costs,
    focal_corrections,
    focal_costs_of_background,
    overlap_costs,
    take_cheapest,
)
from ssodkit.ops.boxes import at_least_fp32, pairwise_iou
from ssodkit.ops.matching import inside_any, quality_by_rank, target_chunks
from ssodkit.ops.rows import class_columns
from ssodkit.plugins import BuildContext, register
from ssodkit.structures.predictions import Predictions
from ssodkit.structures.progress import Progress
from ssodkit.structures.teaching import Assignment, Targets


@register
class AdaptiveConfig(MatcherConfig):
    """A target takes the candidates that cost it the least: classification, IoU and distance together."""

    type: Literal["adaptive"] = "adaptive"
    needs: ClassVar[frozenset[str]] = frozenset({"predictions", "places", "strides"})

    candidates_per_target: int = Field(13, ge=1, le=10_000)
    """The sum of that many best IoUs, rounded down, is how many candidates a target takes, at least one."""
    iou_weight: float = Field(2.0, ge=0.0, le=1e6)
    """Of -log IoU in the cost: 2, and 3 for full COCO."""
    distance_weight: float = Field(0.001, ge=0.0, le=1e6)
    """Of the distance between a candidate's center and a target's in the cost."""
    distance_base: float = Field(10.0, ge=1.0, le=1e6)
    """The cost grows by this factor with every cell of distance."""
    balance: float = Field(0.25, ge=0.0, le=1.0)
    """Focal loss's alpha, in the classification cost."""
    focus: float = Field(2.0, ge=0.0, le=100.0)
    """Its gamma."""

    def build(self, context: BuildContext) -> "Adaptive":
        return Adaptive(self)


class Adaptive(Matcher):
    """Quality is the IoU of a candidate's answer with its target, of a background candidate the best with any."""

    def __init__(self, config: AdaptiveConfig) -> None:
        super().__init__()
        self.config = config

    @torch.no_grad()
    def forward(self, predictions: Predictions, targets: Targets, progress: Progress) -> Assignment:
        candidates, answers = predictions.candidates, compare(predictions, targets)
        assert candidates.stride is not None
        corners = at_least_fp32(candidates.boxes).to(answers.boxes.dtype)
        points = 0.5 * (corners[..., :2] + corners[..., 2:])
        eligible = inside_any(points, answers.goals) & answers.valid
        found = self._take(answers, points, candidates.stride, eligible)
        iou = answers.own_iou(found.target)
        quality = quality_by_rank(found.target, iou, iou, answers.goals.shape[1])
        quality = torch.where(found.target < 0, found.iou, quality)
        return Assignment.matched(found.target, quality, answers.valid)

    def _take(self, answers: Answers, points: Tensor, strides: Tensor, eligible: Tensor) -> Takes:
        config = self.config
        background = focal_costs_of_background(answers.probs, config.balance, config.focus)
        found = Takes.none(background)
        for part in target_chunks(answers.boxes, answers.goals.shape[1]):
            goals = answers.goals[:, part]
            iou = pairwise_iou(goals, answers.boxes)  # batch targets candidates
            cost = focal_corrections(
                class_columns(answers.probs, answers.labels[:, part]), config.balance, config.focus
            )
            cost += background[:, None]
            cost += overlap_costs(iou).mul_(config.iou_weight)
            cost += distance_costs(points, strides, goals, config.distance_weight, config.distance_base)
            open_pairs = eligible[:, None] & answers.taught[:, part, None] & (cost < torch.inf)  # NaN is not open
            cost = torch.where(open_pairs, cost.clamp_(min=0.0), torch.inf)  # rounding may end below 0
            found = take_cheapest(found, cost, iou, eligible, part.start, config.candidates_per_target)
        return found

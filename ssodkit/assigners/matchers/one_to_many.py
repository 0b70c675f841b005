"""One-to-many: the candidates that name and enclose a target best learn from it, each as much as it does so.

Source: Zhang et al., Semi-DETR, CVPR 2023, arXiv:2307.08095, stage 1; metric and soft target are those of
Feng et al., TOOD, ICCV 2021, arXiv:2108.07755.
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field

from ssodkit.assigners.matchers.answers import compare
from ssodkit.assigners.matchers.base import Matcher, MatcherConfig
from ssodkit.ops.boxes import pairwise_iou
from ssodkit.ops.matching import quality_by_rank, target_chunks
from ssodkit.ops.one_to_many_matching import Claims, alignment, take_best
from ssodkit.ops.rows import class_columns
from ssodkit.plugins import BuildContext, register
from ssodkit.structures.predictions import Predictions
from ssodkit.structures.progress import Progress
from ssodkit.structures.teaching import Assignment, Targets


@register
class OneToManyConfig(MatcherConfig):
    """A target takes the candidates with the largest probability ^ alpha x IoU ^ beta."""

    type: Literal["one_to_many"] = "one_to_many"
    needs: ClassVar[frozenset[str]] = frozenset({"predictions"})

    candidates_per_target: int = Field(13, ge=1, le=10_000)
    """So many are taken, or as many as overlap the target."""
    score_power: float = Field(1.0, ge=0.0, le=100.0)
    """The paper's alpha, of the probability of the target's class."""
    iou_power: float = Field(6.0, gt=0.0, le=100.0)
    """Its beta, of the IoU."""

    def build(self, context: BuildContext) -> "OneToMany":
        return OneToMany(self)


class OneToMany(Matcher):
    """Quality is the soft target of a positive, and of a background candidate the best IoU of its answer."""

    def __init__(self, config: OneToManyConfig) -> None:
        super().__init__()
        self.config = config

    @torch.no_grad()
    def forward(self, predictions: Predictions, targets: Targets, progress: Progress) -> Assignment:
        config, answers = self.config, compare(predictions, targets)
        found = Claims.none(answers.boxes[..., 0])
        for part in target_chunks(answers.boxes, answers.goals.shape[1]):
            iou = pairwise_iou(answers.goals[:, part], answers.boxes)  # batch targets candidates
            score = class_columns(answers.probs, answers.labels[:, part])
            metric = alignment(score, iou, config.score_power, config.iou_power)
            found = take_best(found, metric, iou, part.start, config.candidates_per_target)
        iou = answers.own_iou(found.target)
        metric = alignment(answers.own_prob(found.target), iou, config.score_power, config.iou_power)
        quality = quality_by_rank(found.target, metric, iou, answers.goals.shape[1])
        quality = torch.where(found.target < 0, found.iou, quality)
        return Assignment.matched(found.target, quality, answers.valid)

"""Nearest score: what a candidate says counts as far as the pseudo-box is sure that it overlaps most.

Source: the released code (facebookresearch/unbiased-teacher-v2) of Liu et al., Unbiased Teacher v2, CVPR 2022,
arXiv:2206.09500, for the objectness of anchors.
"""

from dataclasses import replace
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ssodkit.ops.boxes import at_least_fp32
from ssodkit.ops.matching import best_overlaps
from ssodkit.ops.rows import take_rows
from ssodkit.plugins import BuildContext, register
from ssodkit.reliability.base import CandidateScorer, CandidateScorerConfig
from ssodkit.structures.predictions import Candidates, Seen, Stages
from ssodkit.structures.teaching import Plan, Supervision, Targets
from ssodkit.teachers.base import Teacher


@register
class NearestScoreConfig(CandidateScorerConfig):
    """Weigh all that tells things from background before there are proposals, positive or background."""

    type: Literal["nearest_score"] = "nearest_score"
    needs: ClassVar[frozenset[str]] = frozenset({"proposals"})

    def build(self, context: BuildContext) -> "NearestScore":
        return NearestScore()


class NearestScore(CandidateScorer):
    """Multiplies the class weights of the first stage; in an image without pseudo-boxes nothing of it counts."""

    @torch.no_grad()
    def forward(self, teacher: Teacher, seen: Seen, stages: Stages, plan: Plan, pseudo: Supervision) -> Plan:
        stage = next(iter(stages.by_name))
        assignment = plan[stage]["class"]
        scores = nearest_scores(stages.by_name[stage].candidates, pseudo.objectness)
        weighed = replace(assignment, weight=assignment.weight * scores.to(assignment.weight.dtype))
        return {**plan, stage: {**plan[stage], "class": weighed}}


def nearest_scores(candidates: Candidates, targets: Targets) -> Float[Tensor, "batch candidates"]:
    """The score of the teaching target that each candidate overlaps most, of the first where it overlaps none; 0 in an
    image without."""
    teaches = targets.valid & (targets.weight > 0.0) & ~targets.crowd
    if not targets.boxes.shape[1]:
        return torch.zeros_like(candidates.boxes[..., 0])
    best = best_overlaps(at_least_fp32(candidates.boxes), candidates.valid, targets.boxes, teaches)
    first = teaches.to(torch.uint8).argmax(dim=1, keepdim=True)  # the first of equals
    scores = (targets.extra["score"] * teaches)[..., None]
    return take_rows(scores, torch.where(best.iou > 0.0, best.target, first))[..., 0]

"""Background score: a candidate is background as far as the teacher, asked about that very box, says so.

Source: Xu et al., Soft Teacher, ICCV 2021, arXiv:2106.09018, section "Soft Teacher", with its indicators r_j of how
reliable a background candidate j is. That the weights are w_j = r_j / sum_k r_k is the business of the class term's
normalizer: `weights` (the released code's one weighted mean) or `two_means` (the printed equation).
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ssodkit.ops.boxes import has_area
from ssodkit.plugins import BuildContext, register
from ssodkit.reliability.base import CandidateScorer, CandidateScorerConfig
from ssodkit.structures.geometry import carry_boxes
from ssodkit.structures.predictions import Candidates, Predictions, Seen, Stages
from ssodkit.structures.teaching import Plan, Supervision
from ssodkit.teachers.base import Teacher

Indicator = Literal["bg_t", "bg_s", "pred_diff", "iou", "reverse_iou", "none"]
ASKS_THE_TEACHER = ("bg_t", "pred_diff")


@register
class BackgroundScoreConfig(CandidateScorerConfig):
    """Weigh every sampled background candidate by how surely it is background."""

    type: Literal["background_score"] = "background_score"

    indicator: Indicator = "bg_t"
    """Background probability of the teacher (`bg_t`) or the student (`bg_s`), how much the two agree (`pred_diff`),
    best IoU with a pseudo-box (`iou`), what that leaves to 1 (`reverse_iou`), or 1 (`none`)."""

    @property
    def needed(self) -> frozenset[str]:
        """The teacher is asked about the student's regions, if the indicator asks it at all."""
        return frozenset({"exact_regions"} if self.indicator in ASKS_THE_TEACHER else ())

    def build(self, context: BuildContext) -> "BackgroundScore":
        return BackgroundScore(self)


class BackgroundScore(CandidateScorer):
    """Multiplies the class weights of the last stage's background candidates by r_j; positives keep theirs."""

    def __init__(self, config: BackgroundScoreConfig) -> None:
        super().__init__()
        self.config = config

    @torch.no_grad()
    def forward(self, teacher: Teacher, seen: Seen, stages: Stages, plan: Plan, pseudo: Supervision) -> Plan:
        """The teacher is asked at most once, on the features it has, about the sampled background candidates.

        A candidate without area in the teacher's view, such as one in the border that a rotation leaves, has no answer
        from it and counts fully: r_j = 1 (ours; microsoft/SoftTeacher asks about a box clipped to no area).
        """
        stage = list(stages.by_name)[-1]
        assignment, student = plan[stage]["class"], stages.last
        weighed = assignment.background & (assignment.weight > 0.0)
        boxes = carry_boxes(student.candidates.boxes, stages.view, seen.features.view)

        def teacher_background() -> Tensor:
            return background_probability(teacher.score_regions(seen.features, Candidates(boxes, weighed)))

        reliability = indicate(
            self.config.indicator,
            teacher=teacher_background,
            student=lambda: background_probability(student),
            iou=assignment.quality,
        )
        if self.config.indicator in ASKS_THE_TEACHER:
            reliability = torch.where(has_area(boxes), reliability, 1.0)
        # Where nobody was asked, the answer may be anything, and 0 x NaN is NaN: so it is not multiplied.
        weight = torch.where(weighed, assignment.weight * reliability, assignment.weight)
        return {**plan, stage: {**plan[stage], "class": replace(assignment, weight=weight)}}


def indicate(
    indicator: Indicator,
    teacher: Callable[[], Float[Tensor, "batch candidates"]],
    student: Callable[[], Float[Tensor, "batch candidates"]],
    iou: Float[Tensor, "batch candidates"],
) -> Float[Tensor, "batch candidates"]:
    """The reliability r_j of each candidate as background, 0 to 1; not normalized.

    `teacher` and `student` give background probabilities, and are called only where the indicator reads them. `iou` is
    each candidate's best with a pseudo-box, 0 without any.

    Source: arXiv:2106.09018, section "Soft Teacher"; for Reverse-IoU it states the direction only, 1 - IoU is ours.
    """
    match indicator:
        case "bg_t":
            return teacher()
        case "bg_s":
            return student()
        case "pred_diff":
            return 1.0 - (student() - teacher()).abs()
        case "iou":
            return iou
        case "reverse_iou":
            return 1.0 - iou
        case "none":
            return torch.ones_like(iou)


def background_probability(predictions: Predictions) -> Float[Tensor, "batch candidates"]:
    """A softmax's last column; under a sigmoid, what the best class leaves to 1."""
    probs = predictions.class_probs()
    return probs[..., -1] if predictions.activation == "softmax" else 1.0 - probs.amax(dim=-1)

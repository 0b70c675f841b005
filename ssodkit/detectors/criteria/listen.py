"""Listen: a side of a box is learned where who teaches it is clearly surer of it than who learns.

Source: Liu et al., Unbiased Teacher v2, CVPR 2022, arXiv:2206.09500, section 3.3 (Listen2Student); its released
code (facebookresearch/unbiased-teacher-v2) also asks for a certainty of their own.
"""

from typing import ClassVar, Literal

import torch
from jaxtyping import Bool
from pydantic import Field
from torch import Tensor

from ssodkit.detectors.criteria.base import BoxCriterionConfig
from ssodkit.ops.boxes import at_least_fp32
from ssodkit.ops.uncertainty import are_surer, certainty
from ssodkit.plugins import register
from ssodkit.structures.lessons import Lesson
from ssodkit.structures.predictions import Predictions


@register
class ListenConfig(BoxCriterionConfig):
    """The mean distance of codes over the sides that are listened to; a candidate counts as many times.

    So the normalizer `weights` divides by the number of these sides.
    """

    type: Literal["listen"] = "listen"
    needs: ClassVar[frozenset[str]] = frozenset({"uncertainty", "their_uncertainty"})

    above: float = Field(0.5, ge=0.0, lt=1.0)
    """Their certainty of a side is above this: 0.5 in the released Faster R-CNN, 0.8 in its FCOS, 0 on paper."""
    margin: float = Field(0.1, ge=0.0, lt=1.0)
    """And by more than this above one's own."""

    def __call__(self, answers: Predictions, lesson: Lesson, strength: Tensor) -> Tensor:
        own = at_least_fp32(answers.candidates.boxes)
        wanted = answers.coder.encode(own, lesson.boxes.to(own.dtype))
        apart = (at_least_fp32(answers.codes_of(lesson.labels)) - wanted).abs()
        listens = self._listens(answers, lesson)
        return (apart * listens).sum(dim=-1) / listens.sum(dim=-1).clamp(min=1)

    def counts(self, answers: Predictions, lesson: Lesson) -> Tensor:
        """The number of sides that are listened to, 0 to 4."""
        return self._listens(answers, lesson).sum(dim=-1)

    @torch.no_grad()
    def _listens(self, answers: Predictions, lesson: Lesson) -> Bool[Tensor, "batch candidates 4"]:
        theirs = 1.0 - lesson.answer("uncertainty")
        return are_surer(theirs, certainty(answers.extra["uncertainty"]), self.above, self.margin)

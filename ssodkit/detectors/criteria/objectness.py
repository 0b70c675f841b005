"""Objectness: whether there is an object, taught as how well the predicted box fits it.

Source: Xu et al., Efficient Teacher, arXiv:2302.07577, section 3.1.
"""

from typing import ClassVar, Literal

import torch
from torch import Tensor

from ssodkit.detectors.criteria.base import CriterionConfig
from ssodkit.ops.boxes import complete_iou, elementwise_iou
from ssodkit.ops.losses import sigmoid_cross_entropy
from ssodkit.plugins import register
from ssodkit.structures.lessons import Lesson
from ssodkit.structures.predictions import Predictions


@register
class ObjectnessConfig(CriterionConfig):
    """Binary cross-entropy of the answer `objectness`; where nothing is, it should say 0."""

    type: Literal["objectness"] = "objectness"
    needs: ClassVar[frozenset[str]] = frozenset({"box"})
    teaches: ClassVar[str] = "objectness"

    of: Literal["ciou", "iou", "one", "answer"] = "ciou"
    """What it should say of a positive: how well its predicted box fits, 0 where that is negative; 1; or what another
    network says, where one teaches."""

    @property
    def needed(self) -> frozenset[str]:
        """Boxes, or the answers of another network."""
        return frozenset({"objectness", "other_answers"}) if self.of == "answer" else super().needed

    @property
    def teaches_background(self) -> bool:
        """True."""
        return True

    def __call__(self, answers: Predictions, lesson: Lesson, strength: Tensor) -> Tensor:
        said = answers.extra["objectness"]
        with torch.no_grad():
            wanted = self._fit(answers, lesson).clamp(min=0.0) * strength * lesson.assignment.positive
        return sigmoid_cross_entropy(said, wanted.to(said.dtype))

    def _fit(self, answers: Predictions, lesson: Lesson) -> Tensor:
        if self.of == "answer":
            return lesson.answer("objectness")
        if self.of == "one":
            return torch.ones_like(lesson.assignment.quality)
        decoded = answers.decode(lesson.labels)
        measure = complete_iou if self.of == "ciou" else elementwise_iou
        return measure(decoded, lesson.boxes.to(decoded.dtype))

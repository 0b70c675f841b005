"""Softmax cross-entropy over the classes and background, with an optional focus on hard candidates.

Source of the focus: Liu et al., Unbiased Teacher, ICLR 2021, arXiv:2102.09480, the loss of its box head.
"""

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from ssodkit.detectors.criteria.base import ClassCriterionConfig
from ssodkit.ops.losses import softmax_cross_entropy
from ssodkit.plugins import register
from ssodkit.structures.lessons import Lesson
from ssodkit.structures.predictions import Predictions


@register
class SoftmaxConfig(ClassCriterionConfig):
    """Background is the last column. A soft target of t says its label with t and background with 1 - t."""

    type: Literal["softmax"] = "softmax"
    needs: ClassVar[frozenset[str]] = frozenset({"softmax"})

    focus: float = Field(0.0, ge=0.0, le=100.0)
    """Exponent of 1 - p: 0 is cross-entropy; 1.5 is Unbiased Teacher's focal loss."""

    def __call__(self, answers: Predictions, lesson: Lesson, strength: Tensor) -> Tensor:
        logits = answers.class_logits
        return softmax_cross_entropy(logits, lesson.wanted(logits.shape[-1], strength), self.focus)

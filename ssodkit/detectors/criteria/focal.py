"""Focal loss: sigmoid cross-entropy per class that looks away from what is easy.

Source: Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, arXiv:1708.02002, eq. 5.
"""

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from ssodkit.detectors.criteria.base import ClassCriterionConfig
from ssodkit.ops.losses import sigmoid_focal
from ssodkit.plugins import register
from ssodkit.structures.lessons import Lesson
from ssodkit.structures.predictions import Predictions


@register
class FocalConfig(ClassCriterionConfig):
    """Summed over the classes; background is no class, all of its targets are 0."""

    type: Literal["focal"] = "focal"
    needs: ClassVar[frozenset[str]] = frozenset({"sigmoid"})

    balance: float | None = Field(0.25, ge=0.0, le=1.0)
    """The paper's alpha: the weight of what should be said; what should not be has the rest to 1. Null: no weights."""
    focus: float = Field(2.0, ge=0.0, le=100.0)
    """The paper's gamma: exponent of the distance between target and probability."""

    def __call__(self, answers: Predictions, lesson: Lesson, strength: Tensor) -> Tensor:
        logits = answers.class_logits
        wanted = lesson.wanted(logits.shape[-1], strength)
        return sigmoid_focal(logits, wanted, self.focus, self.balance).sum(dim=-1)

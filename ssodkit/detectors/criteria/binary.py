"""Binary cross-entropy of a sigmoid per class."""

from typing import ClassVar, Literal

from torch import Tensor

from ssodkit.detectors.criteria.base import ClassCriterionConfig
from ssodkit.ops.losses import sigmoid_cross_entropy
from ssodkit.plugins import register
from ssodkit.structures.lessons import Lesson
from ssodkit.structures.predictions import Predictions


@register
class BinaryConfig(ClassCriterionConfig):
    """Summed over the classes; background is no class, all of its targets are 0."""

    type: Literal["binary"] = "binary"
    needs: ClassVar[frozenset[str]] = frozenset({"sigmoid"})

    background: bool = True
    """Whether background learns to say no class; else positives alone learn, as where objectness is said apart."""

    @property
    def teaches_background(self) -> bool:
        """As its field says."""
        return self.background

    def __call__(self, answers: Predictions, lesson: Lesson, strength: Tensor) -> Tensor:
        logits = answers.class_logits
        wanted = lesson.wanted(logits.shape[-1], strength)
        return sigmoid_cross_entropy(logits, wanted).sum(dim=-1)

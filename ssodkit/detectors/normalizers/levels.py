"""What divides each level of the pyramid by its own count.

Source: Xu et al., Efficient Teacher, arXiv:2302.07577; the losses of the YOLO detectors of its code.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from ssodkit.detectors.normalizers.base import NormalizerConfig, Parts
from ssodkit.plugins import register
from ssodkit.structures.lessons import Lesson
from ssodkit.structures.predictions import Predictions


@register
class LevelMeansConfig(NormalizerConfig):
    """A mean per level, each a term of its own."""

    type: Literal["level_means"] = "level_means"
    needs: ClassVar[frozenset[str]] = frozenset({"strides"})

    of: Literal["positives", "all"] = "positives"
    """What a level's mean is over: positives that count, or all candidates that learn something."""
    balance: tuple[Annotated[float, Field(ge=0.0, le=1000.0)], ...] = ()
    """A factor of each level, finest first; empty: 1 for all."""
    per_class: bool = False
    """Whether it is also a mean over the classes, of losses that are sums over them."""

    def __call__(self, losses: Tensor, weights: Tensor, lesson: Lesson, answers: Predictions, quota: int) -> Parts:
        assignment, parts, first = lesson.assignment, {}, 0
        learns = assignment.positive if self.of == "positives" else assignment.positive | assignment.background
        counts = learns & (assignment.weight > 0.0)
        divisor = lesson.num_classes if self.per_class else 1
        for level, length in enumerate(answers.candidates.lengths):
            rows = slice(first, first + length)
            factor = self.balance[level] if self.balance else 1.0
            total = factor / divisor * (losses[:, rows] * weights[:, rows]).sum()
            parts[f"/p{level}"] = (total, counts[:, rows].sum().to(losses.dtype))
            first += length
        return parts

    def misfit(self, levels: int) -> str | None:
        if self.balance and len(self.balance) != levels:
            return f"the normalizer's `balance` is for {len(self.balance)} levels, but the pyramid has {levels}"
        return None

"""What divides by how much candidates count: their quality or their weights."""

from typing import Literal

from torch import Tensor

from ssodkit.detectors.normalizers.base import NormalizerConfig, Parts
from ssodkit.plugins import register
from ssodkit.structures.lessons import Lesson
from ssodkit.structures.predictions import Predictions


@register
class QualityConfig(NormalizerConfig):
    """Divided by the sum of the positives' quality, such as their IoU: both terms of Consistent-Teacher.

    Source: Wang et al., arXiv:2209.01589, and its released code (Adamdad/ConsistentTeacher).
    """

    type: Literal["quality"] = "quality"

    def __call__(self, losses: Tensor, weights: Tensor, lesson: Lesson, answers: Predictions, quota: int) -> Parts:
        assignment = lesson.assignment
        counts = assignment.positive & (assignment.weight > 0.0)
        return {"": ((losses * weights).sum(), (assignment.quality * counts).sum().to(losses.dtype))}


@register
class WeightsConfig(NormalizerConfig):
    """Divided by the sum of the weights: the weighted mean. Where all weights are 1, this is `sampled`.

    Source: Soft Teacher's class loss as released (microsoft/SoftTeacher) and confirmed by its author:
    (sum_F l + sum_B r_j l_j) / max(|F| + sum_B r_j, 1).
    """

    type: Literal["weights"] = "weights"

    def __call__(self, losses: Tensor, weights: Tensor, lesson: Lesson, answers: Predictions, quota: int) -> Parts:
        return {"": ((losses * weights).sum(), weights.sum())}


@register
class TwoMeansConfig(NormalizerConfig):
    """Mean over foreground plus weighted mean over background, as two terms.

    Source: Xu et al., Soft Teacher, arXiv:2106.09018, section "Soft Teacher", the unsupervised class loss as printed:
    1 / |F| sum_F l + sum_B w_j l_j with w_j = r_j / sum_B r_k.
    """

    type: Literal["two_means"] = "two_means"

    def __call__(self, losses: Tensor, weights: Tensor, lesson: Lesson, answers: Predictions, quota: int) -> Parts:
        foreground = weights * lesson.assignment.positive
        background = weights * lesson.assignment.background
        return {
            "/foreground": ((losses * foreground).sum(), foreground.sum()),
            "/background": ((losses * background).sum(), background.sum()),
        }

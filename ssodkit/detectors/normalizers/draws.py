"""What divides by how many candidates were drawn, or could have been."""

from typing import ClassVar, Literal

from torch import Tensor

from ssodkit.detectors.normalizers.base import NormalizerConfig, Parts, positives_or_one
from ssodkit.plugins import register
from ssodkit.structures.lessons import Lesson
from ssodkit.structures.predictions import Predictions


@register
class SampledConfig(NormalizerConfig):
    """Divided by the draws made in all images: N_r of the RoI terms of mmdetection; all four terms of torchvision."""

    type: Literal["sampled"] = "sampled"

    def __call__(self, losses: Tensor, weights: Tensor, lesson: Lesson, answers: Predictions, quota: int) -> Parts:
        return {"": ((losses * weights).sum(), lesson.assignment.sampled.sum())}


@register
class SampledOfEachConfig(NormalizerConfig):
    """Divided by the sum over images of max(#positives, 1) + max(#background, 1): mmdetection's RPN."""

    type: Literal["sampled_of_each"] = "sampled_of_each"

    def __call__(self, losses: Tensor, weights: Tensor, lesson: Lesson, answers: Predictions, quota: int) -> Parts:
        assignment = lesson.assignment
        background = (assignment.background & (assignment.weight > 0.0)).sum(dim=1).clamp(min=1)
        return {"": ((losses * weights).sum(), (positives_or_one(assignment) + background).sum().to(losses.dtype))}


@register
class QuotaConfig(NormalizerConfig):
    """Divided by quota x images, however many could be drawn: detectron2's and STAC's RPN."""

    type: Literal["quota"] = "quota"
    needs: ClassVar[frozenset[str]] = frozenset({"sampler"})

    def __call__(self, losses: Tensor, weights: Tensor, lesson: Lesson, answers: Predictions, quota: int) -> Parts:
        return {"": ((losses * weights).sum(), losses.new_full((), quota * len(losses)))}

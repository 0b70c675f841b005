"""What divides by the number of positives, all together or image by image."""

from typing import Literal

from torch import Tensor

from ssodkit.detectors.normalizers.base import NormalizerConfig, Parts, positives_or_one
from ssodkit.plugins import register
from ssodkit.structures.lessons import Lesson
from ssodkit.structures.predictions import Predictions


@register
class PositivesConfig(NormalizerConfig):
    """Divided by the number of positives."""

    type: Literal["positives"] = "positives"

    def __call__(self, losses: Tensor, weights: Tensor, lesson: Lesson, answers: Predictions, quota: int) -> Parts:
        count = (lesson.assignment.positive & (lesson.assignment.weight > 0.0)).sum()
        return {"": ((losses * weights).sum(), count.to(losses.dtype))}


@register
class PositivesPerImageConfig(NormalizerConfig):
    """Divided by the sum over images of max(#positives, 1): the class term of mmdetection's RetinaNet."""

    type: Literal["positives_per_image"] = "positives_per_image"

    def __call__(self, losses: Tensor, weights: Tensor, lesson: Lesson, answers: Predictions, quota: int) -> Parts:
        return {"": ((losses * weights).sum(), positives_or_one(lesson.assignment).sum().to(losses.dtype))}


@register
class ImageMeansConfig(NormalizerConfig):
    """Each image divided by its max(#positives, 1), then by the number of images: torchvision's RetinaNet."""

    type: Literal["image_means"] = "image_means"

    def __call__(self, losses: Tensor, weights: Tensor, lesson: Lesson, answers: Predictions, quota: int) -> Parts:
        per_image = (losses * weights).sum(dim=1) / positives_or_one(lesson.assignment)
        return {"": (per_image.sum(), losses.new_full((), len(losses)))}

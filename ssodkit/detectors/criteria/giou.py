"""Generalized IoU between the decoded box and its target."""

from typing import Literal

from torch import Tensor

from ssodkit.detectors.criteria.base import BoxCriterionConfig
from ssodkit.ops.boxes import generalized_iou
from ssodkit.plugins import register
from ssodkit.structures.lessons import Lesson
from ssodkit.structures.predictions import Predictions


@register
class GiouConfig(BoxCriterionConfig):
    """1 - GIoU, 0 to 2; the same in pixels and in any other unit."""

    type: Literal["giou"] = "giou"

    def __call__(self, answers: Predictions, lesson: Lesson, strength: Tensor) -> Tensor:
        decoded = answers.decode(lesson.labels)
        return 1.0 - generalized_iou(decoded, lesson.boxes.to(decoded.dtype))

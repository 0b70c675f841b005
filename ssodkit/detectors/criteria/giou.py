"""Generalized IoU between the decoded box and its target."""

from typing import Literal

from pydantic import Field
from torch import Tensor

from ssodkit.detectors.criteria.base import BoxCriterionConfig
from ssodkit.ops.boxes import box_area, generalized_iou
from ssodkit.plugins import register
from ssodkit.structures.lessons import Lesson
from ssodkit.structures.predictions import Predictions


@register
class GiouConfig(BoxCriterionConfig):
    """1 - GIoU, 0 to 2; the same in pixels and in any other unit."""

    type: Literal["giou"] = "giou"

    smooth: float = Field(0.0, ge=0.0, le=1000.0)
    """Added to intersection and union of the IoU in it, in areas of the candidate: 1 in Unbiased Teacher v2's FCOS."""

    def __call__(self, answers: Predictions, lesson: Lesson, strength: Tensor) -> Tensor:
        decoded = answers.decode(lesson.labels)
        unit = self.smooth * box_area(answers.candidates.boxes.to(decoded.dtype)) if self.smooth else None
        return 1.0 - generalized_iou(decoded, lesson.boxes.to(decoded.dtype), unit)

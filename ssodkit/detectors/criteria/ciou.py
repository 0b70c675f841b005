"""Complete IoU between the decoded box and its target.

Source: Zheng et al., Distance-IoU Loss, AAAI 2020, arXiv:1911.08287.
"""

from typing import Literal

from torch import Tensor

from ssodkit.detectors.criteria.base import BoxCriterionConfig
from ssodkit.ops.boxes import complete_iou
from ssodkit.plugins import register
from ssodkit.structures.lessons import Lesson
from ssodkit.structures.predictions import Predictions


@register
class CiouConfig(BoxCriterionConfig):
    """1 - CIoU, from 0 to about 2; the same in pixels and in any other unit."""

    type: Literal["ciou"] = "ciou"

    def __call__(self, answers: Predictions, lesson: Lesson, strength: Tensor) -> Tensor:
        decoded = answers.decode(lesson.labels)
        return 1.0 - complete_iou(decoded, lesson.boxes.to(decoded.dtype))

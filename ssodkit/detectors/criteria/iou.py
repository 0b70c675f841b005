"""The logarithm of the IoU between the decoded box and its target.

Source: Yu et al., UnitBox, ACM MM 2016, arXiv:1608.01471; the first box loss of FCOS, arXiv:1904.01355.
"""

from typing import Literal

from torch import Tensor

from ssodkit.detectors.criteria.base import BoxCriterionConfig
from ssodkit.ops.boxes import elementwise_iou
from ssodkit.plugins import register
from ssodkit.structures.lessons import Lesson
from ssodkit.structures.predictions import Predictions

SMALLEST = 1e-6
"""IoU below this counts as this."""


@register
class IouConfig(BoxCriterionConfig):
    """-log IoU, from 0 on; the same in pixels and in any other unit. Boxes that do not meet have no gradient."""

    type: Literal["iou"] = "iou"

    def __call__(self, answers: Predictions, lesson: Lesson, strength: Tensor) -> Tensor:
        decoded = answers.decode(lesson.labels)
        return -elementwise_iou(decoded, lesson.boxes.to(decoded.dtype)).clamp(min=SMALLEST).log()

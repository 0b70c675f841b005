"""Gaussian: a box's sides are measurements, and the answer `uncertainty` says how far off they may be.

Source: Liu et al., Unbiased Teacher v2, CVPR 2022, arXiv:2206.09500, section 3.2, and its released code
(facebookresearch/unbiased-teacher-v2).
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from ssodkit.detectors.criteria.base import CriterionConfig
from ssodkit.ops.boxes import at_least_fp32, box_area, smoothed_iou
from ssodkit.ops.uncertainty import gaussian_nll
from ssodkit.plugins import register
from ssodkit.structures.lessons import Lesson
from ssodkit.structures.predictions import Predictions


@register
class GaussianConfig(CriterionConfig):
    """IoU of decoded box and target x the negative log likelihood of the four differences between their codes."""

    type: Literal["gaussian"] = "gaussian"
    needs: ClassVar[frozenset[str]] = frozenset({"box"})
    teaches: ClassVar[str] = "uncertainty"

    smooth: float = Field(0.0, ge=0.0, le=1000.0)
    """Added to intersection and union of that IoU, in areas of the candidate: 1 in the released FCOS."""
    iou_learns: bool = False
    """Whether a gradient goes through the IoU, too, as in the released Faster R-CNN."""

    def __call__(self, answers: Predictions, lesson: Lesson, strength: Tensor) -> Tensor:
        own = at_least_fp32(answers.candidates.boxes)
        wanted = lesson.boxes.to(own.dtype)
        with torch.set_grad_enabled(self.iou_learns and torch.is_grad_enabled()):
            iou = smoothed_iou(answers.decode(lesson.labels), wanted, self.smooth * box_area(own))
        residuals = at_least_fp32(answers.codes_of(lesson.labels)) - answers.coder.encode(own, wanted)
        return iou * gaussian_nll(residuals, answers.extra["uncertainty"])

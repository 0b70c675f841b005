"""L1 on box codes, smooth where asked."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from ssodkit.detectors.criteria.base import BoxCriterionConfig
from ssodkit.ops.losses import smooth_l1
from ssodkit.plugins import register
from ssodkit.structures.lessons import Lesson
from ssodkit.structures.predictions import Predictions


@register
class L1Config(BoxCriterionConfig):
    """The four differences between predicted and wanted code, summed."""

    type: Literal["l1"] = "l1"

    beta: float = Field(0.0, ge=0.0, le=1000.0)
    """In units of the code: smaller differences count quadratically. 0 is plain L1; torchvision has 1/9."""

    def __call__(self, answers: Predictions, lesson: Lesson, strength: Tensor) -> Tensor:
        with torch.no_grad():
            own = answers.candidates.boxes
            wanted = answers.coder.encode(own, lesson.boxes.to(own.dtype))
        return smooth_l1(answers.codes_of(lesson.labels) - wanted, self.beta).sum(dim=-1)

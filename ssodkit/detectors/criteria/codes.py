"""How far box codes lie from those of another network.

Source: Tang et al., Humble Teachers Teach Better Students, CVPR 2021, arXiv:2106.10456, the box terms of its unlabeled
loss.
"""

from typing import ClassVar, Literal

import torch
from torch import Tensor

from ssodkit.detectors.criteria.base import BoxCriterionConfig
from ssodkit.ops.boxes import at_least_fp32
from ssodkit.plugins import register
from ssodkit.structures.lessons import Lesson
from ssodkit.structures.predictions import Predictions


@register
class CodesConfig(BoxCriterionConfig):
    """The Euclidean distance of all of a candidate's codes, those of every class where classes have their own."""

    type: Literal["codes"] = "codes"
    needs: ClassVar[frozenset[str]] = frozenset({"other_answers"})

    distance: Literal["norm", "squared"] = "norm"
    """The distance, as the paper prints it, whose gradient is of length 1 until it is 0; or its square."""

    def __call__(self, answers: Predictions, lesson: Lesson, strength: Tensor) -> Tensor:
        difference = (at_least_fp32(answers.box_codes) - at_least_fp32(lesson.codes)).flatten(2)
        if self.distance == "squared":
            return difference.square().sum(dim=-1)
        # Its gradient at 0 is 0, where that of a root is infinite: student and teacher begin as the same network.
        return torch.linalg.vector_norm(difference, dim=-1)

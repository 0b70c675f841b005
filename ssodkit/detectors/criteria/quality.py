"""Quality: what a point or box is worth, said beside its class, such as FCOS's centerness.

Source: Tian et al., FCOS, ICCV 2019, arXiv:1904.01355, section 3.3; with the IoU instead: arXiv:2006.09214.
"""

from typing import ClassVar, Literal

import torch
from torch import Tensor

from ssodkit.detectors.criteria.base import CriterionConfig
from ssodkit.ops.boxes import elementwise_iou
from ssodkit.ops.losses import sigmoid_cross_entropy
from ssodkit.ops.points import centerness, side_distances
from ssodkit.plugins import register
from ssodkit.structures.lessons import Lesson
from ssodkit.structures.predictions import Predictions


@register
class QualityConfig(CriterionConfig):
    """Binary cross-entropy of the answer `quality`, of positives alone."""

    type: Literal["quality"] = "quality"
    needs: ClassVar[frozenset[str]] = frozenset({"box", "places"})
    teaches: ClassVar[str] = "quality"

    of: Literal["centerness", "iou", "answer"] = "centerness"
    """What it should say: where in its target a candidate's middle lies, how well its predicted box fits, or what
    another network says, where one teaches."""

    @property
    def needed(self) -> frozenset[str]:
        """Boxes, or the answers of another network."""
        return frozenset({"quality", "other_answers"}) if self.of == "answer" else super().needed

    def __call__(self, answers: Predictions, lesson: Lesson, strength: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = self._wanted(answers, lesson)
        said = answers.extra["quality"]
        return sigmoid_cross_entropy(said, wanted.to(said.dtype))

    def _wanted(self, answers: Predictions, lesson: Lesson) -> Tensor:
        if self.of == "answer":
            return lesson.answer("quality")
        if self.of == "centerness":
            own = answers.candidates.boxes
            points = 0.5 * (own[..., :2] + own[..., 2:])
            return centerness(side_distances(points, lesson.boxes.to(own.dtype)))
        decoded = answers.decode(lesson.labels)
        return elementwise_iou(decoded, lesson.boxes.to(decoded.dtype))

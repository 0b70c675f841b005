"""How far the classes that are said diverge from those that another network says.

Source: Tang et al., Humble Teachers Teach Better Students, CVPR 2021, arXiv:2106.10456, the class terms of its
unlabeled loss.
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from ssodkit.detectors.criteria.base import ClassCriterionConfig
from ssodkit.ops.boxes import at_least_fp32
from ssodkit.ops.losses import sigmoid_divergence, softened, softmax_divergence
from ssodkit.plugins import register
from ssodkit.structures.lessons import Lesson
from ssodkit.structures.predictions import Predictions


@register
class KlConfig(ClassCriterionConfig):
    """KL(theirs || its own), whatever the classes are said by: of the distribution over classes and background under a
    softmax; under sigmoids of both outcomes of each class, summed. Its gradient is that of cross-entropy."""

    type: Literal["kl"] = "kl"
    needs: ClassVar[frozenset[str]] = frozenset({"other_answers"})
    takes_soft_targets: ClassVar[bool] = False

    temperature: float = Field(1.0, ge=0.01, le=100.0)
    """Divides the logits of both networks; above 1, differences between classes that neither believes in count more."""

    def __call__(self, answers: Predictions, lesson: Lesson, strength: Tensor) -> Tensor:
        logits = at_least_fp32(answers.class_logits) / self.temperature
        wanted = lesson.wanted(logits.shape[-1], torch.ones_like(strength))
        if answers.activation == "softmax":
            return softmax_divergence(logits, softened(wanted, self.temperature))
        wanted = softened(torch.stack([wanted, 1.0 - wanted], dim=-1), self.temperature)[..., 0]
        return sigmoid_divergence(logits, wanted).sum(dim=-1)

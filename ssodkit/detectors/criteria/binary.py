"""Binary cross-entropy of a sigmoid per class."""

from typing import ClassVar, Literal

import torch
from torch import Tensor

from ssodkit.detectors.criteria.base import ClassCriterionConfig
from ssodkit.ops.losses import sigmoid_cross_entropy
from ssodkit.plugins import register


@register
class BinaryConfig(ClassCriterionConfig):
    """Summed over the classes; background is no class, all of its targets are 0."""

    type: Literal["binary"] = "binary"
    activation: ClassVar[str] = "sigmoid"

    def __call__(self, logits: Tensor, labels: Tensor, target: Tensor) -> Tensor:
        classes = torch.arange(logits.shape[-1], device=logits.device)
        wanted = (labels[..., None] == classes) * target[..., None]
        return sigmoid_cross_entropy(logits, wanted).sum(dim=-1)

"""Flip: the image mirrored left to right, x becomes width - x."""

from typing import ClassVar, Literal

import torch
from jaxtyping import Int64
from pydantic import Field
from torch import Tensor

from ssodkit.data.augment.base import GeometryConfig, Move
from ssodkit.ops.homography import reflection
from ssodkit.ops.random import uniform
from ssodkit.plugins import register


@register
class FlipConfig(GeometryConfig):
    """Mirror some images left to right."""

    type: Literal["flip"] = "flip"
    uncovers: ClassVar[bool] = False

    probability: float = Field(0.5, ge=0.0, le=1.0)

    def draw(self, keys: Int64[Tensor, "rows"], sizes: Int64[Tensor, "rows 2"]) -> Move:
        """A reflection, or the identity."""
        mirrored = uniform(keys, (), "flip") < self.probability
        identity = torch.eye(3, dtype=torch.float64)
        return Move(torch.where(mirrored[:, None, None], reflection(sizes[:, 1].double()), identity), sizes)

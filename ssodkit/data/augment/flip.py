"""Flip: the image mirrored left to right, x becomes width - x, or upside down, y becomes height - y."""

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
    """Mirror some images."""

    type: Literal["flip"] = "flip"
    uncovers: ClassVar[bool] = False

    probability: float = Field(0.5, ge=0.0, le=1.0)
    direction: Literal["horizontal", "vertical"] = "horizontal"
    """Left to right, or upside down: for pictures that have no upright, such as of cells, surfaces or from above."""

    def draw(self, keys: Int64[Tensor, "rows"], sizes: Int64[Tensor, "rows 2"]) -> Move:
        """A reflection, or the identity."""
        mirrored = uniform(keys, (), "flip") < self.probability
        axis = 0 if self.direction == "horizontal" else 1
        mirror = reflection(sizes[:, 1 - axis].double(), axis)
        return Move(torch.where(mirrored[:, None, None], mirror, torch.eye(3, dtype=torch.float64)), sizes)

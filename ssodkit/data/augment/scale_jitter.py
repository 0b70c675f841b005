"""Scale jitter: the image enlarged or reduced about its center, somewhere near the middle of a view of a fixed size.

Source: Xu et al., Efficient Teacher, arXiv:2302.07577, and its code: M = T S C, where C moves the image's center to 0.
"""

from typing import Annotated, Literal

import torch
from jaxtyping import Int64
from pydantic import Field
from torch import Tensor

from ssodkit.data.augment.base import GeometryConfig, Move, PositiveRange, draw_between
from ssodkit.ops.homography import scaling, translation
from ssodkit.plugins import register

Pixels = Annotated[int, Field(ge=1, le=100_000)]


@register
class ScaleJitterConfig(GeometryConfig):
    """Zoom and shift, seen through a square of one size, whatever the size of the image."""

    type: Literal["scale_jitter"] = "scale_jitter"
    side: Pixels
    """Of the view, in pixels."""
    factor: PositiveRange = (0.1, 1.9)
    """Above 1 things get larger; 1 leaves them as large as in the image."""
    shift: float = Field(0.1, ge=0.0, le=1.0)
    """How far the image's center may come to lie from the view's, along either axis, in sides of the view."""

    def draw(self, keys: Int64[Tensor, "rows"], sizes: Int64[Tensor, "rows 2"]) -> Move:
        """A scaling by a factor drawn evenly, and translations by U(0.5 - shift, 0.5 + shift) times the view's side."""
        factor = draw_between(keys, self.factor, "factor")
        right, down = (draw_between(keys, (-self.shift, self.shift), "shift", (2,)) + 0.5).mul(self.side).unbind(dim=1)
        height, width = sizes.double().unbind(dim=1)
        matrix = translation(right, down) @ scaling(factor, factor) @ translation(-width / 2, -height / 2)
        return Move(matrix, torch.full_like(sizes, self.side))

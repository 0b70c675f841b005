"""Crop: a window of the image, somewhere in it.

Source: Carion et al., DETR, ECCV 2020, arXiv:2005.12872, section 4, "Technical details".
"""

from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float, Int64
from pydantic import Field
from torch import Tensor

from ssodkit.data.augment.base import GeometryConfig, InOrder, Move
from ssodkit.ops.homography import translation
from ssodkit.ops.random import uniform
from ssodkit.plugins import register

Pixels = Annotated[int, Field(ge=1, le=100_000)]


@register
class CropConfig(GeometryConfig):
    """Keep a window; every height and width of a range, and every place in the image, are equally likely."""

    type: Literal["crop"] = "crop"
    uncovers: ClassVar[bool] = False

    sides: Annotated[tuple[Pixels, Pixels], InOrder]
    """Of the window, in pixels, drawn apart for both; a side that the image does not have is the image's."""

    def draw(self, keys: Int64[Tensor, "rows"], sizes: Int64[Tensor, "rows 2"]) -> Move:
        """A translation by whole pixels, and the window's size."""
        low, high = (sizes.clamp(max=side) for side in self.sides)
        new = low + _below(uniform(keys, (2,), "crop/sides"), high - low + 1)
        corner = _below(uniform(keys, (2,), "crop/place"), sizes - new + 1)
        return Move(translation(-corner[:, 1].double(), -corner[:, 0].double()), new)


def _below(draws: Float[Tensor, "rows 2"], counts: Int64[Tensor, "rows 2"]) -> Int64[Tensor, "rows 2"]:
    """Whole numbers from 0 to below `counts`."""
    return (draws.double() * counts).floor().to(torch.int64)

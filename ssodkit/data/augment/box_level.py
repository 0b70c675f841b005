"""Box level: the content of one box is moved within it, and the box stays: label noise on purpose.

Source: Sohn et al., STAC, arXiv:2005.04757; google-research/ssl_detection, which moves one box of an image. The ranges
are those of Zoph et al., arXiv:1906.11172.
"""

from typing import Annotated, Literal

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from pydantic import Field
from torch import Tensor

from ssodkit.data.augment.base import BoxConfig, Parameters, draw_between
from ssodkit.ops.homography import about, rotation, shearing, translation
from ssodkit.ops.random import integers, uniform
from ssodkit.ops.resample import invert, warp_within
from ssodkit.plugins import register

OPERATIONS = 4
"""Shift to the side, shift up or down, rotation, shear."""


@register
class BoxLevelConfig(BoxConfig):
    """One of four motions, all equally likely, of what is in one box, all boxes equally likely.

    Boxes are those of the finished view, whatever geometry stands behind it in the list.
    """

    type: Literal["box_level"] = "box_level"
    fraction: float = Field(0.05, ge=0.0, le=1.0)
    """The largest shift, in widths or heights of the box."""
    degrees: float = Field(10.0, ge=0.0, lt=90.0)
    """The largest angle of rotation and shear; the shear has one slope along both axes, tan(angle)."""
    nearest: float = Field(0.5, ge=0.0, le=1.0)
    """The probability that pixels are read at the nearest place, not between four."""
    fill: Annotated[int, Field(ge=0, le=255)] = 125
    """Gray value where nothing of the box's content has come to."""

    def draw(
        self, keys: Int64[Tensor, "rows"], boxes: Float[Tensor, "rows boxes 4"], valid: Bool[Tensor, "rows boxes"]
    ) -> Parameters:
        """Crops in whole pixels, empty where no box is; inverse motions; which of them read the nearest pixel."""
        crops = choose_crops(keys, boxes, valid)
        left, top, right, bottom = crops.double().unbind(dim=1)
        width, height = right - left, bottom - top
        share = draw_between(keys, (-self.fraction, self.fraction), "shift")
        angle = draw_between(keys, (-self.degrees, self.degrees), "angle")
        slope = torch.tan(angle.deg2rad())
        motions = torch.stack(
            [
                translation(share * width, torch.zeros_like(share)),
                translation(torch.zeros_like(share), share * height),
                about(rotation(angle), left + width / 2, top + height / 2),
                about(shearing(slope, slope), left + width / 2, top + height / 2),
            ]
        )
        operation = integers(keys, (), 0, OPERATIONS - 1, "operation")
        inverse = invert(motions[operation, torch.arange(len(keys))]).float()
        return crops, inverse, uniform(keys, (), "nearest") < self.nearest

    def apply(
        self, images: UInt8[Tensor, "rows 3 h w"], masks: Bool[Tensor, "rows 1 h w"], parameters: Parameters
    ) -> UInt8[Tensor, "rows 3 h w"]:
        """See `ops.resample.warp_within`."""
        crops, inverse, nearest = parameters
        return warp_within(images, crops, inverse, nearest, self.fill)


def choose_crops(
    keys: Int64[Tensor, "rows"], boxes: Float[Tensor, "rows boxes 4"], valid: Bool[Tensor, "rows boxes"]
) -> Int64[Tensor, "rows 4"]:
    """Left, top, right, bottom of one valid box of each image, cut to whole pixels; zeros where there is none."""
    if not boxes.shape[1]:
        return torch.zeros(len(keys), 4, dtype=torch.int64)
    number = (uniform(keys, (), "box").double() * valid.sum(dim=1)).floor()
    is_chosen = valid & (valid.cumsum(dim=1) - 1 == number[:, None])
    chosen = boxes[torch.arange(len(keys)), is_chosen.long().argmax(dim=1)].floor().to(torch.int64)
    return chosen * is_chosen.any(dim=1, keepdim=True)

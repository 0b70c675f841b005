"""Erasing: parts of the image hidden under patches of gray or noise. Boxes stay, also those of hidden objects.

Sources: Xu et al., Soft Teacher, arXiv:2106.09018 (`erase`); Sohn et al., STAC, arXiv:2005.04757, after DeVries and
Taylor, arXiv:1708.04552 (`cutout`); Liu et al., Unbiased Teacher, arXiv:2102.09480, after Zhong et al.,
arXiv:1708.04896 (`random_erasing`).
"""

import math
from typing import Annotated, Literal

import torch
from jaxtyping import Bool, Int64
from pydantic import Field
from torch import Tensor

from ssodkit.data.augment.base import (
    CountRange,
    InOrder,
    Parameters,
    PixelConfig,
    PositiveRange,
    ShareRange,
    draw_between,
)
from ssodkit.ops import color
from ssodkit.ops.random import integers, split_keys, uniform
from ssodkit.plugins import register

Gray = Annotated[int, Field(ge=0, le=255)]
_Side = Annotated[float, Field(ge=0.0, le=100_000.0)]
_TRIES = 10
"""Patches that are drawn until one fits into the image, as in torchvision."""


@register
class EraseConfig(PixelConfig):
    """Patches of the image's own shape, fully inside it."""

    type: Literal["erase"] = "erase"
    patches: CountRange = (1, 4)
    """How many, all numbers equally likely."""
    ratio: ShareRange = (0.0, 0.2)
    """Sides of a patch over those of the image, drawn evenly for each patch; sides are rounded down."""
    fill: Gray = 125

    def draw(self, keys: Int64[Tensor, "rows"], sizes: Int64[Tensor, "rows 2"]) -> Parameters:
        """Patches as left, top, right, bottom; those beyond an image's number are empty."""
        most = self.patches[1]
        number = integers(keys, (), *self.patches, "patches")
        ratio = draw_between(keys, self.ratio, "ratio", (most,)) * (torch.arange(most) < number[:, None])
        sides = (ratio[..., None] * sizes.flip(1)[:, None]).floor()  # rows patches 2: width, height
        room = sizes.flip(1)[:, None] - sides + 1.0
        corner = (uniform(keys, (most, 2), "corner") * room).floor()
        return (torch.cat([corner, corner + sides], dim=-1).to(torch.int64),)

    def apply(self, images: Tensor, masks: Tensor, parameters: Parameters) -> Tensor:
        """The fill in all patches."""
        return color.paint(images, inside_patches(parameters[0], *images.shape[2:]), self.fill)


@register
class CutoutConfig(PixelConfig):
    """Squares anywhere: their centers lie evenly over the image, what hangs over its edge is lost."""

    type: Literal["cutout"] = "cutout"
    squares: CountRange = (1, 5)
    """How many, all numbers equally likely."""
    probability: float = Field(1.0, ge=0.0, le=1.0)
    """With which each of them is there."""
    side: Annotated[tuple[_Side, _Side], InOrder] = (0.0, 0.2)
    unit: Literal["height", "pixel"] = "height"
    """What `side` is measured in; sides are rounded to whole pixels."""
    sides: Literal["both", "between"] = "both"
    """A side is one of the two ends of its range, as in STAC's published code, or drawn evenly between them."""
    fill: Gray = 128

    def draw(self, keys: Int64[Tensor, "rows"], sizes: Int64[Tensor, "rows 2"]) -> Parameters:
        """Squares as left, top, right, bottom; those that are not there are empty."""
        most = self.squares[1]
        there = torch.arange(most) < integers(keys, (), *self.squares, "squares")[:, None]
        there &= uniform(keys, (most,), "there") < self.probability
        share = uniform(keys, (most,), "side").double()
        low, high = self.side
        side = low + (high - low) * (share.round() if self.sides == "both" else share)
        side = (side * (sizes[:, :1] if self.unit == "height" else 1.0)).round() * there
        center = uniform(keys, (most, 2), "center") * sizes.flip(1)[:, None]
        corner = (center - side[..., None] / 2).round()
        return (torch.cat([corner, corner + side[..., None]], dim=-1).to(torch.int64),)

    def apply(self, images: Tensor, masks: Tensor, parameters: Parameters) -> Tensor:
        """The fill in all squares."""
        return color.paint(images, inside_patches(parameters[0], *images.shape[2:]), self.fill)


@register
class RandomErasingConfig(PixelConfig):
    """One patch of a drawn area and shape, fully inside the image, full of noise."""

    type: Literal["random_erasing"] = "random_erasing"
    area: ShareRange = (0.02, 0.33)
    """Of the patch over that of the image, drawn evenly."""
    ratio: PositiveRange = (0.3, 3.3)
    """Height over width; its logarithm is drawn evenly."""

    def draw(self, keys: Int64[Tensor, "rows"], sizes: Int64[Tensor, "rows 2"]) -> Parameters:
        """The patch, as left, top, right, bottom, and a key for the noise of each channel.

        Of ten patches the first that is smaller than the image both ways; where none is, an empty one.
        """
        sides = sizes.double()[:, None]
        area = draw_between(keys, self.area, "area", (_TRIES,)) * sides.prod(dim=2)
        low, high = self.ratio
        ratio = draw_between(keys, (math.log(low), math.log(high)), "ratio", (_TRIES,)).exp()
        drawn = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], dim=2).round()  # rows tries 2
        fits = (drawn < sides).all(dim=2)
        first = fits.int().argmax(dim=1)
        height_width = drawn[torch.arange(len(keys)), first] * fits.any(dim=1)[:, None]
        room = sizes - height_width + 1.0
        corner = (uniform(keys, (2,), "corner") * room).floor()
        patches = torch.cat([corner.flip(1), (corner + height_width).flip(1)], dim=1).to(torch.int64)
        return patches[:, None], split_keys(keys, 3, "channels")

    def apply(self, images: Tensor, masks: Tensor, parameters: Parameters) -> Tensor:
        """All gray levels alike in the patch, independent for every pixel and channel."""
        patches, keys = parameters
        # A key for each line: what a pixel gets does not depend on how far its batch is padded.
        lines = split_keys(keys.flatten(), images.shape[2], "lines")
        noise = (uniform(lines.flatten(), (images.shape[3],), "noise") * 256.0).to(torch.uint8).view(images.shape)
        return color.fill_in(images, inside_patches(patches, *images.shape[2:]), noise)


def inside_patches(patches: Int64[Tensor, "rows patches 4"], height: int, width: int) -> Bool[Tensor, "rows 1 h w"]:
    """True for pixels in at least one of a row's patches: left, top, right, bottom in whole pixels."""
    left, top, right, bottom = patches[..., None].unbind(dim=2)
    x, y = torch.arange(width, device=patches.device), torch.arange(height, device=patches.device)
    across = ((x >= left) & (x < right)).float()
    along = ((y >= top) & (y < bottom)).float()
    return (torch.bmm(along.transpose(1, 2), across) > 0)[:, None]

"""Changes of the three channels against each other: inversion, gray, gains, other hues and colors, other orders."""

from typing import Literal

import torch
from jaxtyping import Int64
from pydantic import Field
from torch import Tensor

from ssodkit.data.augment.base import Parameters, PixelConfig, PositiveRange, draw_between
from ssodkit.ops import color
from ssodkit.ops.random import uniform
from ssodkit.plugins import register


@register
class InvertConfig(PixelConfig):
    """Turn gray levels v into 255 - v."""

    type: Literal["invert"] = "invert"

    def draw(self, keys: Int64[Tensor, "rows"], sizes: Int64[Tensor, "rows 2"]) -> Parameters:
        """Nothing."""
        return ()

    def apply(self, images: Tensor, masks: Tensor, parameters: Parameters) -> Tensor:
        """See `ops.color.invert`."""
        return color.invert(images)


@register
class GrayConfig(PixelConfig):
    """Take the color away."""

    type: Literal["gray"] = "gray"

    def draw(self, keys: Int64[Tensor, "rows"], sizes: Int64[Tensor, "rows 2"]) -> Parameters:
        """Nothing."""
        return ()

    def apply(self, images: Tensor, masks: Tensor, parameters: Parameters) -> Tensor:
        """The luma in all three channels."""
        return color.luma(images).repeat(1, 3, 1, 1)


@register
class GainConfig(PixelConfig):
    """Multiply each channel by its own factor, as light of another color would."""

    type: Literal["gain"] = "gain"
    factor: PositiveRange = (0.8, 1.2)
    """Drawn evenly for each channel."""

    def draw(self, keys: Int64[Tensor, "rows"], sizes: Int64[Tensor, "rows 2"]) -> Parameters:
        """Three factors."""
        return (draw_between(keys, self.factor, "factor", (3,)),)

    def apply(self, images: Tensor, masks: Tensor, parameters: Parameters) -> Tensor:
        """See `ops.color.scale_channels`."""
        return color.scale_channels(images, *parameters)


@register
class HueConfig(PixelConfig):
    """Turn all hues of the image around the color circle."""

    type: Literal["hue"] = "hue"
    turn: float = Field(0.1, ge=0.0, le=0.5)
    """The largest turn either way, as a share of the circle; drawn evenly."""

    def draw(self, keys: Int64[Tensor, "rows"], sizes: Int64[Tensor, "rows 2"]) -> Parameters:
        """The turns."""
        return (draw_between(keys, (-self.turn, self.turn), "turn"),)

    def apply(self, images: Tensor, masks: Tensor, parameters: Parameters) -> Tensor:
        """See `ops.color.turn_hue`."""
        return color.turn_hue(images, *parameters)


@register
class HsvConfig(PixelConfig):
    """Multiply hue, saturation and value by a factor each, as the YOLO detectors do; `hue` turns all hues alike."""

    type: Literal["hsv"] = "hsv"
    hue: float = Field(0.015, ge=0.0, le=1.0)
    """How far the factor may lie from 1, either way; all three are drawn evenly."""
    saturation: float = Field(0.7, ge=0.0, le=1.0)
    value: float = Field(0.4, ge=0.0, le=1.0)

    def draw(self, keys: Int64[Tensor, "rows"], sizes: Int64[Tensor, "rows 2"]) -> Parameters:
        """Three factors."""
        most = torch.tensor([self.hue, self.saturation, self.value], dtype=torch.float64)
        return (1.0 + most * draw_between(keys, (-1.0, 1.0), "factors", (3,)),)

    def apply(self, images: Tensor, masks: Tensor, parameters: Parameters) -> Tensor:
        """See `ops.color.scale_hsv`."""
        return color.scale_hsv(images, *parameters)


@register
class ChannelPermutationConfig(PixelConfig):
    """Put red, green and blue into a random order; all six are equally likely."""

    type: Literal["channel_permutation"] = "channel_permutation"

    def draw(self, keys: Int64[Tensor, "rows"], sizes: Int64[Tensor, "rows 2"]) -> Parameters:
        """The orders."""
        return (uniform(keys, (3,), "order").argsort(dim=1),)

    def apply(self, images: Tensor, masks: Tensor, parameters: Parameters) -> Tensor:
        """See `ops.color.permute_channels`."""
        return color.permute_channels(images, *parameters)

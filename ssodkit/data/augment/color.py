"""Color operations of the published pipelines: nine of which one is drawn, their strength a level from 1 to 9.

Sources: Sohn et al., STAC, arXiv:2005.04757; Xu et al., Soft Teacher, arXiv:2106.09018. Both take the operations of
RandAugment (Cubuk et al., arXiv:1909.13719), as Pillow computes them.
"""

from abc import ABC
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ssodkit.data.augment.base import Parameters, PixelConfig, PositiveRange, draw_between
from ssodkit.ops import color
from ssodkit.ops.random import integers
from ssodkit.plugins import register


@register
class IdentityConfig(PixelConfig):
    """Leave the image as it is."""

    type: Literal["identity"] = "identity"

    def draw(self, keys: Int64[Tensor, "rows"], sizes: Int64[Tensor, "rows 2"]) -> Parameters:
        """Nothing."""
        return ()

    def apply(self, images: Tensor, masks: Tensor, parameters: Parameters) -> Tensor:
        """The same images."""
        return images


@register
class AutoContrastConfig(PixelConfig):
    """Stretch each channel to the full range."""

    type: Literal["auto_contrast"] = "auto_contrast"

    def draw(self, keys: Int64[Tensor, "rows"], sizes: Int64[Tensor, "rows 2"]) -> Parameters:
        """Nothing."""
        return ()

    def apply(self, images: Tensor, masks: Tensor, parameters: Parameters) -> Tensor:
        """See `ops.color.auto_contrast`."""
        return color.auto_contrast(images, masks)


@register
class EqualizeConfig(PixelConfig):
    """Spread each channel's values evenly."""

    type: Literal["equalize"] = "equalize"

    def draw(self, keys: Int64[Tensor, "rows"], sizes: Int64[Tensor, "rows 2"]) -> Parameters:
        """Nothing."""
        return ()

    def apply(self, images: Tensor, masks: Tensor, parameters: Parameters) -> Tensor:
        """See `ops.color.equalize`."""
        return color.equalize(images, masks)


@register
class SolarizeConfig(PixelConfig):
    """Invert bright values."""

    type: Literal["solarize"] = "solarize"
    rule: Literal["soft_teacher", "stac"] = "soft_teacher"
    """Whose threshold for level m: min(floor(25.6 m), 255), or 256 - floor(25.6 m)."""

    def draw(self, keys: Int64[Tensor, "rows"], sizes: Int64[Tensor, "rows 2"]) -> Parameters:
        """The thresholds."""
        return (solarize_thresholds(draw_levels(keys), self.rule),)

    def apply(self, images: Tensor, masks: Tensor, parameters: Parameters) -> Tensor:
        """See `ops.color.solarize`."""
        return color.solarize(images, *parameters)


@register
class PosterizeConfig(PixelConfig):
    """Keep the highest bits: 4 - floor(0.4 m) for level m."""

    type: Literal["posterize"] = "posterize"

    def draw(self, keys: Int64[Tensor, "rows"], sizes: Int64[Tensor, "rows 2"]) -> Parameters:
        """The numbers of bits."""
        return (posterize_bits(draw_levels(keys)),)

    def apply(self, images: Tensor, masks: Tensor, parameters: Parameters) -> Tensor:
        """See `ops.color.posterize`."""
        return color.posterize(images, *parameters)


class EnhanceConfig(PixelConfig, ABC):
    """Mixes the image with a poorer one by a factor: 0 is the poorer one, 1 the image, more exaggerates."""

    factor: PositiveRange | None = None
    """The factor is drawn evenly from this range; null: it is 0.1 + 0.18 m for a level m, as published."""

    def draw(self, keys: Int64[Tensor, "rows"], sizes: Int64[Tensor, "rows 2"]) -> Parameters:
        """The factors."""
        if self.factor is not None:
            return (draw_between(keys, self.factor, "factor"),)
        return (enhance_factors(draw_levels(keys)),)


@register
class ColorConfig(EnhanceConfig):
    """More or less colorful; the poorer image is gray."""

    type: Literal["color"] = "color"

    def apply(self, images: Tensor, masks: Tensor, parameters: Parameters) -> Tensor:
        """See `ops.color.saturate`."""
        return color.saturate(images, *parameters)


@register
class ContrastConfig(EnhanceConfig):
    """More or less contrast; the poorer image is its mean gray."""

    type: Literal["contrast"] = "contrast"

    def apply(self, images: Tensor, masks: Tensor, parameters: Parameters) -> Tensor:
        """See `ops.color.contrast`."""
        return color.contrast(images, masks, *parameters)


@register
class BrightnessConfig(EnhanceConfig):
    """Brighter or darker; the poorer image is black."""

    type: Literal["brightness"] = "brightness"

    def apply(self, images: Tensor, masks: Tensor, parameters: Parameters) -> Tensor:
        """See `ops.color.brighten`."""
        return color.brighten(images, *parameters)


@register
class SharpnessConfig(EnhanceConfig):
    """Sharper or smoother; the poorer image is smoothed."""

    type: Literal["sharpness"] = "sharpness"

    def apply(self, images: Tensor, masks: Tensor, parameters: Parameters) -> Tensor:
        """See `ops.color.sharpen`."""
        return color.sharpen(images, masks, *parameters)


def draw_levels(keys: Int64[Tensor, "rows"]) -> Int64[Tensor, "rows"]:
    """The level m of an operation: a whole number from 1 to 9 of 10."""
    return integers(keys, (), 1, 9, "level")


def enhance_factors(levels: Int64[Tensor, "rows"]) -> Float[Tensor, "rows"]:
    """0.1 + 0.18 m, float64."""
    return 0.18 * levels.double() + 0.1


def solarize_thresholds(levels: Int64[Tensor, "rows"], rule: Literal["soft_teacher", "stac"]) -> Tensor:
    """Values from which on an image is inverted, uint8; see `SolarizeConfig.rule`."""
    floor = (25.6 * levels.double()).floor()
    return (floor.clamp(max=255.0) if rule == "soft_teacher" else 256.0 - floor).to(torch.uint8)


def posterize_bits(levels: Int64[Tensor, "rows"]) -> Int64[Tensor, "rows"]:
    """4 - floor(0.4 m): 4, 4, 3, 3, 2, 2, 2, 1, 1 for levels 1 to 9."""
    return 4 - (0.4 * levels.double()).floor().to(torch.int64)

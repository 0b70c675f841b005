"""What a poorer camera does: blur and noise."""

import math
from typing import Literal

from jaxtyping import Int64
from torch import Tensor

from ssodkit.data.augment.base import Parameters, PixelConfig, PositiveRange, draw_between
from ssodkit.ops import color
from ssodkit.ops.random import normal, split_keys
from ssodkit.plugins import register


@register
class BlurConfig(PixelConfig):
    """Gaussian blur, cut off at three of the largest standard deviations."""

    type: Literal["blur"] = "blur"
    sigma: PositiveRange = (0.1, 2.0)
    """Standard deviation in pixels of the view, drawn evenly."""

    def draw(self, keys: Int64[Tensor, "rows"], sizes: Int64[Tensor, "rows 2"]) -> Parameters:
        """The standard deviations."""
        return (draw_between(keys, self.sigma, "sigma"),)

    def apply(self, images: Tensor, masks: Tensor, parameters: Parameters) -> Tensor:
        """See `ops.color.blur`."""
        return color.blur(images, masks, parameters[0], radius=math.ceil(3.0 * self.sigma[1]))


@register
class NoiseConfig(PixelConfig):
    """Gaussian noise, independent for every pixel and channel."""

    type: Literal["noise"] = "noise"
    sigma: PositiveRange = (2.0, 12.0)
    """Standard deviation in gray levels, drawn evenly."""

    def draw(self, keys: Int64[Tensor, "rows"], sizes: Int64[Tensor, "rows 2"]) -> Parameters:
        """The standard deviations, and a key for the pixels of each channel."""
        return draw_between(keys, self.sigma, "sigma"), split_keys(keys, 3, "channels")

    def apply(self, images: Tensor, masks: Tensor, parameters: Parameters) -> Tensor:
        """See `ops.color.add`."""
        sigma, keys = parameters
        # A key for each line: what a pixel gets does not depend on how far its batch is padded.
        lines = split_keys(keys.flatten(), images.shape[2], "lines")
        noise = normal(lines.flatten(), (images.shape[3],), "noise").view(images.shape)
        return color.add(images, noise.mul_(sigma.float()[:, None, None, None]))

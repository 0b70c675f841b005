"""Feature pyramid: every level sees what the coarser ones know.

Source: Lin et al., Feature Pyramid Networks, arXiv:1612.03144, section 3; the extra level is that of section 4.1.
"""

from collections.abc import Sequence

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d

from ssodkit.plugins import Config


class FpnConfig(Config):
    """Width and extra levels of the pyramid; it has a level for every map of the backbone."""

    channels: int = Field(256, ge=1)
    extra_levels: int = Field(1, ge=0)
    """Coarser levels behind the last, each every second cell of the one before."""


class Fpn(nn.Module):
    """Lateral 1x1 and output 3x3 convolutions without normalization, nearest up-sampling.

    `strides` are those of the pyramid's levels, extra ones included.
    """

    def __init__(self, config: FpnConfig, in_channels: Sequence[int], strides: Sequence[int]) -> None:
        super().__init__()
        self.extra_levels = config.extra_levels
        self.strides = (*strides, *(strides[-1] * 2**level for level in range(1, config.extra_levels + 1)))
        self.lateral = nn.ModuleList(nn.Conv2d(width, config.channels, 1) for width in in_channels)
        self.output = nn.ModuleList(nn.Conv2d(config.channels, config.channels, 3, padding=1) for _ in in_channels)
        for convolution in (*self.lateral, *self.output):
            nn.init.kaiming_uniform_(convolution.weight, a=1)
            nn.init.zeros_(convolution.bias)

    def forward(self, maps: Sequence[Float[Tensor, "batch _ _ _"]]) -> tuple[Float[Tensor, "batch channels _ _"], ...]:
        """The pyramid of `maps`, finest first."""
        merged = [lateral(level) for lateral, level in zip(self.lateral, maps, strict=True)]
        for finer in reversed(range(len(merged) - 1)):
            merged[finer] = merged[finer] + interpolate(merged[finer + 1], merged[finer].shape[-2:], mode="nearest")
        levels = [output(level) for output, level in zip(self.output, merged, strict=True)]
        for _ in range(self.extra_levels):
            levels.append(max_pool2d(levels[-1], kernel_size=1, stride=2))
        return tuple(levels)

"""Feature pyramid: every level sees what the coarser ones know.

Source: Lin et al., Feature Pyramid Networks, arXiv:1612.03144, section 3; the extra level is that of section 4.1, or
those of RetinaNet, arXiv:1708.02002, section 4 and footnote 2.
"""

from collections.abc import Sequence
from typing import Literal

from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d, relu

from ssodkit.plugins import Config


class FpnConfig(Config):
    """Width and extra levels of the pyramid; it has a level for every map of the backbone."""

    channels: int = Field(256, ge=1, le=16_384)
    extra_levels: int = Field(1, ge=0, le=10)
    """Coarser levels behind the last."""
    extra_from: Literal["cells", "output", "input"] = "cells"
    """What makes them: every second cell of the level before (Faster R-CNN), or 3x3 convolutions of stride 2, of which
    the first reads the last level (`output`) or the backbone's last map (`input`)."""
    extra_relu: bool = False
    """Whether a ReLU lies before the second and further of these convolutions (RetinaNet's paper, torchvision)."""
    norm: Literal["batch"] | None = None
    """Behind each lateral and output convolution, which have no biases then; the statistics of `batch` learn."""
    init: Literal["fan_in", "xavier"] = "fan_in"
    """Uniform weights of variance 1 / inputs (torchvision, detectron2) or 2 / (inputs + outputs) (mmdetection)."""

    @model_validator(mode="after")
    def _a_relu_lies_between_convolutions(self) -> "FpnConfig":
        if self.extra_relu and (self.extra_from == "cells" or self.extra_levels < 2):
            raise ValueError("`extra_relu` has no effect without two `extra_levels` or more that are convolutions")
        return self


class Fpn(nn.Module):
    """Lateral 1x1 and output 3x3 convolutions, nearest up-sampling.

    `strides` are those of the pyramid's levels, extra ones included.
    """

    def __init__(self, config: FpnConfig, in_channels: Sequence[int], strides: Sequence[int]) -> None:
        super().__init__()
        self.config = config
        self.strides = (*strides, *(strides[-1] * 2**level for level in range(1, config.extra_levels + 1)))
        channels, bias = config.channels, config.norm is None
        self.lateral = nn.ModuleList(nn.Conv2d(width, channels, 1, bias=bias) for width in in_channels)
        self.output = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1, bias=bias) for _ in in_channels)
        self.lateral_norms, self.output_norms = (
            nn.ModuleList(nn.Identity() if config.norm is None else nn.BatchNorm2d(channels) for _ in in_channels)
            for _ in range(2)
        )
        first = in_channels[-1] if config.extra_from == "input" else channels
        convolutions = config.extra_levels if config.extra_from != "cells" else 0
        self.extra = nn.ModuleList(
            nn.Conv2d(channels if level else first, channels, 3, stride=2, padding=1) for level in range(convolutions)
        )
        for convolution in (*self.lateral, *self.output, *self.extra):
            if convolution.bias is not None:
                nn.init.zeros_(convolution.bias)
            if config.init == "xavier":
                nn.init.xavier_uniform_(convolution.weight)
            else:
                nn.init.kaiming_uniform_(convolution.weight, a=1)

    def forward(self, maps: Sequence[Float[Tensor, "batch _ _ _"]]) -> tuple[Float[Tensor, "batch channels _ _"], ...]:
        """The pyramid of `maps`, finest first."""
        rows = zip(self.lateral_norms, self.lateral, maps, strict=True)
        merged = [norm(lateral(level)) for norm, lateral, level in rows]
        for finer in reversed(range(len(merged) - 1)):
            merged[finer] = merged[finer] + interpolate(merged[finer + 1], merged[finer].shape[-2:], mode="nearest")
        rows = zip(self.output_norms, self.output, merged, strict=True)
        levels = [norm(output(level)) for norm, output, level in rows]
        if self.config.extra_from == "cells":
            for _ in range(self.config.extra_levels):
                levels.append(max_pool2d(levels[-1], kernel_size=1, stride=2))
        else:
            coarsest = maps[-1] if self.config.extra_from == "input" else levels[-1]
            for place, convolution in enumerate(self.extra):
                coarsest = convolution(relu(coarsest) if place and self.config.extra_relu else coarsest)
                levels.append(coarsest)
        return tuple(levels)

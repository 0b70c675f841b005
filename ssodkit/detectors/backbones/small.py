"""A small network with group normalization: learns from scratch, from few images, on a CPU."""

from itertools import pairwise
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import relu

from ssodkit.detectors.backbones.base import Backbone, BackboneConfig
from ssodkit.plugins import BuildContext, register

Width = Annotated[int, Field(ge=1, le=16_384)]


@register
class SmallConfig(BackboneConfig):
    """A 3x3 stem of stride 2, then stages of residual blocks that each halve the map."""

    type: Literal["small"] = "small"

    stem: Width = 24
    """Channels at stride 2."""
    channels: tuple[Width, ...] = Field((24, 48), min_length=1, max_length=10)
    """Of the stages, which are the feature maps: strides 4, 8, and so on."""
    finest: int = Field(4, ge=4)
    """Stride of the first map that is given."""
    blocks: int = Field(1, ge=1, le=100)
    """Residual blocks per stage."""
    group: int = Field(8, ge=1)
    """Channels that are normalized together."""

    @model_validator(mode="after")
    def _groups_fit(self) -> "SmallConfig":
        for width in (self.stem, *self.channels):
            if width % self.group:
                raise ValueError(f"{width} channels are no multiple of a group of {self.group}")
        return self

    @model_validator(mode="after")
    def _finest_is_a_stage(self) -> "SmallConfig":
        if self.finest not in self.strides:
            raise ValueError(f"`finest` is one of the strides {', '.join(map(str, self.strides))}, not {self.finest}")
        return self

    @property
    def strides(self) -> tuple[int, ...]:
        """Of all stages."""
        return tuple(4 * 2**stage for stage in range(len(self.channels)))

    @property
    def levels(self) -> int:
        return len(self.strides[self.strides.index(self.finest) :])

    @property
    def coarsest(self) -> int:
        return self.strides[-1]

    def build(self, context: BuildContext) -> "Small":
        return Small(self)


class Small(Backbone):
    """Maps of stride 4, 8, ... or from another one on; pixels are normalized to about -2 to 2."""

    def __init__(self, config: SmallConfig) -> None:
        super().__init__()
        self.first = config.strides.index(config.finest)
        self.strides, self.channels = config.strides[self.first :], config.channels[self.first :]
        self.register_buffer("mean", torch.full((3,), 0.5))
        self.register_buffer("std", torch.full((3,), 0.25))
        self.stem = nn.Conv2d(3, config.stem, 3, stride=2, padding=1, bias=False)
        self.stem_norm = nn.GroupNorm(config.stem // config.group, config.stem)
        self.stages = nn.ModuleList(
            nn.Sequential(
                _Block(before, width, config.group, stride=2),
                *(_Block(width, width, config.group, stride=1) for _ in range(config.blocks - 1)),
            )
            for before, width in pairwise((config.stem, *config.channels))
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> list[Tensor]:
        """Feature maps, finest first."""
        answer = relu(self.stem_norm(self.stem(images)))
        maps = []
        for stage in self.stages:
            answer = stage(answer)
            maps.append(answer)
        return maps[self.first :]


class _Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, before: int, width: int, group: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, width, 3, stride=stride, padding=1, bias=False)
        self.first_norm = nn.GroupNorm(width // group, width)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.second_norm = nn.GroupNorm(width // group, width)
        self.shortcut = (
            nn.Identity()
            if before == width and stride == 1
            else nn.Sequential(
                nn.Conv2d(before, width, 1, stride=stride, bias=False), nn.GroupNorm(width // group, width)
            )
        )

    def forward(self, images: Tensor) -> Tensor:
        answer = relu(self.first_norm(self.first(images)))
        return relu(self.second_norm(self.second(answer)) + self.shortcut(images))

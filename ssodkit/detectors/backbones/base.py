"""Backbones: images in, a pyramid of feature maps out."""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from ssodkit.plugins import BuildContext, PluginConfig


class BackboneConfig(PluginConfig, ABC):
    """What normalizes pixels and turns them into feature maps."""

    slot: ClassVar[str] = "backbone"

    @property
    @abstractmethod
    def levels(self) -> int:
        """How many feature maps it gives: what stands on them is checked before a network exists."""

    @property
    @abstractmethod
    def coarsest(self) -> int:
        """Stride of the last of them."""

    @property
    def is_pretrained(self) -> bool:
        """Whether its weights come from somewhere: freezing random ones is refused."""
        return False

    @property
    def freezes(self) -> bool:
        """Whether any of its stages or batch-norms is frozen."""
        return False

    @abstractmethod
    def build(self, context: BuildContext) -> "Backbone": ...


class Backbone(nn.Module, ABC):
    """`strides` and `channels` describe the maps that `forward` returns, finest first."""

    strides: tuple[int, ...]
    channels: tuple[int, ...]
    mean: Tensor
    """(3,) buffer: subtracted from RGB in [0, 1]."""
    std: Tensor
    """(3,) buffer: divides what is left."""

    @abstractmethod
    def forward(self, images: Tensor) -> list[Tensor]:
        """Feature maps of normalized images (batch, 3, height, width)."""

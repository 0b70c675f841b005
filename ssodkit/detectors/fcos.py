"""FCOS: every cell's point that lies in an object says its class and how far its sides are.

Source: Tian et al., FCOS: Fully Convolutional One-Stage Object Detection, ICCV 2019, arXiv:1904.01355; its
improvements: arXiv:2006.09214 and the released code (tianzhi0549/FCOS).
"""

from typing import Literal

from pydantic import Field

from ssodkit.detectors.anchors import AnchorConfig
from ssodkit.detectors.heads.base import DenseHeadConfig
from ssodkit.detectors.heads.distances import DistancesConfig
from ssodkit.detectors.one_stage import OneStageConfig
from ssodkit.plugins import Slot, register


@register
class FcosConfig(OneStageConfig):
    """A point in every cell, as a box of side stride."""

    type: Literal["fcos"] = "fcos"

    head: Slot[DenseHeadConfig] = DistancesConfig()
    center: float = Field(0.5, ge=0.0, le=1.0)
    """Where in its cell a point lies: 0 is the upper left corner, as in torchvision."""
    inside: Literal["image", "canvas"] = "canvas"
    """Points whose cell begins in the padding are no candidates, or are, as in the published trainers."""

    @property
    def anchors_per_cell(self) -> int:
        """One point."""
        return 1

    def anchors_on(self, strides: tuple[int, ...]) -> AnchorConfig:
        """A square of side stride around each point."""
        sides = tuple((float(stride),) for stride in strides)
        return AnchorConfig(sides=sides, ratios=(1.0,), center=self.center, inside=self.inside)

"""A dense detector with objectness: anchors of given boxes, each of which says class, box and whether it has an object.

Source: Xu et al., Efficient Teacher, arXiv:2302.07577, section 3.1, the Dense Detector.
"""

from typing import Literal

from pydantic import Field, model_validator

from ssodkit.detectors.anchors import AnchorConfig, Side
from ssodkit.detectors.heads.base import DenseHeadConfig
from ssodkit.detectors.heads.objectness import ObjectnessHeadConfig
from ssodkit.detectors.one_stage import OneStageConfig
from ssodkit.nn.fpn import FpnConfig
from ssodkit.plugins import Slot, register


@register
class DenseObjectnessConfig(OneStageConfig):
    """Anchors in the middle of every cell, with objectness beside class and box."""

    type: Literal["dense_objectness"] = "dense_objectness"

    neck: FpnConfig = FpnConfig(extra_levels=0)
    anchors: tuple[tuple[tuple[Side, Side], ...], ...] = Field(min_length=1)
    """Per pyramid level, finest first: width and height of each anchor, in pixels."""
    head: Slot[DenseHeadConfig] = ObjectnessHeadConfig()

    @property
    def anchors_per_cell(self) -> int:
        """As many as a level has boxes."""
        return len(self.anchors[0])

    def anchors_on(self, strides: tuple[int, ...]) -> AnchorConfig:
        """The same on any pyramid with as many levels."""
        return AnchorConfig(boxes=self.anchors, center=0.5, inside="canvas")

    @model_validator(mode="after")
    def _anchors_fit(self) -> "DenseObjectnessConfig":
        if len(self.anchors) != self.levels:
            raise ValueError(f"anchors is for {len(self.anchors)} levels, but the pyramid has {self.levels}")
        if {len(level) for level in self.anchors} != {self.anchors_per_cell} or not self.anchors_per_cell:
            raise ValueError("every level needs equally many anchors, at least one")
        return self

"""RetinaNet: one dense stage that classifies every anchor of the pyramid and moves it.

Source: Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, arXiv:1708.02002. What the published trainers
choose differently is a field each; the recipes of this detector are those choices.
"""

from typing import Literal

from pydantic import model_validator

from ssodkit.detectors.anchors import AnchorConfig, check_sides
from ssodkit.detectors.heads.base import DenseHeadConfig
from ssodkit.detectors.heads.plain import PlainConfig
from ssodkit.detectors.one_stage import OneStageConfig
from ssodkit.plugins import Slot, register


@register
class RetinaNetConfig(OneStageConfig):
    """Anchors of some sizes and shapes in every cell."""

    type: Literal["retinanet"] = "retinanet"

    anchors: AnchorConfig = AnchorConfig()
    head: Slot[DenseHeadConfig] = PlainConfig()

    @property
    def anchors_per_cell(self) -> int:
        """As the anchors say."""
        return self.anchors.per_cell

    def anchors_on(self, strides: tuple[int, ...]) -> AnchorConfig:
        """The same on any pyramid with as many levels."""
        return self.anchors

    @model_validator(mode="after")
    def _anchors_fit(self) -> "RetinaNetConfig":
        check_sides(self.anchors, self.levels)
        return self

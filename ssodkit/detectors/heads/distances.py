"""Distances: how far a box's four sides lie from a point, and how much that point's answer is worth.

Source: Tian et al., FCOS, ICCV 2019, arXiv:1904.01355; its improvements: arXiv:2006.09214, and the released code
(tianzhi0549/FCOS).
"""

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import relu

from ssodkit.detectors.heads.base import DenseAnswers, DenseHead, TowerHeadConfig, uncertainty_of
from ssodkit.nn.towers import DenseShape, LevelAnswers, Towers
from ssodkit.ops.boxes import at_least_fp32
from ssodkit.ops.coding import EdgeCoder
from ssodkit.ops.uncertainty import expected_bin
from ssodkit.plugins import register
from ssodkit.structures.predictions import Candidates


@register
class DistancesConfig(TowerHeadConfig):
    """Distances from the middle of an anchor, in its sides, which for a point of FCOS are a stride long."""

    type: Literal["distances"] = "distances"

    bias: bool = True
    activation: Literal["relu", "exp", "bins"] = "relu"
    """From what the network says to a distance: the improved FCOS's, the first one's, or the mean of 0, 1, 2, ... under
    a softmax."""
    bins: int = Field(17, ge=2, le=1000)
    """How many numbers that softmax is over: distances are below so many strides."""
    quality: Literal["boxes", "classes"] | None = "boxes"
    """Which tower says the answer `quality`, such as centerness: that of the boxes (improved), that of the classes
    (first); null: none."""

    @property
    def answers(self) -> frozenset[str]:
        """Classes, boxes, and `quality` where a tower says it."""
        return super().answers | ({"quality"} if self.quality else frozenset())

    @model_validator(mode="after")
    def _only_bins_are_counted(self) -> "DistancesConfig":
        if self.activation != "bins" and self.bins != type(self).model_fields["bins"].default:
            raise ValueError("`bins` has no effect without `activation: bins`; leave it out")
        return self

    def misfit(self, channels: int, anchors_per_cell: int) -> str | None:
        if anchors_per_cell != 1:
            return f"head 'distances' says one quality per cell, but there are {anchors_per_cell} anchors in each"
        return super().misfit(channels, anchors_per_cell)

    def build(self, shape: DenseShape) -> "Distances":
        return Distances(self, shape)


class Distances(DenseHead):
    """Its codes are the shifts of an anchor's edges; the quality's weights begin as the towers' outputs do."""

    def __init__(self, config: DistancesConfig, shape: DenseShape) -> None:
        super().__init__()
        self.config, self.coder = config, EdgeCoder()
        self.towers = Towers(config, shape, numbers=4 * config.bins if config.activation == "bins" else 4)
        self.quality = None
        if config.quality is not None:
            self.quality = nn.Conv2d(shape.channels, 1, 3, padding=1)
            nn.init.normal_(self.quality.weight, std=0.01)
            assert self.quality.bias is not None
            nn.init.zeros_(self.quality.bias)

    def forward(self, maps: Sequence[Tensor], anchors: Candidates) -> DenseAnswers:
        """The anchors are not looked at: codes are relative to them."""
        answers = [self.towers(features, level) for level, features in enumerate(maps)]
        logits = torch.cat([answer.logits for answer in answers], dim=1)
        raw = at_least_fp32(torch.cat([answer.codes for answer in answers], dim=1))
        left_top, right_bottom = self._distances(raw).chunk(2, dim=-1)
        codes = torch.cat([0.5 - left_top, right_bottom - 0.5], dim=-1)
        return DenseAnswers(logits, codes[:, :, None], self._extra(answers))

    def _distances(self, raw: Tensor) -> Tensor:
        if self.config.activation == "bins":
            return expected_bin(raw.unflatten(-1, (4, self.config.bins)))
        return relu(raw) if self.config.activation == "relu" else raw.exp()

    def _extra(self, answers: list[LevelAnswers]) -> dict[str, Tensor]:
        extra = uncertainty_of(answers)
        if self.quality is not None:
            last = -1 if self.config.quality == "boxes" else self.config.layers - 1
            said = [self.quality(answer.hidden[last]).flatten(1) for answer in answers]
            extra["quality"] = torch.cat(said, dim=1)
        return extra

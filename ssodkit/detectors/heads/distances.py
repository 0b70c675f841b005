"""Distances: how far a box's four sides lie from a point, and how much that point's answer is worth.

Source: Tian et al., FCOS, ICCV 2019, arXiv:1904.01355; its improvements: arXiv:2006.09214, and the released code
(tianzhi0549/FCOS).
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from ssodkit.detectors.heads.base import DenseAnswers, DenseHead, TowerHeadConfig
from ssodkit.nn.towers import DenseShape, LevelAnswers, Towers
from ssodkit.ops.boxes import at_least_fp32
from ssodkit.ops.coding import EdgeCoder
from ssodkit.plugins import register
from ssodkit.structures.predictions import Candidates


@register
class DistancesConfig(TowerHeadConfig):
    """Distances from the middle of an anchor, in its sides, which for a point of FCOS are a stride long."""

    type: Literal["distances"] = "distances"

    bias: bool = True
    activation: Literal["relu", "exp"] = "relu"
    """From what the network says to a distance: the improved FCOS's, and the first one's."""
    quality: Literal["boxes", "classes"] | None = "boxes"
    """Which tower says the answer `quality`, such as centerness: that of the boxes (improved), that of the classes
    (first); null: none."""

    @property
    def answers(self) -> frozenset[str]:
        """Classes, boxes, and `quality` where a tower says it."""
        return super().answers | ({"quality"} if self.quality else frozenset())

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
        self.towers = Towers(config, shape)
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
        left_top, right_bottom = (relu(raw) if self.config.activation == "relu" else raw.exp()).chunk(2, dim=-1)
        codes = torch.cat([0.5 - left_top, right_bottom - 0.5], dim=-1)
        return DenseAnswers(logits, codes[:, :, None], self._extra(answers))

    def _extra(self, answers: list[LevelAnswers]) -> dict[str, Tensor]:
        if self.quality is None:
            return {}
        last = -1 if self.config.quality == "boxes" else self.config.layers - 1
        return {"quality": torch.cat([self.quality(answer.hidden[last]).flatten(1) for answer in answers], dim=1)}

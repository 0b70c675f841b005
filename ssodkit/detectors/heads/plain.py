"""Plain: each anchor answers for itself.

Source: Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, arXiv:1708.02002, section 4; group normalization
and level scales are those of mmdetection's ATSS head, on which Mean-Teacher RetinaNet was published.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from ssodkit.detectors.heads.base import DenseAnswers, DenseHead, TowerHeadConfig, uncertainty_of
from ssodkit.nn.box_code import BoxCodeConfig, unsure_of_no_side
from ssodkit.nn.towers import DenseShape, Towers
from ssodkit.plugins import register
from ssodkit.structures.predictions import Candidates


@register
class PlainConfig(TowerHeadConfig):
    """The towers' answers as they are."""

    type: Literal["plain"] = "plain"

    code: BoxCodeConfig = BoxCodeConfig(center_std=0.1, side_std=0.2)

    def misfit(self, channels: int, anchors_per_cell: int) -> str | None:
        return unsure_of_no_side("head", self.uncertainty, self.code) or super().misfit(channels, anchors_per_cell)

    def build(self, shape: DenseShape) -> "Plain":
        return Plain(self, shape)


class Plain(DenseHead):
    """The anchors are not looked at: codes are relative to them."""

    def __init__(self, config: PlainConfig, shape: DenseShape) -> None:
        super().__init__()
        self.coder = config.code.coder
        self.towers = Towers(config, shape)

    def forward(self, maps: Sequence[Tensor], anchors: Candidates) -> DenseAnswers:
        answers = [self.towers(features, level) for level, features in enumerate(maps)]
        logits = torch.cat([answer.logits for answer in answers], dim=1)
        codes = torch.cat([answer.codes for answer in answers], dim=1)
        return DenseAnswers(logits, codes[:, :, None], uncertainty_of(answers))

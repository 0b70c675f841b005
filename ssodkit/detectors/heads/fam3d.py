"""FAM-3D head: boxes are read where they are best, classes where they stand.

Source: Wang et al., Consistent-Teacher, CVPR 2023, arXiv:2209.01589, section "3-D Feature Alignment Module".
"""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from ssodkit.detectors.heads.base import DenseAnswers, DenseHead, TowerHeadConfig, uncertainty_of
from ssodkit.nn.box_code import BoxCodeConfig
from ssodkit.nn.fam3d import Fam3d
from ssodkit.nn.towers import DenseShape, LevelAnswers, Towers
from ssodkit.ops.boxes import at_least_fp32
from ssodkit.ops.coding import EdgeCoder
from ssodkit.plugins import register
from ssodkit.structures.predictions import Candidates


@register
class Fam3dConfig(TowerHeadConfig):
    """The towers' boxes, re-sampled across cells and levels. For one anchor per cell."""

    type: Literal["fam3d"] = "fam3d"

    code: BoxCodeConfig = BoxCodeConfig(center_std=0.1, side_std=0.2)
    shrink: int = Field(4, ge=1)
    """Channels of the pyramid per channel from which the re-sampling is predicted."""
    shifts_levels: bool = True
    """False is FAM-2D: boxes are re-sampled within their level alone."""

    def misfit(self, channels: int, anchors_per_cell: int) -> str | None:
        if anchors_per_cell != 1:
            return (
                f"head 'fam3d' re-samples one box per cell, but there are {anchors_per_cell} anchors: "
                "give `anchors` one ratio, and one side per level"
            )
        return super().misfit(channels, anchors_per_cell)

    def build(self, shape: DenseShape) -> "Fam3dHead":
        return Fam3dHead(self, shape)


class Fam3dHead(DenseHead):
    """Raw codes are decoded in `forward`; what is re-sampled are boxes, and its codes are their edges."""

    def __init__(self, config: Fam3dConfig, shape: DenseShape) -> None:
        super().__init__()
        self.coder = EdgeCoder()
        self.raw_coder, self.strides = config.code.coder, shape.strides
        self.towers = Towers(config, shape)
        width = max(shape.channels // config.shrink, 1)
        self.alignment = Fam3d(2 * config.layers * shape.channels, width, config.shifts_levels)

    def forward(self, maps: Sequence[Tensor], anchors: Candidates) -> DenseAnswers:
        answers = [self.towers(features, level) for level, features in enumerate(maps)]
        boxes, first = [], 0
        for answer, stride in zip(answers, self.strides, strict=True):
            count = answer.hidden[0].shape[2] * answer.hidden[0].shape[3]  # one anchor per cell
            boxes.append(self._boxes(answer, anchors.boxes[:, first : first + count], stride))
            first = first + count
        aligned = self.alignment([answer.hidden for answer in answers], boxes, self.strides)
        pixels = [
            stride * level.flatten(2).transpose(1, 2) for stride, level in zip(self.strides, aligned, strict=True)
        ]
        codes = self.coder.encode(anchors.boxes, torch.cat(pixels, dim=1))
        logits = torch.cat([answer.logits for answer in answers], dim=1)
        return DenseAnswers(logits, codes[:, :, None], uncertainty_of(answers))

    def _boxes(self, answer: LevelAnswers, anchors: Tensor, stride: int) -> Float[Tensor, "batch 4 height width"]:
        """Whole boxes of one level, in units of its stride."""
        codes = at_least_fp32(answer.codes)
        boxes = self.raw_coder.decode(anchors.to(codes.dtype), codes) / stride
        return boxes.transpose(1, 2).reshape(-1, 4, *answer.hidden[0].shape[-2:])

"""RoI head: RoIAlign from the pyramid level that fits a region's size, a few layers, class logits and box codes.

Source: Lin et al., Feature Pyramid Networks, arXiv:1612.03144, section 4.2 and eq. 1; RoIAlign: He et al., Mask R-CNN,
arXiv:1703.06870, section 3.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import batch_norm, relu

from ssodkit.ops.boxes import at_least_fp32, box_area, has_area
from ssodkit.ops.roi_align import roi_align
from ssodkit.plugins import Config


class RoiHeadConfig(Config):
    """What is read from the pyramid for a region, and what is made of it."""

    cells: int = Field(7, ge=1, le=256)
    """Output cells per side of RoIAlign."""
    samples: int = Field(0, ge=0, le=256)
    """Points that are averaged per cell and axis; 0: as many as the cell is feature cells long. torchvision has 2."""
    aligned: bool = True
    """Whether the middle of feature cell 0 lies at half a stride; torchvision's Faster R-CNN puts it at 0."""
    levels: int = Field(4, ge=1)
    """The finest pyramid levels, which are read."""
    finest_side: float = Field(56.0, ge=1.0, le=100_000.0)
    """Pixels: level k reads squares from 2^k times this side up, the first and last level whatever is beyond."""
    convolutions: int = Field(0, ge=0, le=100)
    """3x3 convolutions, each with a batch normalization whose statistics learn, before the layers."""
    layers: Literal[1, 2] = 2
    """Fully connected, before the outputs."""
    width: int = Field(1024, ge=1, le=65_536)
    """Of these layers."""
    boxes_per_class: bool = True
    """Whether every class has its own box regression, or all share one."""
    uncertainty: bool = False
    """Whether it also says how unsure it is of each of a box's sides (Unbiased Teacher v2)."""


@dataclass(frozen=True)
class RegionAnswers:
    """What the head says about the regions of a padded batch."""

    logits: Float[Tensor, "batch regions columns"]
    codes: Float[Tensor, "batch regions boxes 4"]
    extra: Mapping[str, Float[Tensor, "batch regions ..."]]
    """`uncertainty` (batch, regions, 4), where it is said."""


class RoiHead(nn.Module):
    """Answers about any boxes of a padded batch; what is not valid, or has no area, costs nothing and answers 0."""

    def __init__(self, config: RoiHeadConfig, channels: int, strides: Sequence[int], columns: int, boxes: int) -> None:
        super().__init__()
        self.config = config
        self.strides = tuple(strides[: config.levels])
        convolutions = [nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(config.convolutions)]
        self.convolutions = nn.ModuleList(convolutions)
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(config.convolutions))
        self.first = nn.Linear(channels * config.cells**2, config.width)
        self.second = nn.Linear(config.width, config.width) if config.layers == 2 else None
        self.classify = nn.Linear(config.width, columns)
        self.regress = nn.Linear(config.width, boxes * 4)
        self.doubt = nn.Linear(config.width, 4) if config.uncertainty else None
        for convolution in convolutions:
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
        layers = [layer for layer in (self.first, self.second) if layer is not None]
        for layer in layers:
            nn.init.xavier_uniform_(layer.weight)
        nn.init.normal_(self.classify.weight, std=0.01)
        nn.init.normal_(self.regress.weight, std=0.001)
        for layer in (*layers, self.classify, self.regress):
            nn.init.zeros_(layer.bias)
        if self.doubt is not None:
            nn.init.normal_(self.doubt.weight, std=0.0001)
            nn.init.zeros_(self.doubt.bias)

    def forward(
        self,
        maps: Sequence[Float[Tensor, "batch channels _ _"]],
        boxes: Float[Tensor, "batch regions 4"],
        valid: Bool[Tensor, "batch regions"],
    ) -> RegionAnswers:
        """About every region."""
        pooled, places = self._pool(maps, boxes, valid & has_area(boxes))
        hidden = self.read(pooled)
        logits = _put_back(self.classify(hidden), places, valid.shape)
        codes = _put_back(self.regress(hidden), places, valid.shape).unflatten(-1, (-1, 4))
        extra = {} if self.doubt is None else {"uncertainty": _put_back(self.doubt(hidden), places, valid.shape)}
        return RegionAnswers(logits, codes, extra)

    def read(self, pooled: Float[Tensor, "regions channels cells cells"]) -> Float[Tensor, "regions width"]:
        """What the outputs are made of."""
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            assert isinstance(norm, nn.BatchNorm2d)
            pooled = convolution(pooled)
            if norm.training and not len(pooled):  # the statistics of no region are no numbers, and would stay
                pooled = batch_norm(pooled, norm.running_mean, norm.running_var, norm.weight, norm.bias)
            else:
                pooled = relu(norm(pooled))
        hidden = relu(self.first(pooled.flatten(1)))
        return hidden if self.second is None else relu(self.second(hidden))

    def _pool(self, maps: Sequence[Tensor], boxes: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Features of the valid regions, sorted by level, and their places in the flattened batch."""
        boxes = at_least_fp32(boxes.detach())
        levels = len(self.strides)
        level = region_levels(boxes, self.config.finest_side, levels).masked_fill(~valid, levels).flatten()
        order = level.argsort(stable=True)
        # The one question to the host in a pass: how many regions each level has.
        counts = (level[:, None] == torch.arange(levels, device=level.device)).sum(dim=0).tolist()
        places = order[: sum(counts)]
        image = torch.arange(len(boxes), device=boxes.device)[:, None, None].expand(*valid.shape, 1)
        regions = torch.cat([image.to(boxes.dtype), boxes], dim=-1).flatten(0, 1)[places]
        pooled = [
            roi_align(
                features.to(boxes.dtype), part, self.config.cells, stride, self.config.samples, self.config.aligned
            )
            for features, stride, part in zip(maps, self.strides, regions.split(counts), strict=False)
        ]
        return torch.cat(pooled), places


def region_levels(boxes: Float[Tensor, "*batch 4"], finest_side: float, levels: int) -> Int64[Tensor, "*batch"]:
    """clip(floor(log2(sqrt(w h) / finest_side + 1e-6)), 0, levels - 1).

    Source: arXiv:1612.03144, eq. 1. The small number is mmdetection's: a square of 112 is level 1 despite rounding.
    """
    ratio = box_area(boxes).sqrt() / finest_side + 1e-6
    # Counted, not floored: a NaN counts as 0, where its conversion to an integer would be anything.
    return torch.stack([ratio >= 2.0**level for level in range(1, levels + 1)]).sum(dim=0).clamp(max=levels - 1)


def _put_back(answers: Tensor, places: Tensor, shape: torch.Size) -> Tensor:
    """Answers about the regions at `places`, in a padded batch of `shape`, zero elsewhere."""
    padded = answers.new_zeros(shape.numel(), answers.shape[-1])
    return padded.index_copy(0, places, answers).unflatten(0, tuple(shape))

"""Objectness head: class, box and objectness of each anchor.

Source: Xu et al., Efficient Teacher, arXiv:2302.07577, section 3.1 (the Dense Detector), and the code of the box of the
YOLO detectors that it is compared with.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from ssodkit.detectors.heads.base import DenseAnswers, DenseHead, DenseHeadConfig
from ssodkit.nn.towers import DenseShape
from ssodkit.ops.boxes import at_least_fp32
from ssodkit.ops.coding import EdgeCoder
from ssodkit.plugins import register
from ssodkit.structures.predictions import Candidates


@register
class ObjectnessHeadConfig(DenseHeadConfig):
    """Two towers with batch or group normalization."""

    type: Literal["objectness"] = "objectness"

    shared: bool = False
    """Whether all levels have the same weights. The published detector shares none."""

    layers: int = Field(4, ge=1, le=100)
    """3x3 convolutions before the outputs of each tower."""
    groups: int | None = Field(None, ge=1)
    """Of the group normalization behind each; null: batch normalization, whose statistics learn."""
    batch_momentum: float = Field(0.03, gt=0.0, le=1.0)
    """The share of a step in the statistics of batch normalization."""
    objects: float = Field(8.0, gt=0.0, le=1e6)
    """How many objects a fresh head finds on each level of an image of 640 x 640 pixels."""
    prior: float = Field(0.6, gt=0.0, lt=1.0)
    """A fresh head's class probability is about this over the number of classes."""

    @property
    def answers(self) -> frozenset[str]:
        """Classes, boxes and objectness."""
        return frozenset({"class", "box", "objectness"})

    def misfit(self, channels: int, anchors_per_cell: int) -> str | None:
        if self.groups is not None and channels % self.groups:
            return f"head.groups is {self.groups}, which does not divide the {channels} channels of the pyramid"
        return None

    def build(self, shape: DenseShape) -> "ObjectnessHead":
        return ObjectnessHead(self, shape)


class ObjectnessHead(DenseHead):
    """A box's middle is at most a cell and a half from its cell's corner, its sides at most four times the anchor's.

    To the objectness of each level is added what a fresh head shall say, which does not learn.
    """

    start: Float[Tensor, "levels"]

    def __init__(self, config: ObjectnessHeadConfig, shape: DenseShape) -> None:
        super().__init__()
        self.coder = EdgeCoder()
        count = 1 if config.shared else len(shape.strides)
        self.levels = nn.ModuleList(_Level(config, shape) for _ in range(count))
        start = [math.log(config.objects / (640 / stride) ** 2) for stride in shape.strides]
        self.register_buffer("start", torch.tensor(start), persistent=False)

    def forward(self, maps: Sequence[Tensor], anchors: Candidates) -> DenseAnswers:
        """Boxes are decoded here: x = (2 sigmoid(t_x) - 0.5 + cell) stride, w = (2 sigmoid(t_w))^2 anchor width."""
        assert anchors.stride is not None
        levels = [self.levels[place % len(self.levels)] for place in range(len(maps))]
        answers = [level(features) for level, features in zip(levels, maps, strict=True)]
        logits, _, raw = (torch.cat(parts, dim=1) for parts in zip(*answers, strict=True))
        objectness = torch.cat([answer[1] + start for answer, start in zip(answers, self.start, strict=True)], dim=1)
        said = at_least_fp32(raw).sigmoid() * 2.0
        own = anchors.boxes.to(said.dtype)
        low, high = own[..., :2], own[..., 2:]
        # An anchor's middle is its cell's: (2 sigmoid - 0.5) cells from the corner are (2 sigmoid - 1) from the middle.
        middle = 0.5 * (low + high) + (said[..., :2] - 1.0) * anchors.stride.to(said.dtype)[..., None]
        half = 0.5 * said[..., 2:].square() * (high - low)
        codes = self.coder.encode(own, torch.cat([middle - half, middle + half], dim=-1))
        return DenseAnswers(logits, codes[:, :, None], {"objectness": objectness})


class _Level(nn.Module):
    def __init__(self, config: ObjectnessHeadConfig, shape: DenseShape) -> None:
        super().__init__()
        channels, outputs, self.num_classes = shape.channels, shape.anchors_per_cell, shape.num_classes
        self.class_layers = nn.Sequential(*(_layer(channels, config) for _ in range(config.layers)))
        self.box_layers = nn.Sequential(*(_layer(channels, config) for _ in range(config.layers)))
        self.classify = nn.Conv2d(channels, outputs * shape.num_classes, 3, padding=1)
        self.regress = nn.Conv2d(channels, outputs * 5, 3, padding=1)
        assert self.classify.bias is not None
        with torch.no_grad():
            self.classify.bias += math.log(config.prior / (shape.num_classes - 0.99))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Class logits, objectness logits and raw boxes, anchor by anchor."""
        classes = self.classify(self.class_layers(features)).permute(0, 2, 3, 1).flatten(1)
        boxes = self.regress(self.box_layers(features)).permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, 5))
        return classes.unflatten(1, (-1, self.num_classes)), boxes[..., 4], boxes[..., :4]


def _layer(channels: int, config: ObjectnessHeadConfig) -> nn.Sequential:
    norm: nn.Module = nn.BatchNorm2d(channels, eps=1e-3, momentum=config.batch_momentum)
    if config.groups is not None:
        norm = nn.GroupNorm(config.groups, channels)
    return nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), norm, nn.ReLU())

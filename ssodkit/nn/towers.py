"""Towers: the two stacks of convolutions of a dense head, one for classes and one for boxes, shared by all levels.

Source: Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, arXiv:1708.02002, section 4.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import relu

from ssodkit.plugins import Config


class TowersConfig(Config):
    """Depth, normalization and start of the towers; they are as wide as the pyramid."""

    layers: int = Field(4, ge=1, le=100)
    """3x3 convolutions before the output of each tower."""
    groups: int | None = Field(32, ge=1)
    """Of the group normalization behind each; null: none, and the convolutions have biases."""
    bias: bool = False
    """Whether the convolutions have biases beside the normalization, too, as FCOS's."""
    level_scales: bool = True
    """Whether each level multiplies its box codes by a number of its own, which learns and begins at 1."""
    prior: float = Field(0.01, gt=0.0, lt=1.0)
    """The probability that a fresh head gives every class everywhere."""
    uncertainty: bool = False
    """Whether the box tower also says how unsure it is of each of a box's sides (Unbiased Teacher v2)."""


@dataclass(frozen=True)
class DenseShape:
    """What a dense head is built for."""

    channels: int
    """Of the pyramid."""
    strides: tuple[int, ...]
    anchors_per_cell: int
    num_classes: int


@dataclass(frozen=True)
class LevelAnswers:
    """What the towers make of one level of the pyramid; anchors go cell by cell."""

    hidden: list[Float[Tensor, "batch channels height width"]]
    """Outputs of all layers, those of the class tower first."""
    logits: Float[Tensor, "batch anchors classes"]
    codes: Float[Tensor, "batch anchors numbers"]
    uncertainty: Float[Tensor, "batch anchors 4"] | None
    """Of the left, top, right and bottom side, where the towers say it."""


class Towers(nn.Module):
    """Weights are normal of deviation 0.01, of the uncertainty 0.0001, biases 0 but for the class output's, which says
    `prior`. A code has so many `numbers`."""

    def __init__(self, config: TowersConfig, shape: DenseShape, numbers: int = 4) -> None:
        super().__init__()
        self.num_classes, self.numbers = shape.num_classes, numbers
        channels, outputs = shape.channels, shape.anchors_per_cell
        self.class_layers = nn.ModuleList(_Layer(channels, config) for _ in range(config.layers))
        self.box_layers = nn.ModuleList(_Layer(channels, config) for _ in range(config.layers))
        self.classify = nn.Conv2d(channels, outputs * shape.num_classes, 3, padding=1)
        self.regress = nn.Conv2d(channels, outputs * numbers, 3, padding=1)
        self.scales = nn.Parameter(torch.ones(len(shape.strides))) if config.level_scales else None
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        assert self.classify.bias is not None
        nn.init.constant_(self.classify.bias, -math.log((1.0 - config.prior) / config.prior))
        self.doubt = nn.Conv2d(channels, outputs * 4, 3, padding=1) if config.uncertainty else None
        if self.doubt is not None:
            assert self.doubt.bias is not None
            nn.init.normal_(self.doubt.weight, std=0.0001)
            nn.init.zeros_(self.doubt.bias)

    def forward(self, features: Float[Tensor, "batch channels height width"], level: int) -> LevelAnswers:
        """Answers about one level; all levels have the same weights but for their scale."""
        classes, boxes = _outputs(self.class_layers, features), _outputs(self.box_layers, features)
        logits = _by_anchor(self.classify(classes[-1]), self.num_classes)
        codes = _by_anchor(self.regress(boxes[-1]), self.numbers)
        codes = codes if self.scales is None else codes * self.scales[level]
        doubt = None if self.doubt is None else _by_anchor(self.doubt(boxes[-1]), 4)
        return LevelAnswers([*classes, *boxes], logits, codes, doubt)


class _Layer(nn.Module):
    def __init__(self, channels: int, config: TowersConfig) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, padding=1, bias=config.bias or config.groups is None)
        self.norm = nn.Identity() if config.groups is None else nn.GroupNorm(config.groups, channels)

    def forward(self, features: Tensor) -> Tensor:
        return relu(self.norm(self.convolution(features)))


def _by_anchor(output: Tensor, numbers: int) -> Tensor:
    """A map (batch, anchors x numbers, height, width) as (batch, anchors of all cells, numbers)."""
    return output.permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, numbers))


def _outputs(layers: nn.ModuleList, features: Tensor) -> list[Tensor]:
    outputs = []
    for layer in layers:
        features = layer(features)
        outputs.append(features)
    return outputs

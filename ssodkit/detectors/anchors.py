"""Anchors: the boxes that a dense stage classifies, laid over every cell of the pyramid.

Source: Ren et al., Faster R-CNN, arXiv:1506.01497, section 3.1.1.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Literal

import torch
from jaxtyping import Float, Int64
from pydantic import Field, model_validator
from torch import Tensor

from ssodkit.plugins import Config
from ssodkit.structures.predictions import Candidates, Features

Side = Annotated[float, Field(ge=1.0, le=100_000.0)]


class AnchorConfig(Config):
    """Size, shape and place of the anchors."""

    sides: tuple[tuple[Side, ...], ...] = ((32.0,), (64.0,), (128.0,), (256.0,), (512.0,))
    """Per pyramid level, finest first: sides of the squares with the anchors' areas, in pixels."""
    ratios: tuple[Annotated[float, Field(ge=0.01, le=100.0)], ...] = (0.5, 1.0, 2.0)
    """Height / width; every side has every ratio."""
    boxes: tuple[tuple[tuple[Side, Side], ...], ...] = ()
    """Instead of sides and ratios, per pyramid level: width and height of each anchor, in pixels."""
    rounded: bool = False
    """Whether half sides are whole pixels, as in torchvision."""
    center: float = Field(0.0, ge=0.0, le=1.0)
    """Where in its cell an anchor's middle lies: 0 is the upper left corner, as in the published trainers."""
    spacing: Literal["stride", "canvas"] = "stride"
    """Pixels between neighbors: the level's stride, or the canvas's side over the number of cells, rounded down
    (torchvision; the same where the canvas is a multiple of the stride)."""
    inside: Literal["image", "canvas"] = "image"
    """Anchors whose cell begins in the padding are no candidates, or are (torchvision, detectron2)."""

    @model_validator(mode="after")
    def _levels_are_alike(self) -> "AnchorConfig":
        counts = {len(shapes) for shapes in self.shapes}  # on each level
        if len(counts) != 1 or 0 in counts:
            raise ValueError("anchors need a ratio, and equally many sides on every level: all levels share one head")
        return self

    @property
    def shapes(self) -> tuple[tuple[tuple[float, float], ...], ...]:
        """Per pyramid level: width and height of each anchor of a cell, in pixels."""
        return self.boxes or tuple(
            tuple((side / math.sqrt(ratio), side * math.sqrt(ratio)) for ratio in self.ratios for side in sides)
            for sides in self.sides
        )

    @property
    def per_cell(self) -> int:
        """Anchors in a cell, on every level."""
        return len(self.shapes[0])


@dataclass(frozen=True)
class Anchored:
    """A stage whose candidates are anchors, and these."""

    stage: str
    config: AnchorConfig
    strides: tuple[int, ...]
    """Pixels between cells, on each level of the pyramid, finest first."""


def make_anchors(config: AnchorConfig, features: Features) -> Candidates:
    """All anchors of all images: level by level, row by row, cell by cell, ratio by ratio.

    The config has sides for every level of the pyramid.
    """
    maps = features.maps
    dtype = torch.float64 if maps[0].dtype == torch.float64 else torch.float32
    grid = _grid(config, tuple(tuple(m.shape[-2:]) for m in maps), features.strides, dtype, maps[0].device)
    batch, count = len(maps[0]), len(grid.boxes)
    if config.inside == "image":
        sizes = features.view.sizes
        valid = (grid.corners < sizes.flip(-1)[:, None]).all(dim=-1)
    else:
        valid = torch.ones(1, 1, dtype=torch.bool, device=grid.boxes.device).expand(batch, count)
    return Candidates(
        boxes=grid.boxes.expand(batch, count, 4),
        valid=valid,
        level=grid.level.expand(batch, count),
        stride=grid.stride.expand(batch, count),
        lengths=tuple(m.shape[-2] * m.shape[-1] * config.per_cell for m in maps),
    )


def check_sides(config: AnchorConfig, levels: int) -> None:
    """Raise ValueError unless the config has sides for a pyramid of so many levels."""
    if len(config.shapes) != levels:
        raise ValueError(f"anchors.sides is for {len(config.shapes)} levels, but the pyramid has {levels}")


@dataclass(frozen=True)
class _Grid:
    boxes: Float[Tensor, "anchors 4"]
    corners: Float[Tensor, "anchors 2"]
    """Upper left corner of the anchor's cell: x, y."""
    level: Int64[Tensor, "anchors"]
    stride: Float[Tensor, "anchors"]


@lru_cache(maxsize=8)
def _grid(
    config: AnchorConfig,
    shapes: tuple[tuple[int, int], ...],
    strides: tuple[int, ...],
    dtype: torch.dtype,
    device: torch.device,
) -> _Grid:
    """Anchors of one image. Kept for the last few canvases: laying them out costs 60 small operations."""
    canvas = [cells * strides[0] for cells in shapes[0]]
    boxes, corners, levels, lengths = [], [], [], []
    # Not inference tensors, whoever asks first: what is kept is also used in training.
    with torch.inference_mode(False), torch.no_grad():
        for level, (shape, stride, own) in enumerate(zip(shapes, strides, config.shapes, strict=True)):
            pairs = zip(canvas, shape, strict=True)
            step_y, step_x = (stride if config.spacing == "stride" else side // cells for side, cells in pairs)
            y = torch.arange(shape[0], dtype=dtype, device=device) * step_y
            x = torch.arange(shape[1], dtype=dtype, device=device) * step_x
            half = half_sides(own, config.rounded, dtype, device)
            middle = _points(x + config.center * step_x, y + config.center * step_y)[:, None]
            boxes.append(torch.cat([middle - half, middle + half], dim=-1).flatten(0, 1))
            corners.append(_points(x, y).repeat_interleave(len(half), dim=0))
            levels.append(torch.full((len(boxes[-1]),), level, device=device))
            lengths.append(torch.full((len(boxes[-1]),), float(stride), dtype=dtype, device=device))
        return _Grid(torch.cat(boxes), torch.cat(corners), torch.cat(levels), torch.cat(lengths))


def _points(x: Tensor, y: Tensor) -> Tensor:
    """All pairs (x, y), row by row."""
    return torch.cartesian_prod(y, x).flip(-1)


@lru_cache(maxsize=64)
def half_sides(
    shapes: tuple[tuple[float, float], ...], rounded: bool, dtype: torch.dtype, device: torch.device
) -> Float[Tensor, "anchors 2"]:
    """Half width and half height of a cell's anchors."""
    half = torch.tensor([(width / 2.0, height / 2.0) for width, height in shapes], dtype=dtype, device=device)
    return half.round() if rounded else half

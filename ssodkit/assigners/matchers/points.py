"""Points: a point learns from the smallest box around it, on the level that is made for the box's size.

Source: Tian et al., FCOS, ICCV 2019, arXiv:1904.01355, section 3.2; center sampling: arXiv:2006.09214.
"""

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from ssodkit.assigners.matchers.base import Matcher, MatcherConfig
from ssodkit.ops.boxes import at_least_fp32
from ssodkit.ops.points import centerness, side_distances, smallest_around
from ssodkit.ops.rows import take_rows
from ssodkit.plugins import BuildContext, register
from ssodkit.structures.predictions import Predictions
from ssodkit.structures.progress import Progress
from ssodkit.structures.teaching import BACKGROUND, Assignment, Targets


@register
class PointsConfig(MatcherConfig):
    """Every point in the middle of a box, within the range of its level."""

    type: Literal["points"] = "points"
    needs: ClassVar[frozenset[str]] = frozenset({"places", "strides"})

    ranges: tuple[Annotated[float, Field(gt=0.0, le=1e6)], ...] = (64.0, 128.0, 256.0, 512.0)
    """Pixels between the levels, finest first: a point's largest distance to a side of its box lies between the two of
    its level, both included. One number fewer than levels."""
    radius: float | None = Field(1.5, gt=0.0, le=1000.0)
    """Only points less than so many strides from a box's middle, in x and in y, learn from it. Null: all inside."""

    @model_validator(mode="after")
    def _ranges_rise(self) -> "PointsConfig":
        if list(self.ranges) != sorted(set(self.ranges)):
            raise ValueError("`ranges` must rise from level to level")
        return self

    def misfit(self, levels: int) -> str | None:
        if len(self.ranges) != levels - 1:
            return f"the matcher's `ranges` part {len(self.ranges) + 1} levels, but the pyramid has {levels}"
        return None

    def build(self, context: BuildContext) -> "Points":
        return Points(self)


class Points(Matcher):
    """Quality is the centerness of a positive, and 0 of a background candidate."""

    bounds: Tensor

    def __init__(self, config: PointsConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("bounds", torch.tensor([0.0, *config.ranges, torch.inf]), persistent=False)

    @torch.no_grad()
    def forward(self, predictions: Predictions, targets: Targets, progress: Progress) -> Assignment:
        candidates = predictions.candidates
        assert candidates.level is not None
        assert candidates.stride is not None
        boxes = at_least_fp32(candidates.boxes)
        points = 0.5 * (boxes[..., :2] + boxes[..., 2:])
        nothing = torch.full_like(points[..., 0], torch.inf)
        index = smallest_around(
            points,
            targets.boxes.to(points.dtype),
            targets.valid,
            nearest=self.bounds.to(points)[candidates.level],
            farthest=self.bounds.to(points)[candidates.level + 1],
            reach=nothing if self.config.radius is None else self.config.radius * candidates.stride.to(points.dtype),
        )
        if not targets.boxes.shape[1]:
            return Assignment.matched(index, torch.zeros_like(points[..., 0]), candidates.valid)
        goals = take_rows(targets.boxes.to(points.dtype), index.clamp(min=0))
        quality = centerness(side_distances(points, goals)).masked_fill(index < 0, 0.0)
        return Assignment.matched(index.clamp(min=BACKGROUND), quality, candidates.valid)

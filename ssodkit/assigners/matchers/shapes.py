"""Shapes: an anchor learns from a box of about its shape, in the cell of the box's middle and the nearest cells beside.

Source: Xu et al., Efficient Teacher, arXiv:2302.07577, section 3.1; the rule is that of the YOLO detectors of its code.
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field

from ssodkit.assigners.matchers.base import Matcher, MatcherConfig
from ssodkit.ops.boxes import at_least_fp32
from ssodkit.ops.shapes import best_shape_around
from ssodkit.plugins import BuildContext, register
from ssodkit.structures.predictions import Predictions
from ssodkit.structures.progress import Progress
from ssodkit.structures.teaching import BACKGROUND, Assignment, Targets


@register
class ShapesConfig(MatcherConfig):
    """All anchors whose width and height are near enough to the box's, in up to three cells."""

    type: Literal["shapes"] = "shapes"
    needs: ClassVar[frozenset[str]] = frozenset({"places", "strides"})

    ratio: float = Field(4.0, gt=1.0, le=1000.0)
    """The larger of both widths over the smaller, and the same of heights, must be below this."""
    neighbors: bool = True
    """Whether the cell beside, and that above or below, that is nearest to the box's middle learns as well."""

    def build(self, context: BuildContext) -> "Shapes":
        return Shapes(self)


class Shapes(Matcher):
    """Quality is the smaller over the larger side where they differ most, 0 of a background candidate.

    Of several boxes of one anchor and cell that of the nearest shape teaches; in the released code the last one does.
    """

    def __init__(self, config: ShapesConfig) -> None:
        super().__init__()
        self.config = config

    @torch.no_grad()
    def forward(self, predictions: Predictions, targets: Targets, progress: Progress) -> Assignment:
        candidates = predictions.candidates
        assert candidates.stride is not None
        boxes = at_least_fp32(candidates.boxes)
        index, ratio = best_shape_around(
            boxes,
            candidates.stride.to(boxes.dtype),
            targets.boxes.to(boxes.dtype),
            targets.valid,
            self.config.ratio,
            reach=1.0 if self.config.neighbors else 0.5,
        )
        quality = torch.where(index < 0, 0.0, 1.0 / ratio)
        return Assignment.matched(index.clamp(min=BACKGROUND), quality, candidates.valid)

"""Box jitter: a box that the teacher does not find again from a shaken start is not worth copying.

Source: Xu et al., Soft Teacher, ICCV 2021, arXiv:2106.09018, section "Box Jittering". Paper and released code
(microsoft/SoftTeacher) shake and measure differently; `definition` chooses, the code's by default.
"""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from ssodkit.ops.boxes import box_sides, clip_boxes
from ssodkit.ops.random import normal, uniform
from ssodkit.plugins import BuildContext, register
from ssodkit.reliability.base import Asks, InstanceScorer, InstanceScorerConfig, answer
from ssodkit.structures.predictions import Candidates, Detections, Features
from ssodkit.teachers.base import Teacher


@register
class BoxJitterConfig(InstanceScorerConfig):
    """Score boxes by how much the teacher's answer moves when its start is shaken."""

    type: Literal["box_jitter"] = "box_jitter"
    needs: ClassVar[frozenset[str]] = frozenset({"exact_regions"})
    writes: ClassVar[str] = "box_jitter"

    draws: int = Field(10, ge=2, le=10_000)
    """Shaken copies per box. Two is the least that has a spread."""
    scale: float = Field(0.06, gt=0.0, le=10.0)
    """How far a side is shaken, as a fraction of the box's width or height: the standard deviation of normal noise
    (code), or the bound of uniform noise (paper)."""
    definition: Literal["code", "paper"] = "code"
    """Normal noise, and the spread in sides of the mean answer; or uniform noise, and the spread in sides of the
    detection."""
    asks: Asks = Asks(score="confidence", above=0.5, at_most=40)
    """Which detections are shaken; the others score inf."""

    @property
    def reads(self) -> frozenset[str]:
        """The score by which it asks."""
        return frozenset({self.asks.score})

    def build(self, context: BuildContext) -> "BoxJitter":
        return BoxJitter(self)


class BoxJitter(InstanceScorer):
    """Writes `scores["box_jitter"]`: mean spread of the four sides, in box sides; low is good."""

    def __init__(self, config: BoxJitterConfig) -> None:
        super().__init__()
        self.config = config

    @torch.no_grad()
    def forward(self, teacher: Teacher, features: Features, found: Detections) -> Detections:
        """All shaken boxes of all images are one question to the teacher."""
        asked, rows = self.config.asks.choose(found)
        draws = self.config.draws
        shape = (draws, *asked.boxes.shape[1:])
        if self.config.definition == "code":
            noise = normal(features.view.keys, shape, "box_jitter")
        else:
            noise = 2.0 * uniform(features.view.keys, shape, "box_jitter") - 1.0
        shaken = shake(asked.boxes, noise, self.config.scale)
        regions = Candidates(shaken.flatten(1, 2), asked.valid.repeat(1, draws))
        labels = asked.labels.repeat(1, draws)  # the pseudo class's box, not the best one's
        refined = clip_boxes(teacher.score_regions(features, regions).decode(labels), features.view.sizes)
        refined = refined.unflatten(1, shape[:2])
        if self.config.definition == "code":
            spread = spread_in_mean_sides(refined)
        else:
            spread = spread_in_candidate_sides(refined, asked.boxes)
        return answer(found, self.config.writes, spread, asked, rows)


def shake(
    boxes: Float[Tensor, "batch boxes 4"], noise: Float[Tensor, "batch draws boxes 4"], scale: float
) -> Float[Tensor, "batch draws boxes 4"]:
    """Every draw's copy of the boxes, each coordinate moved by `noise` times `scale` of its box's side."""
    return boxes[:, None] + scale * box_sides(boxes)[:, None] * noise


def spread_in_mean_sides(refined: Float[Tensor, "batch draws boxes 4"]) -> Float[Tensor, "batch boxes"]:
    """Mean over the coordinates of their standard deviation, in sides of the mean answer: the released code's.

    Source: microsoft/SoftTeacher.
    """
    return (_deviation(refined) / box_sides(refined.mean(dim=1))).mean(dim=-1)


def spread_in_candidate_sides(
    refined: Float[Tensor, "batch draws boxes 4"], boxes: Float[Tensor, "batch boxes 4"]
) -> Float[Tensor, "batch boxes"]:
    """Mean over the coordinates of their standard deviation, in mean sides of the shaken box: the paper's.

    Source: arXiv:2106.09018, section "Box Jittering".
    """
    return (_deviation(refined) / box_sides(boxes).mean(dim=-1, keepdim=True)).mean(dim=-1)


def _deviation(refined: Float[Tensor, "batch draws boxes 4"]) -> Float[Tensor, "batch boxes 4"]:
    """Unbiased (N - 1), as in the released code; the paper does not say which it is."""
    squares = (refined - refined.mean(dim=1, keepdim=True)).square().sum(dim=1)
    return (squares / (refined.shape[1] - 1)).sqrt()

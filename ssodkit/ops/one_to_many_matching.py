"""One-to-many assignment by alignment: a target takes the candidates that name and enclose it best.

Source: Zhang et al., Semi-DETR, CVPR 2023, arXiv:2307.08095; the metric is that of Feng et al., TOOD, ICCV 2021,
arXiv:2108.07755.

Candidate n suits target l by m = s^alpha u^beta (`alignment`), with the probability s of l's class and the IoU u of n's
answer. A target takes its best candidates (`take_best`), and of several takers one gets a candidate (`Claims.target`).

Pairs are (batch, targets, candidates), a few targets at a time; `Claims` is what the targets so far have taken.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ssodkit.ops.matching import lowest_places, rank_keys

UNCLAIMED = torch.iinfo(torch.int64).max


def alignment(
    score: Float[Tensor, "*shape"], iou: Float[Tensor, "*shape"], score_power: float, iou_power: float
) -> Float[Tensor, "*shape"]:
    """score ^ score_power x iou ^ iou_power, 0 to 1; `score` is the probability of the target's class."""
    return score.pow(score_power).mul_(iou.pow(iou_power))


@dataclass(frozen=True)
class Claims:
    """What the targets so far have taken."""

    key: Int64[Tensor, "batch candidates"]
    """`rank_keys` of IoU and target of the taker that it overlaps most, or UNCLAIMED."""
    iou: Float[Tensor, "batch candidates"]
    """The best with any target, 0 without."""

    @classmethod
    def none(cls, like: Float[Tensor, "batch candidates"]) -> "Claims":
        """Before the first target."""
        return cls(torch.full_like(like, UNCLAIMED, dtype=torch.int64), torch.zeros_like(like))

    @property
    def target(self) -> Int64[Tensor, "batch candidates"]:
        """Whose each candidate is, or -1: of several takers that which it overlaps most, the first of equals."""
        return torch.where(self.key == UNCLAIMED, -1, self.key & 0xFFFFFFFF)


def take_best(
    before: Claims,
    metric: Float[Tensor, "batch targets candidates"],
    iou: Float[Tensor, "batch targets candidates"],
    first: int,
    at_most: int,
) -> Claims:
    """Let each of the next targets, the first of which has the place `first`, take its `at_most` best candidates.

    Candidates whose metric is 0 are not taken.
    """
    place = torch.arange(first, first + metric.shape[1], device=metric.device)[:, None]
    best = lowest_places(metric, at_most, largest=True)
    claim = rank_keys(iou.gather(2, best), place, largest=True)
    claim = torch.where(metric.gather(2, best) > 0.0, claim, UNCLAIMED)
    return Claims(
        key=before.key.scatter_reduce(1, best.flatten(1), claim.flatten(1), "amin"),
        iou=torch.maximum(before.iou, iou.amax(dim=1)),
    )

"""Adaptive sample assignment (ASA): a target takes the candidates whose answers cost least, as many as answer well.

Source: Wang et al., Consistent-Teacher, CVPR 2023, arXiv:2209.01589; the distance term and the number taken are those
of its code (Adamdad/ConsistentTeacher).

Candidate n costs target l    C = L_cls + w L_reg + C_dist    if n's center lies in any target, else it is not taken:
    L_cls    focal loss of n if l's class is right         `focal_costs_of_background` + `focal_corrections`
    L_reg    -log IoU of n's answer and l                  `overlap_costs`
    C_dist   exponential in their distance in cells        `distance_costs`
A target takes its `dynamic_counts` cheapest candidates (`take_cheapest`), and of several takers one gets a candidate
(`Takes.target`). `assigners/matchers/adaptive.py` adds the three up.

Pairs are (batch, targets, candidates), a few targets at a time; `Takes` is what the targets so far have taken.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int32, Int64
from torch import Tensor

from ssodkit.ops.matching import lowest_places

LEAST_LOG = -100.0
"""Logarithms of probabilities stop here, as in torch's cross-entropy of probabilities."""


def focal_costs_of_background(
    probs: Float[Tensor, "batch candidates classes"], balance: float, focus: float
) -> Float[Tensor, "batch candidates"]:
    """What each candidate loses if no class is right: the sum of (1 - balance) p^focus (-log(1 - p))."""
    return (-probs).log1p_().clamp_(min=LEAST_LOG).mul_(probs.pow(focus)).sum(dim=-1).mul_(balance - 1.0)


def focal_corrections(probs: Float[Tensor, "*shape"], balance: float, focus: float) -> Float[Tensor, "*shape"]:
    """What is to be added to that if the class with these probabilities is right after all; may be negative."""
    right = torch.log(probs).clamp_(min=LEAST_LOG).mul_((1.0 - probs).pow_(focus)).mul_(-balance)
    wrong = (-probs).log1p_().clamp_(min=LEAST_LOG).mul_(probs.pow(focus)).mul_(1.0 - balance)
    return right.add_(wrong)


def overlap_costs(iou: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """-log(IoU + 1e-7): 16.118 without overlap."""
    return (iou + 1e-7).log_().neg_()


def distance_costs(
    points: Float[Tensor, "batch candidates 2"],
    strides: Float[Tensor, "batch candidates"],
    targets: Float[Tensor, "batch targets 4"],
    weight: float,
    base: float,
) -> Float[Tensor, "batch targets candidates"]:
    """weight x base ^ (distance to the target's center, in cells); infinite in fp32 beyond 38 cells for base 10."""
    x, y = points.movedim(-1, 0).contiguous()[:, :, None].unbind(dim=0)
    center_x, center_y = (0.5 * (targets[..., :2] + targets[..., 2:]))[..., None].unbind(dim=2)
    cells = (x - center_x).square_().add_((y - center_y).square_()).sqrt_().div_(strides[:, None])
    return torch.pow(base, cells).mul_(weight)


def dynamic_counts(iou: Float[Tensor, "batch targets candidates"], at_most: int) -> Int64[Tensor, "batch targets"]:
    """How many candidates each target takes: the sum of its `at_most` largest IoUs, rounded down, at least 1."""
    return iou.topk(min(at_most, iou.shape[2]), dim=2).values.sum(dim=2).long().clamp_(min=1)


@dataclass(frozen=True)
class Takes:
    """What the targets so far have taken."""

    count: Int32[Tensor, "batch candidates"]
    """Targets that took this candidate."""
    taker: Int64[Tensor, "batch candidates"]
    """The last of them, or -1."""
    cost: Float[Tensor, "batch candidates"]
    """The lowest with any target, whether it took the candidate or not; inf without."""
    cheapest: Int64[Tensor, "batch candidates"]
    """The target of that cost, the first of equals."""
    iou: Float[Tensor, "batch candidates"]
    """The best with any target, 0 without."""

    @classmethod
    def none(cls, like: Float[Tensor, "batch candidates"]) -> "Takes":
        """Before the first target."""
        counts = torch.zeros_like(like, dtype=torch.int32)
        nobody = torch.full_like(like, -1, dtype=torch.int64)
        return cls(counts, nobody, torch.full_like(like, torch.inf), nobody, torch.zeros_like(like))

    @property
    def target(self) -> Int64[Tensor, "batch candidates"]:
        """Whose each candidate is, or -1: of several takers it goes to the target where it costs the least of all, even
        if that one had not taken it."""
        return torch.where(self.count > 1, self.cheapest, self.taker)


def take_cheapest(
    before: Takes,
    cost: Float[Tensor, "batch targets candidates"],
    iou: Float[Tensor, "batch targets candidates"],
    eligible: Bool[Tensor, "batch candidates"],
    first: int,
    at_most: int,
) -> Takes:
    """Let each of the next targets, the first of which has the place `first`, take its cheapest candidates.

    A cost is not negative; what costs inf is never taken, even by a target that has nothing else. How many a target
    takes is told by the IoUs of `eligible` candidates.
    """
    place = torch.arange(first, first + cost.shape[1], device=cost.device)[:, None]
    cheap = lowest_places(cost, at_most)
    rank = torch.arange(cheap.shape[2], device=cost.device)
    takes = rank < dynamic_counts(iou * eligible[:, None], at_most)[..., None]
    takes &= cost.gather(2, cheap) < torch.inf
    lowest, cheapest = cost.min(dim=1)
    is_lower = lowest < before.cost
    return Takes(
        count=before.count.scatter_add(1, cheap.flatten(1), takes.flatten(1).int()),
        taker=before.taker.scatter_reduce(1, cheap.flatten(1), torch.where(takes, place, -1).flatten(1), "amax"),
        cost=torch.where(is_lower, lowest, before.cost),
        cheapest=torch.where(is_lower, cheapest + first, before.cheapest),
        iou=torch.maximum(before.iou, iou.amax(dim=1)),
    )

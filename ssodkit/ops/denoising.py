"""Queries made from noised targets: which slot is whose, who sees whom, and how boxes are moved.

Source: Zhang et al., DINO, ICLR 2023, arXiv:2203.03605, section "Contrastive DeNoising Training"; numbers of groups and
bands of noise are those of the released code (IDEA-Research/DINO).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor


@dataclass(frozen=True)
class Slots:
    """Every group has a slot for each of so many targets, then one more for each, whose noise is larger."""

    target: Int64[Tensor, "batch slots"]
    """The target's place among those of its image; below 0 or beyond its targets it has no meaning."""
    used: Bool[Tensor, "batch slots"]
    positive: Bool[Tensor, "batch slots"]
    """Slots whose query is to find its target; the others are to say that nothing is there. True only where `used`."""
    group: Int64[Tensor, "batch slots"]


def lay_slots(counts: Int64[Tensor, "batch"], longest: Int64[Tensor, "batch"], pairs: int, slots: int) -> Slots:
    """`pairs` // `longest` groups, at least one, of 2 `longest` slots, for images with `counts` targets.

    `slots` are enough for 2 max(`pairs`, `longest`); an image that is alone in its batch is the `longest` in it.
    """
    longest = longest.clamp(min=1)[:, None]
    place = torch.arange(slots, device=counts.device)
    group, within = place // (2 * longest), place % (2 * longest)
    target = within % longest
    used = (group < (pairs // longest).clamp(min=1)) & (target < counts[:, None])
    return Slots(target, used, used & (within < longest), group)


def blocked_between(slots: Slots, queries: int) -> Bool[Tensor, "batch all all"]:
    """Who does not see whom, denoising slots before `queries`: groups see themselves and the queries, queries only
    themselves. A slot that is not used is seen by its own group alone."""
    count = slots.group.shape[1]
    blocked = torch.zeros(
        len(slots.group), count + queries, count + queries, dtype=torch.bool, device=slots.group.device
    )
    blocked[:, :count, :count] = slots.group[:, :, None] != slots.group[:, None]
    blocked[:, count:, :count] = True
    return blocked


def move_corners(
    boxes: Float[Tensor, "*batch 4"], signs: Float[Tensor, "*batch 4"], draws: Float[Tensor, "*batch 4"], noise: float
) -> Float[Tensor, "*batch 4"]:
    """Boxes (cx, cy, w, h) whose every corner coordinate went `signs` x `draws` x `noise` half sides, clamped to 0..1.

    Draws are in 0..1 for what should find its way back, in 1..2 for what should not.
    """
    center, half = boxes[..., :2], 0.5 * boxes[..., 2:]
    corners = torch.cat([center - half, center + half], dim=-1) + signs * draws * noise * half.tile(2)
    low, high = corners.clamp(0.0, 1.0).chunk(2, dim=-1)
    return torch.cat([0.5 * (low + high), (high - low).clamp(min=0.0)], dim=-1)

"""Maps of a pyramid that look at their neighbors: resizing, mixing levels, and sampling beside the cell.

Source: Wang et al., Consistent-Teacher, CVPR 2023, arXiv:2209.01589, section "3-D Feature Alignment Module"; the order
(levels first, then places) and the clamps are those of the released code (Adamdad/ConsistentTeacher).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate


def resize(
    values: Float[Tensor, "batch channels _ _"], size: Sequence[int]
) -> Float[Tensor, "batch channels height width"]:
    """Bilinear, with half-cell centers; no smoothing where it shrinks."""
    return interpolate(values, tuple(size), mode="bilinear", align_corners=False)


def with_neighbors(levels: Sequence[Float[Tensor, "batch channels _ _"]]) -> list[Float[Tensor, "batch all _ _"]]:
    """Each level between its finer and coarser neighbor, resized to it; at the ends it stands in for the missing."""
    joined = []
    for place, level in enumerate(levels):
        size, last = level.shape[-2:], len(levels) - 1
        finer = resize(levels[place - 1], size) if place > 0 else level
        coarser = resize(levels[place + 1], size) if place < last else level
        joined.append(torch.cat([finer, level, coarser], dim=1))
    return joined


def mix_levels(
    levels: Sequence[Float[Tensor, "batch channels _ _"]],
    weights: Sequence[Float[Tensor, "batch channels _ _"]],
    strides: Sequence[int],
) -> list[Float[Tensor, "batch channels _ _"]]:
    """P_l = (1 - |w|) B_l + [w]+ s_(l+1) / s_l B_(l+1) + [-w]+ s_(l-1) / s_l B_(l-1), neighbors resized to level l.

    `levels` are in units of their strides. Weights are clamped to [-1, 1], and to 0 where there is no such neighbor.
    """
    mixed = []
    for place, (level, weight, stride) in enumerate(zip(levels, weights, strides, strict=True)):
        last = len(levels) - 1
        weight = weight.clamp(min=-1.0 if place > 0 else 0.0, max=1.0 if place < last else 0.0)
        answer = (1.0 - weight.abs()) * level
        for other, share in ((place + 1, weight.clamp(min=0.0)), (place - 1, (-weight).clamp(min=0.0))):
            if 0 <= other <= last:
                answer = answer + share * strides[other] / stride * resize(levels[other], level.shape[-2:])
        mixed.append(answer)
    return mixed


def sample_beside(
    values: Float[Tensor, "batch channels height width"], shifts: Float[Tensor, "batch twice height width"]
) -> Float[Tensor, "batch channels height width"]:
    """Channel k of each cell, bilinearly, at the cell's place plus `shifts[2 k]` rows and `shifts[2 k + 1]` columns.

    Outside the map all is zero: this is a deformable 1x1 convolution with one group per channel and weights of 1.
    """
    batch, channels, height, width = values.shape
    row = torch.arange(height, device=values.device, dtype=values.dtype)[:, None]
    column = torch.arange(width, device=values.device, dtype=values.dtype)
    down, right = shifts.unflatten(1, (channels, 2)).unbind(dim=2)
    # -1 and 1 are the outer edges of the first and the last cell.
    places = torch.stack([(2.0 * (column + right) + 1.0) / width, (2.0 * (row + down) + 1.0) / height], dim=-1) - 1.0
    alone = values.reshape(batch * channels, 1, height, width)
    sampled = grid_sample(alone, places.flatten(0, 1), mode="bilinear", padding_mode="zeros", align_corners=False)
    return sampled.view(batch, channels, height, width)

"""Which queries see which, where groups of them are decoded beside a detector's own."""

import torch
from jaxtyping import Bool, Int64
from torch import Tensor


def blocked_beside(
    group: Int64[Tensor, "batch queries"], valid: Bool[Tensor, "batch queries"], own: Bool[Tensor, "batch own"]
) -> Bool[Tensor, "batch queries seen"]:
    """Who does not see whom, the detector's `own` queries behind these: all see those of their group and the own ones,
    as far as they are valid.

    Source: Zhang et al., Semi-DETR, CVPR 2023, arXiv:2307.08095, section 3.3; in its code slots that are not valid are
    seen, so that an image depends on its batch.
    """
    blocked = (group[:, :, None] != group[:, None]) | ~valid[:, None]
    return torch.cat([blocked, ~own[:, None].expand(-1, group.shape[1], -1)], dim=-1)

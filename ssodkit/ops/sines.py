"""How a detection transformer writes places: as sines for attention, and as logits that an update is added to.

Source: Vaswani et al., Attention Is All You Need, arXiv:1706.03762, section 3.5; for boxes Liu et al., DAB-DETR, ICLR
2022, arXiv:2201.12329, section "Learning Anchor Boxes Directly". Scale and clamp are the released code's
(IDEA-Research/DINO).
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from ssodkit.ops.boxes import at_least_fp32


def sine_code(
    positions: Float[Tensor, "*batch axes"], channels_per_axis: int, temperature: float
) -> Float[Tensor, "*batch channels"]:
    """sin and cos, by turns, of 2 pi p / temperature^(2 i / channels_per_axis), i from 0; axes one after the other.

    Positions are in 0..1, the answer fp32 or finer. `channels_per_axis` is even.
    """
    positions = at_least_fp32(positions)
    pairs = torch.arange(channels_per_axis // 2, dtype=positions.dtype, device=positions.device)
    angles = positions[..., None] * (2.0 * math.pi * temperature ** (pairs * (-2.0 / channels_per_axis)))
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-3)


def logit(probs: Float[Tensor, "*batch"], clamp: float) -> Float[Tensor, "*batch"]:
    """The inverse of the sigmoid, log(p / (1 - p)) with both at least `clamp`; finite, and fp32 or finer.

    Probabilities beyond 0 and 1 are 0 and 1.
    """
    probs = at_least_fp32(probs).clamp(min=0.0, max=1.0)
    return torch.log(probs.clamp(min=clamp) / (1.0 - probs).clamp(min=clamp))

"""How sure a network is of each side of a box, and which sides are worth learning from a surer one.

An uncertainty is a logit of each side: sigma = sigmoid of it is the deviation of that side, 1 - sigma its certainty.

Source: Liu et al., Unbiased Teacher v2, CVPR 2022, arXiv:2206.09500, and its released code
(facebookresearch/unbiased-teacher-v2).
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from ssodkit.ops.boxes import at_least_fp32

LEAST_LOG_SIGMA = -30.0
"""Below it 1 / sigma^2 would soon be infinite, and 0 times that no number."""


def expected_bin(logits: Float[Tensor, "*batch bins"]) -> Float[Tensor, "*batch"]:
    """The mean of 0, 1, 2, ... under the softmax of `logits`, fp32 or finer.

    Source: Li et al., Generalized Focal Loss, NeurIPS 2020, arXiv:2006.04388, eq. 4.
    """
    probs = at_least_fp32(logits).softmax(dim=-1)
    bins = torch.arange(logits.shape[-1], dtype=probs.dtype, device=probs.device)
    return (probs * bins).sum(dim=-1)


def gaussian_nll(
    residuals: Float[Tensor, "*batch sides"], uncertainty: Float[Tensor, "*batch sides"]
) -> Float[Tensor, "*batch"]:
    """Of normal residuals: r^2 / (2 sigma^2) + ln(sigma) + ln(2 pi) / 2, summed over the sides; fp32 or finer.

    It falls below 0 where small residuals are known to be small.
    """
    log_sigma = logsigmoid(at_least_fp32(uncertainty))  # not ln(sigma), which half precision may have rounded to 0
    log_sigma = log_sigma.clamp(min=LEAST_LOG_SIGMA)
    squared = at_least_fp32(residuals).square()
    per_side = 0.5 * squared * (-2.0 * log_sigma).exp() + log_sigma + 0.5 * math.log(2.0 * math.pi)
    return per_side.sum(dim=-1)


def certainty(uncertainty: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """1 - sigma, from 0 to 1, fp32 or finer."""
    return at_least_fp32(-uncertainty).sigmoid()


def are_surer(
    theirs: Float[Tensor, "*shape"], mine: Float[Tensor, "*shape"], above: float, margin: float
) -> Bool[Tensor, "*shape"]:
    """Where their certainty is above a number, and above mine by more than `margin`: Listen2Student's mask."""
    return (theirs > above) & (theirs > mine + margin)

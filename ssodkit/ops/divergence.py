"""How far two probability distributions are from each other."""

import torch
from jaxtyping import Float
from torch import Tensor

EPS = 1e-7
"""Added to what a logarithm is taken of."""


def jensen_shannon(
    first: Float[Tensor, "*batch columns"], second: Float[Tensor, "*batch columns"]
) -> Float[Tensor, "*batch"]:
    """Half of KL(p | m) + KL(q | m) with m = (p + q) / 2, summed over the columns; gradients reach both.

    The logarithms have no gradient: their shares in it cancel, and where p is nearly q rounding would be left.

    Source: Jeong et al., CSD, NeurIPS 2019, section 3.1.
    """
    with torch.no_grad():
        above_mean = -torch.log1p(0.5 * (second - first) / (first + EPS))  # log p / m
        other_above_mean = -torch.log1p(0.5 * (first - second) / (second + EPS))
    return 0.5 * (first * above_mean + second * other_above_mean).sum(dim=-1)


def half_jeffreys(
    first: Float[Tensor, "*batch columns"], second: Float[Tensor, "*batch columns"]
) -> Float[Tensor, "*batch"]:
    """Half of KL(q | p) + KL(p | q), summed over the columns; what stands first in each gets no gradient.

    Source: the released code of CSD (soo89/CSD-SSD), where the paper has `jensen_shannon`.
    """
    log_first, log_second = torch.log(first + EPS), torch.log(second + EPS)
    to_first = second.detach() * (log_second.detach() - log_first)
    to_second = first.detach() * (log_first.detach() - log_second)
    return 0.5 * (to_first + to_second).sum(dim=-1)

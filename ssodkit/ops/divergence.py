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

    Source: Jeong et al., CSD, NeurIPS 2019, section 3.1.
    """
    between = torch.log(0.5 * (first + second) + EPS)
    apart = first * (torch.log(first + EPS) - between) + second * (torch.log(second + EPS) - between)
    return 0.5 * apart.sum(dim=-1)


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

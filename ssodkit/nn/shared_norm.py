"""Batch normalization by the rows that count, of all processes: what is padded, or lies on another device, makes no
difference.

Source: Ioffe and Szegedy, ICML 2015, arXiv:1502.03167, algorithm 1. There are no running statistics: it is for networks
that are used in training alone.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ssodkit.ops.boxes import at_least_fp32
from ssodkit.ops.collect import sum_with_gradients

EPSILON = 1e-5


class SharedNorm(nn.Module):
    """Each channel is brought to mean 0 and variance 1, then scaled and shifted."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(
        self, features: Float[Tensor, "rows channels *cells"], counts: Bool[Tensor, "rows"]
    ) -> Float[Tensor, "rows channels *cells"]:
        """fp32 or finer. All processes must call it; where no row of any process counts, the shift is answered."""
        values = at_least_fp32(features)
        over = [axis for axis in range(values.dim()) if axis != 1]
        shape = (1, -1, *(1,) * (values.dim() - 2))
        weight = counts.view(-1, *(1,) * (values.dim() - 1)).to(values.dtype)
        number = weight.sum() * values[:1, :1].numel()
        sums = sum_with_gradients(torch.cat([(values * weight).sum(dim=over), number[None]]))
        total = sums[-1].clamp(min=1.0)
        centered = (values - (sums[:-1] / total).view(shape)) * weight
        variance = sum_with_gradients(centered.square().sum(dim=over)) / total
        return centered * (self.weight * (variance + EPSILON).rsqrt()).view(shape) + self.bias.view(shape)

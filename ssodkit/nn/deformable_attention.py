"""Deformable attention: each query reads a few places of every level, which it chooses itself.

Source: Zhu et al., Deformable DETR, ICLR 2021, arXiv:2010.04159, eq. 3.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ssodkit.ops.boxes import at_least_fp32
from ssodkit.ops.deformable import References, compass, sample_levels, sampling_places


class DeformableAttention(nn.Module):
    """Multi-scale deformable attention; `heads` divides `channels`. Places and weights are fp32 or finer."""

    def __init__(self, channels: int, heads: int, levels: int, points: int) -> None:
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        self.offsets = nn.Linear(channels, heads * levels * points * 2)
        self.weights = nn.Linear(channels, heads * levels * points)
        self.values = nn.Linear(channels, channels)
        self.output = nn.Linear(channels, channels)
        self.reset()

    def reset(self) -> None:
        """Begin: all queries look around alike, into all directions, and weigh all that they see alike."""
        for layer in (self.offsets, self.weights):
            nn.init.zeros_(layer.weight)
        for layer in (self.values, self.output):
            nn.init.xavier_uniform_(layer.weight)
        for layer in (self.weights, self.values, self.output):
            nn.init.zeros_(layer.bias)
        with torch.no_grad():
            self.offsets.bias.copy_(compass(self.heads, self.levels, self.points).flatten())

    def forward(
        self,
        queries: Float[Tensor, "batch queries channels"],
        references: References,
        tokens: Float[Tensor, "batch tokens channels"],
        shapes: Sequence[tuple[int, int]],
        valid: Bool[Tensor, "batch tokens"],
    ) -> Float[Tensor, "batch queries channels"]:
        """What each query reads of `tokens`, the cells of all levels, whose heights and widths are `shapes`.

        References are in 0..1 of each level's map, padding included; see `sampling_places` for what is read around
        them. A token that is not `valid` reads as 0.
        """
        # After the projection: its bias would else be read from the padding.
        values = self.values(tokens).masked_fill(~valid[..., None], 0.0).unflatten(-1, (self.heads, -1))
        offsets = self.offsets(queries).unflatten(-1, (self.heads, self.levels, self.points, 2))
        weights = at_least_fp32(self.weights(queries)).unflatten(-1, (self.heads, -1)).softmax(dim=-1)
        places = sampling_places(references, offsets, shapes)
        return self.output(sample_levels(values, shapes, places, weights.unflatten(-1, (self.levels, self.points))))

"""Layers of a detection transformer: norms behind the residuals, ReLU, no dropout.

Source: Zhu et al., Deformable DETR, ICLR 2021, arXiv:2010.04159, section 4; Zhang et al., DINO, ICLR 2023,
arXiv:2203.03605. Matrices begin Xavier-uniform, biases at 0.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import linear, relu, scaled_dot_product_attention

from ssodkit.nn.deformable_attention import DeformableAttention
from ssodkit.ops.deformable import References

Others = tuple[Float[Tensor, "batch others channels"], Float[Tensor, "batch others channels"]]
"""Keys and values of further queries, before their projections."""


class Mlp(nn.Module):
    """`layers` matrices, with a ReLU between each and the next."""

    def __init__(self, in_channels: int, hidden: int, out_channels: int, layers: int) -> None:
        super().__init__()
        widths = [in_channels, *[hidden] * (layers - 1), out_channels]
        self.layers = nn.ModuleList(_linear(*pair) for pair in pairwise(widths))

    def forward(self, features: Float[Tensor, "*batch _"]) -> Float[Tensor, "*batch _"]:
        """The last layer's output, without ReLU."""
        for layer in self.layers[:-1]:
            features = relu(layer(features))
        return self.layers[-1](features)


class SelfAttention(nn.Module):
    """Multi-head attention (arXiv:1706.03762, section 3.2) of queries to each other; `heads` divides `channels`.

    `project` makes queries, keys and values, and is drawn as the one matrix that it is, as in torch and DETR.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.project = _linear(channels, 3 * channels)
        self.output = _linear(channels, channels)

    def forward(
        self,
        queries_and_keys: Float[Tensor, "batch queries channels"],
        values: Float[Tensor, "batch queries channels"],
        blocked: Bool[Tensor, "#batch queries seen"] | None,
        others: Others | None = None,
    ) -> Float[Tensor, "batch queries channels"]:
        """`blocked[b, i, j]`: query i does not see query j, be it one of these or, behind them, one of `others`, which
        see nothing here. One that would see none sees itself."""
        channels = values.shape[-1]
        weight, bias = self.project.weight, self.project.bias
        if others is None:
            queries, keys = linear(queries_and_keys, weight[: 2 * channels], bias[: 2 * channels]).chunk(2, dim=-1)
        else:
            queries = linear(queries_and_keys, weight[:channels], bias[:channels])
            seen_keys, values = torch.cat([queries_and_keys, others[0]], 1), torch.cat([values, others[1]], 1)
            keys = linear(seen_keys, weight[channels : 2 * channels], bias[channels : 2 * channels])
        values = linear(values, weight[2 * channels :], bias[2 * channels :])
        queries, keys, values = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (queries, keys, values)
        )
        seen = None if blocked is None else _seen(blocked)[:, None]  # the same for all heads
        answer = scaled_dot_product_attention(queries, keys, values, attn_mask=seen)
        return self.output(answer.transpose(1, 2).flatten(2))


class EncoderLayer(nn.Module):
    """Tokens read the pyramid that they are, then each is thought over by itself, `width` channels wide."""

    def __init__(self, channels: int, heads: int, levels: int, points: int, width: int) -> None:
        super().__init__()
        self.attention = DeformableAttention(channels, heads, levels, points)
        self.attention_norm = nn.LayerNorm(channels)
        self.feed_forward = Mlp(channels, width, channels, layers=2)
        self.feed_forward_norm = nn.LayerNorm(channels)

    def forward(
        self,
        tokens: Float[Tensor, "batch tokens channels"],
        position: Float[Tensor, "batch tokens channels"],
        references: References,
        shapes: Sequence[tuple[int, int]],
        valid: Bool[Tensor, "batch tokens"],
    ) -> Float[Tensor, "batch tokens channels"]:
        """The tokens' next state; the other arguments as for `DeformableAttention`."""
        read = self.attention(tokens + position, references, tokens, shapes, valid)
        tokens = self.attention_norm(tokens + read)
        return self.feed_forward_norm(tokens + self.feed_forward(tokens))


class DecoderLayer(nn.Module):
    """Queries see each other, read the pyramid at their boxes, and are thought over, `width` channels wide."""

    def __init__(self, channels: int, heads: int, levels: int, points: int, width: int) -> None:
        super().__init__()
        self.self_attention = SelfAttention(channels, heads)
        self.self_norm = nn.LayerNorm(channels)
        self.cross_attention = DeformableAttention(channels, heads, levels, points)
        self.cross_norm = nn.LayerNorm(channels)
        self.feed_forward = Mlp(channels, width, channels, layers=2)
        self.feed_forward_norm = nn.LayerNorm(channels)

    def forward(
        self,
        queries: Float[Tensor, "batch queries channels"],
        position: Float[Tensor, "batch queries channels"],
        references: References,
        tokens: Float[Tensor, "batch tokens channels"],
        shapes: Sequence[tuple[int, int]],
        valid: Bool[Tensor, "batch tokens"],
        blocked: Bool[Tensor, "#batch queries seen"] | None,
        others: Others | None = None,
    ) -> Float[Tensor, "batch queries channels"]:
        """The queries' next state; see `SelfAttention` for `blocked` and `others`, `DeformableAttention` for the
        rest."""
        queries = self.self_norm(queries + self.self_attention(queries + position, queries, blocked, others))
        read = self.cross_attention(queries + position, references, tokens, shapes, valid)
        queries = self.cross_norm(queries + read)
        return self.feed_forward_norm(queries + self.feed_forward(queries))


def _linear(in_channels: int, out_channels: int) -> nn.Linear:
    layer = nn.Linear(in_channels, out_channels)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _seen(blocked: Tensor) -> Tensor:
    """The opposite of `blocked`, in which no row is empty: a softmax over nothing is NaN."""
    itself = torch.eye(*blocked.shape[-2:], dtype=torch.bool, device=blocked.device)
    return ~blocked | (itself & blocked.all(dim=-1, keepdim=True))

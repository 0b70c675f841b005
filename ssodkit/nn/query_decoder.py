"""Queries that read tokens layer by layer, each of which moves their boxes a little.

Source: Zhang et al., DINO, ICLR 2023, arXiv:2203.03605, section "Look Forward Twice", figure 6.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ssodkit.nn.token_encoder import Tokens
from ssodkit.nn.transformer import DecoderLayer, Mlp
from ssodkit.ops.boxes import at_least_fp32
from ssodkit.ops.sines import logit, sine_code
from ssodkit.structures.records import Record

TEMPERATURE = 10_000.0
"""Of the sines that tell a query where its box lies."""

Said = tuple[Float[Tensor, "batch queries classes"], Float[Tensor, "batch queries 4"]]
"""Class logits, and boxes (cx, cy, w, h) in sides of the image without padding, 0 to 1, fp32 or finer."""


@dataclass(frozen=True)
class Trace(Record):
    """What queries were as they came to each layer, which is how others see them."""

    states: tuple[Float[Tensor, "batch queries channels"], ...]
    positions: tuple[Float[Tensor, "batch queries channels"], ...]

    def since(self, first: int) -> "Trace":
        """Of the queries from this place on."""
        return Trace(*(tuple(part[:, first:] for part in parts) for parts in (self.states, self.positions)))


@dataclass(frozen=True)
class Decoded:
    """What became of queries."""

    said: list[Said]
    """By each layer."""
    states: list[Float[Tensor, "batch queries channels"]]
    """Behind each layer, normalized: what it says is made of them."""
    trace: Trace


class QueryHead(nn.Module):
    """What a query says: a class, each with the probability `prior` at first, and how its box moves: not at all."""

    def __init__(self, channels: int, num_classes: int, prior: float) -> None:
        super().__init__()
        self.classify = nn.Linear(channels, num_classes)
        self.move = Mlp(channels, channels, 4, layers=3)
        nn.init.constant_(self.classify.bias, -math.log((1.0 - prior) / prior))
        last = self.move.layers[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def moved(
        self, boxes: Float[Tensor, "batch queries 4"], states: Float[Tensor, "batch queries channels"], clamp: float
    ) -> Float[Tensor, "batch queries 4"]:
        """The boxes after their move, which is added to their logits."""
        return (logit(boxes, clamp) + at_least_fp32(self.move(states))).sigmoid()


class QueryDecoder(nn.Module):
    """Layers that share one head, or have their own, and one norm before it."""

    def __init__(
        self,
        channels: int,
        heads: int,
        levels: int,
        points: int,
        width: int,
        layers: int,
        num_classes: int,
        shares_head: bool,
        prior: float,
        clamp: float,
    ) -> None:
        super().__init__()
        self.clamp = clamp
        self.layers = nn.ModuleList(DecoderLayer(channels, heads, levels, points, width) for _ in range(layers))
        self.norm = nn.LayerNorm(channels)
        self.position = Mlp(2 * channels, channels, channels, layers=2)
        self.heads = nn.ModuleList(QueryHead(channels, num_classes, prior) for _ in range(1 if shares_head else layers))

    def forward(
        self,
        content: Float[Tensor, "batch queries channels"],
        boxes: Float[Tensor, "batch queries 4"],
        tokens: Tokens,
        blocked: Bool[Tensor, "#batch queries seen"] | None,
        beside: Trace | None = None,
    ) -> Decoded:
        """What each layer says about queries that begin with these `boxes`; `blocked`: see `SelfAttention`. They also
        see those of `beside`, which have been here before and do not see them.

        The answer of a layer moves the boxes of the layer before once more, whose move so learns from both; what a
        layer reads by, though, is taken as it is.
        """
        state, said, states, positions, came = content, [], [], [], []
        reference = before = boxes.detach()
        for place, layer in enumerate(self.layers):
            head = self.heads[min(place, len(self.heads) - 1)]
            assert isinstance(head, QueryHead)
            came.append(state)
            positions.append(self._position(reference, tokens, state))
            others = None
            if beside is not None:
                others = beside.states[place] + beside.positions[place], beside.states[place]
            state = layer(state, positions[-1], *self._reads(reference, tokens), blocked, others)
            states.append(self.norm(state))
            said.append((head.classify(states[-1]), head.moved(before, states[-1], self.clamp)))
            if place + 1 < len(self.layers):
                before = head.moved(reference, state, self.clamp)
                reference = before.detach()
        return Decoded(said, states, Trace(tuple(came), tuple(positions)))

    def _position(self, boxes: Tensor, tokens: Tokens, like: Tensor) -> Tensor:
        """What tells each query where its box lies on the finest map."""
        center_x, center_y, width, height = (boxes * tokens.filled[:, :1].tile(2)).unbind(dim=-1)
        axes = torch.stack([center_y, center_x, width, height], dim=-1)
        code: Tensor = self.position(sine_code(axes, like.shape[-1] // 2, TEMPERATURE).to(like.dtype))
        return code

    def _reads(self, boxes: Tensor, tokens: Tokens) -> tuple[Tensor, Tensor, tuple[tuple[int, int], ...], Tensor]:
        """Boxes on the map of each level, and what lies there."""
        references = boxes[:, :, None] * tokens.filled[:, None].tile(2)
        return references, tokens.memory, tokens.shapes, tokens.valid

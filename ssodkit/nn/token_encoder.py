"""From the maps of a pyramid to tokens that have seen all levels.

Source: Zhu et al., Deformable DETR, ICLR 2021, arXiv:2010.04159, section 4.1; encodings of places as in DINO,
ICLR 2023, arXiv:2203.03605.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from ssodkit.nn.transformer import EncoderLayer
from ssodkit.ops.sines import sine_code
from ssodkit.structures.records import Record

TEMPERATURE = 20.0
"""Of the sines that tell a token where it lies."""


@dataclass(frozen=True)
class Tokens(Record):
    """The cells of all levels, one level behind the other, row by row."""

    memory: Float[Tensor, "batch tokens channels"]
    centers: Float[Tensor, "batch tokens 2"]
    """(x, y) of each cell's middle, 0 to 1 across its image without padding; beyond 1 in the padding."""
    valid: Bool[Tensor, "batch tokens"]
    """Not padding."""
    filled: Float[Tensor, "batch levels 2"]
    """How much of each level's map, across and down, is image."""
    shapes: tuple[tuple[int, int], ...]
    """Height and width of each level in cells."""


class TokenEncoder(nn.Module):
    """Layers of deformable attention among the tokens; each level adds a learned vector to its places."""

    def __init__(self, channels: int, heads: int, levels: int, points: int, width: int, layers: int) -> None:
        super().__init__()
        self.level_vectors = nn.Parameter(nn.init.normal_(torch.empty(levels, channels)))
        self.layers = nn.ModuleList(EncoderLayer(channels, heads, levels, points, width) for _ in range(layers))

    def forward(
        self,
        maps: Sequence[Float[Tensor, "batch channels _ _"]],
        strides: Sequence[int],
        sizes: Int64[Tensor, "batch 2"],
    ) -> Tokens:
        """Tokens of images with these heights and widths in pixels, which lie in the maps' upper left corners."""
        tokens, places = _lay(maps, strides, sizes)
        channels = tokens.memory.shape[-1]
        by_level = zip(self.level_vectors, tokens.shapes, strict=True)
        vectors = torch.cat([vector.expand(height * width, -1) for vector, (height, width) in by_level])
        position = sine_code(places.flip(-1), channels // 2, TEMPERATURE) + vectors
        references = tokens.centers[:, :, None] * tokens.filled[:, None]
        memory = tokens.memory
        for layer in self.layers:
            memory = layer(memory, position.to(memory.dtype), references, tokens.shapes, tokens.valid)
        return Tokens(memory, tokens.centers, tokens.valid, tokens.filled, tokens.shapes)


def _lay(
    maps: Sequence[Tensor], strides: Sequence[int], sizes: Int64[Tensor, "batch 2"]
) -> tuple[Tokens, Float[Tensor, "batch tokens 2"]]:
    """Bare tokens, and where each ends: the share (x, y) of its image's cells that lie up to and including it."""
    centers, places, valid, filled = [], [], [], []
    for level, stride in zip(maps, strides, strict=True):
        height, width = level.shape[-2:]
        full = torch.stack([(sizes[:, 1] + stride - 1) // stride, (sizes[:, 0] + stride - 1) // stride], dim=-1)
        cells = full.clamp(min=1)[:, None].to(torch.float32)  # batch 1 2, across and down
        y = torch.arange(height, device=level.device, dtype=torch.float32)[:, None].expand(height, width)
        x = torch.arange(width, device=level.device, dtype=torch.float32).expand(height, width)
        corner = torch.stack([x, y], dim=-1).view(1, height * width, 2)
        centers.append((corner + 0.5) / cells)
        places.append((corner + 1.0) / cells)
        valid.append((corner < full[:, None]).all(dim=-1))
        filled.append(torch.cat([cells[..., :1] / width, cells[..., 1:] / height], dim=-1))
    tokens = Tokens(
        torch.cat([level.flatten(2).transpose(1, 2) for level in maps], dim=1),
        torch.cat(centers, dim=1),
        torch.cat(valid, dim=1),
        torch.cat(filled, dim=1),
        tuple((level.shape[-2], level.shape[-1]) for level in maps),
    )
    return tokens, torch.cat(places, dim=1)

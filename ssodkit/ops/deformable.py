"""Deformable attention's arithmetic: where a query reads the levels of a pyramid, and what it reads there.

Source: Zhu et al., Deformable DETR, ICLR 2021, arXiv:2010.04159, eq. 3 and section 4.1; the offsets at the start and in
boxes are those of the released code (fundamentalvision/Deformable-DETR).

Places are (x, y): 0 and 1 are the outer edges of a level's map, padding included.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import grid_sample

from ssodkit.ops.boxes import at_least_fp32

References = Float[Tensor, "batch queries levels 2"] | Float[Tensor, "batch queries levels 4"]
"""Where a query stands on the map of each level: a point (x, y) or a box (cx, cy, w, h)."""


def compass(heads: int, levels: int, points: int) -> Float[Tensor, "heads levels points 2"]:
    """Offsets to begin with: head m looks in direction 2 pi m / heads, point k goes k + 1 squares far, on all levels.

    Squares, not circles: the longer of the two coordinates of the first point is 1.
    """
    angles = torch.arange(heads, dtype=torch.float64) * (2.0 * math.pi / heads)
    directions = torch.stack([angles.cos(), angles.sin()], dim=-1)
    directions = directions / directions.abs().amax(dim=-1, keepdim=True)
    distances = torch.arange(1, points + 1, dtype=torch.float64)[:, None]
    return (directions[:, None, None] * distances).expand(heads, levels, points, 2).to(torch.get_default_dtype())


def sampling_places(
    references: References,
    offsets: Float[Tensor, "batch queries heads levels points 2"],
    shapes: Sequence[tuple[int, int]],
) -> Float[Tensor, "batch queries heads levels points 2"]:
    """Beside points, offsets are in cells of each level; beside boxes in sides / (2 points).

    So the last of the initial offsets lies on the edge of a box. `shapes` are the levels' heights and widths in cells.
    In fp32 or finer.
    """
    references, offsets = at_least_fp32(references), at_least_fp32(offsets)
    centers = references[:, :, None, :, None, :2]
    if references.shape[-1] == 4:
        return centers + offsets * (references[:, :, None, :, None, 2:] * (0.5 / offsets.shape[-2]))
    right, down = offsets.unbind(dim=-1)
    # By numbers of the host: a tensor of the sizes would be a copy to the device, for which the host waits.
    moves = [
        torch.stack([right[..., level, :] / width, down[..., level, :] / height], dim=-1)
        for level, (height, width) in enumerate(shapes)
    ]
    return centers + torch.stack(moves, dim=3)


def sample_levels(
    values: Float[Tensor, "batch tokens heads width"],
    shapes: Sequence[tuple[int, int]],
    places: Float[Tensor, "batch queries heads levels points 2"],
    weights: Float[Tensor, "batch queries heads levels points"],
) -> Float[Tensor, "batch queries channels"]:
    """For each query the weighted sum over levels and points of the values at its places, heads side by side.

    `values` are the cells of all levels, row by row, level after level; `shapes` their heights and widths. Between
    cells is read bilinearly, outside the map is 0. In fp32 or finer, also under autocast.
    """
    values, places, weights = at_least_fp32(values), at_least_fp32(places), at_least_fp32(weights)
    batch, _, heads, width = values.shape
    queries = places.shape[1]
    # Queries last: with so few points in a row, reading and summing would take twice as long on a CPU.
    grids = (2.0 * places - 1.0).permute(0, 2, 3, 4, 1, 5).flatten(0, 1)  # batch*heads levels points queries 2
    weights = weights.permute(0, 2, 3, 4, 1).flatten(0, 1)  # batch*heads levels points queries
    answer = values.new_zeros(batch * heads, width, queries)
    cells = values.split([rows * columns for rows, columns in shapes], dim=1)
    for level, (tokens, (rows, columns)) in enumerate(zip(cells, shapes, strict=True)):
        maps = tokens.permute(0, 2, 3, 1).reshape(batch * heads, width, rows, columns)
        read = grid_sample(maps, grids[:, level], mode="bilinear", padding_mode="zeros", align_corners=False)
        answer = answer + (read * weights[:, None, level]).sum(dim=2)
    return answer.view(batch, heads * width, queries).transpose(1, 2)

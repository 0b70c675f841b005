"""Which box an anchor of a cell belongs to by its shape and place."""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ssodkit.ops.matching import INFINITY_BITS, occupied_chunks, rank_keys


def best_shape_around(
    anchors: Float[Tensor, "batch anchors 4"],
    strides: Float[Tensor, "batch anchors"],
    boxes: Float[Tensor, "batch boxes 4"],
    valid: Bool[Tensor, "batch boxes"],
    limit: float,
    reach: float,
) -> tuple[Int64[Tensor, "batch anchors"], Float[Tensor, "batch anchors"]]:
    """For each anchor the valid box of the nearest shape, the first of equals, or -1; and how far that is.

    Distance of shapes is the largest of both widths and both heights over each other, 1 for equal ones and below
    `limit`. An anchor's middle is its cell's. A box belongs to the cell that holds its middle, and to cells in the same
    row or column whose middle is less than `reach` cells from its own.

    Source: arXiv:2302.07577; the shape of a box, (w / a_w, a_w / w, h / a_h, a_h / h), is compared as there.
    """
    none = INFINITY_BITS * 2**32
    best = torch.full(anchors.shape[:2], none, dtype=torch.int64, device=anchors.device)
    x, y, width, height = _middles_and_sides(anchors)
    for part in occupied_chunks(anchors, valid):
        of_x, of_y, of_width, of_height = (side[..., None] for side in _middles_and_sides(boxes[:, part]))
        across, down = (of_x - x[:, None]) / strides[:, None], (of_y - y[:, None]) / strides[:, None]
        same_column, same_row = ((shift >= -0.5) & (shift < 0.5) for shift in (across, down))
        near = (same_row & (across.abs() < reach)) | (same_column & (down.abs() < reach)) | (same_row & same_column)
        ratio = torch.maximum(of_width / width[:, None], of_height / height[:, None])
        ratio = torch.maximum(ratio, width[:, None] / of_width.clamp(min=1e-6))
        ratio = torch.maximum(ratio, height[:, None] / of_height.clamp(min=1e-6))
        belongs = near & (ratio < limit) & valid[:, part, None]
        place = torch.arange(part.start, part.stop, device=anchors.device)[:, None]
        best = torch.minimum(best, rank_keys(torch.where(belongs, ratio, torch.inf), place).amin(dim=1))
    found = best < none
    distance = (best // 2**32).to(torch.int32).view(torch.float32).to(anchors.dtype)
    return best.remainder(2**32).masked_fill(~found, -1), distance.masked_fill(~found, 1.0)


def _middles_and_sides(boxes: Tensor) -> tuple[Tensor, ...]:
    """x, y, width, height; sides at least a millionth of a pixel."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return (*(0.5 * (low + high)).unbind(dim=-1), *(high - low).clamp(min=1e-6).unbind(dim=-1))

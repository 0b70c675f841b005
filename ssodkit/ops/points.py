"""Points and the boxes around them: distances to the sides, centerness, and which box a point belongs to.

Source: Tian et al., FCOS, ICCV 2019, arXiv:1904.01355, section 3; arXiv:2006.09214.
"""

from functools import reduce

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ssodkit.ops.boxes import box_area
from ssodkit.ops.matching import INFINITY_BITS, occupied_chunks, rank_keys


def side_distances(points: Float[Tensor, "*batch 2"], boxes: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 4"]:
    """From a point (x, y) to the left, top, right and bottom side, in pixels; negative beyond a side."""
    return torch.cat([points - boxes[..., :2], boxes[..., 2:] - points], dim=-1)


def centerness(distances: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch"]:
    """sqrt(min(l, r) / max(l, r) x min(t, b) / max(t, b)): 1 in the middle of a box, 0 on its rim and outside.

    Source: arXiv:1904.01355, equation 3.
    """
    low, high = distances.chunk(2, dim=-1)
    shares = torch.minimum(low, high).clamp(min=0.0) / torch.maximum(low, high).clamp(min=1e-12)
    return shares.prod(dim=-1).sqrt()


def smallest_around(
    points: Float[Tensor, "batch points 2"],
    boxes: Float[Tensor, "batch boxes 4"],
    valid: Bool[Tensor, "batch boxes"],
    nearest: Float[Tensor, "batch points"],
    farthest: Float[Tensor, "batch points"],
    reach: Float[Tensor, "batch points"],
) -> Int64[Tensor, "batch points"]:
    """For each point the smallest valid box that it lies strictly inside, the first of equals, or -1.

    The largest of the point's distances to the box's sides must be from `nearest` to `farthest`, both included, and the
    box's middle less than `reach` away in x and in y.
    """
    none = INFINITY_BITS * 2**32
    best = torch.full(points.shape[:2], none, dtype=torch.int64, device=points.device)
    x, y = points[:, None].unbind(dim=-1)  # batch 1 points
    for part in occupied_chunks(points, valid):
        left, top, right, bottom = boxes[:, part, :, None].unbind(dim=2)  # batch boxes 1
        sides = (x - left, y - top, right - x, bottom - y)
        nearer, largest = reduce(torch.minimum, sides), reduce(torch.maximum, sides)
        belongs = (nearer > 0.0) & valid[:, part, None]
        belongs &= (largest >= nearest[:, None]) & (largest <= farthest[:, None])
        belongs &= (x - 0.5 * (left + right)).abs() < reach[:, None]
        belongs &= (y - 0.5 * (top + bottom)).abs() < reach[:, None]
        area = torch.where(belongs, box_area(boxes[:, part])[..., None], torch.inf)
        place = torch.arange(part.start, part.stop, device=points.device)[:, None]
        best = torch.minimum(best, rank_keys(area, place).amin(dim=1))
    return best.remainder(2**32).masked_fill(best >= none, -1)

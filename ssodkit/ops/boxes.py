"""Arithmetic on boxes: xyxy in pixels, no "+1" anywhere, batched and padded."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def box_sides(boxes: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 4"]:
    """Width, height, width, height of each box, at least 1 pixel: what its four sides are measured in."""
    sides = (boxes[..., 2:] - boxes[..., :2]).clamp(min=1.0)
    return torch.cat([sides, sides], dim=-1)


def box_area(boxes: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch"]:
    """Area in square pixels; boxes turned inside out have area 0."""
    width, height = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0.0).unbind(dim=-1)
    return width * height


def clip_boxes(boxes: Float[Tensor, "batch boxes 4"], sizes: Tensor) -> Float[Tensor, "batch boxes 4"]:
    """Boxes clipped to images of `sizes` (batch, 2), height and width in pixels."""
    height, width = sizes.to(boxes.dtype).unbind(dim=-1)
    bound = torch.stack([width, height, width, height], dim=-1)[:, None]
    return torch.minimum(boxes.clamp(min=0.0), bound)


def has_area(boxes: Float[Tensor, "*batch 4"]) -> Bool[Tensor, "*batch"]:
    """True where width and height are both above zero; False for NaN."""
    return (boxes[..., 2] > boxes[..., 0]) & (boxes[..., 3] > boxes[..., 1])


def pairwise_intersection(
    first: Float[Tensor, "*batch n 4"], second: Float[Tensor, "*batch m 4"]
) -> Float[Tensor, "*batch n m"]:
    """Area shared by every pair, in square pixels."""
    left, top, right, bottom = (side[..., :, None] for side in _sides(first))
    other_left, other_top, other_right, other_bottom = (side[..., None, :] for side in _sides(second))
    width = torch.minimum(right, other_right) - torch.maximum(left, other_left)
    height = torch.minimum(bottom, other_bottom) - torch.maximum(top, other_top)
    return width.clamp(min=0.0) * height.clamp(min=0.0)


def pairwise_iou(
    first: Float[Tensor, "*batch n 4"], second: Float[Tensor, "*batch m 4"]
) -> Float[Tensor, "*batch n m"]:
    """Intersection over union of every pair; 0 where both boxes are empty.

    Memory is n x m: for anchors use `ops.matching`, which streams over the targets. Fastest where m is the longer.
    """
    shared = pairwise_intersection(first, second)
    union = box_area(first)[..., :, None] + box_area(second)[..., None, :] - shared
    return shared / union.clamp(min=torch.finfo(first.dtype).tiny)


def elementwise_iou(first: Float[Tensor, "*batch 4"], second: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch"]:
    """Intersection over union row by row; 0 where both boxes are empty."""
    return pairwise_iou(first[..., None, :], second[..., None, :])[..., 0, 0]


def smoothed_iou(
    first: Float[Tensor, "*batch 4"], second: Float[Tensor, "*batch 4"], unit: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch"]:
    """(I + unit) / (U + unit) row by row, of the areas of intersection and union: above 0 for boxes that are apart.

    Source: the released code of FCOS (tianzhi0549/FCOS), whose boxes are in strides and whose unit is 1.
    """
    shared = pairwise_intersection(first[..., None, :], second[..., None, :])[..., 0, 0]
    union = (box_area(first) + box_area(second) - shared + unit).clamp(min=torch.finfo(first.dtype).eps)
    return (shared + unit) / union


def generalized_iou(
    first: Float[Tensor, "*batch 4"], second: Float[Tensor, "*batch 4"], unit: Float[Tensor, "*batch"] | None = None
) -> Float[Tensor, "*batch"]:
    """IoU - (|C| - |U|) / |C| of boxes row by row, with the union U and the smallest box C around both; -1 to 1.

    Areas are signed, so that a box turned inside out is below -1 at worst and its gradient turns it back. With `unit`
    the IoU is that of `smoothed_iou`.

    Source: Rezatofighi et al., Generalized Intersection over Union, arXiv:1902.09630, algorithm 1.
    """
    smallest = torch.finfo(first.dtype).eps
    low, high = torch.maximum(first[..., :2], second[..., :2]), torch.minimum(first[..., 2:], second[..., 2:])
    shared = (high - low).clamp(min=0.0).prod(dim=-1)
    union = _signed_area(first) + _signed_area(second) - shared
    low, high = torch.minimum(first[..., :2], second[..., :2]), torch.maximum(first[..., 2:], second[..., 2:])
    around = (high - low).clamp(min=0.0).prod(dim=-1).clamp(min=smallest)
    if unit is None:
        return shared / union.clamp(min=smallest) - (around - union) / around
    return (shared + unit) / (union + unit).clamp(min=smallest) - (around - union) / around


def complete_iou(first: Float[Tensor, "*batch 4"], second: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch"]:
    """IoU - rho^2 / c^2 - alpha v of boxes row by row: how far apart middles are, and how unlike shapes, counts.

    rho is the distance of the middles, c the diagonal of the smallest box around both, v = 4 / pi^2 (difference of
    atan(width / height))^2, alpha = v / (1 - IoU + v), through which no gradient goes.

    Source: Zheng et al., Distance-IoU Loss, AAAI 2020, arXiv:1911.08287, equations 8 to 11.
    """
    smallest = torch.finfo(first.dtype).eps
    low, high = torch.maximum(first[..., :2], second[..., :2]), torch.minimum(first[..., 2:], second[..., 2:])
    shared = (high - low).clamp(min=0.0).prod(dim=-1)
    iou = shared / (box_area(first) + box_area(second) - shared).clamp(min=smallest)
    low, high = torch.minimum(first[..., :2], second[..., :2]), torch.maximum(first[..., 2:], second[..., 2:])
    diagonal = (high - low).square().sum(dim=-1).clamp(min=smallest)
    apart = (first[..., :2] + first[..., 2:] - second[..., :2] - second[..., 2:]).square().sum(dim=-1) / 4.0
    unlike = (4.0 / math.pi**2) * (_slope(first) - _slope(second)).square()
    with torch.no_grad():
        share = unlike / (1.0 - iou + unlike).clamp(min=smallest)
    return iou - apart / diagonal - share * unlike


def at_least_fp32(values: Tensor) -> Tensor:
    """Geometry is done in fp32 or finer, whatever autocast made of the network's answers."""
    return values if values.dtype == torch.float64 else values.float()


def _slope(boxes: Tensor) -> Tensor:
    """atan(width / height)."""
    width, height = (boxes[..., 2:] - boxes[..., :2]).unbind(dim=-1)
    return torch.atan(width / height.clamp(min=torch.finfo(boxes.dtype).eps))


def _signed_area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def _sides(boxes: Tensor) -> tuple[Tensor, ...]:
    """Left, top, right and bottom, each contiguous: pairwise arithmetic is several times faster on planes."""
    return boxes.movedim(-1, 0).contiguous().unbind(dim=0)

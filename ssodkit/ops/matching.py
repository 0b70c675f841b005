"""Overlaps of many candidates with the targets of their image, streamed over the targets.

Five images of 268,569 anchors and 100 targets make 134 million pairs, 0.5 GiB for each intermediate of their IoU. Only
a few targets are held against all candidates at a time, so no tensor over pairs exceeds `CHUNK_BYTES`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from ssodkit.ops.boxes import box_area, pairwise_intersection, pairwise_iou
from ssodkit.ops.rows import take_rows

CHUNK_BYTES = 32 * 2**20
"""Of one tensor over pairs; half of what is promised, as their `rank_keys` are twice as long."""
CPU_CHUNK_BYTES = 4 * 2**20
"""The same on the CPU, which computes twice as fast on what fits into its caches."""
INFINITY_BITS = 0x7F800000
"""Of an infinite fp32, the largest of all numbers."""


@dataclass(frozen=True)
class Overlaps:
    """What candidates and targets are to each other; IoU is 0 with anything that is not valid."""

    iou: Float[Tensor, "batch candidates"]
    """Each candidate's best with any target; 0 without targets."""
    target: Int64[Tensor, "batch candidates"]
    """The target of that IoU, the first of equals; 0 where the IoU is 0."""
    target_iou: Float[Tensor, "batch targets"]
    """Each target's best with any candidate."""
    best_of: Int64[Tensor, "batch candidates"]
    """The target that has no better candidate than this one, the last of several, or -1; equals are all best."""


def best_overlaps(
    candidates: Float[Tensor, "batch candidates 4"],
    candidates_valid: Bool[Tensor, "batch candidates"],
    targets: Float[Tensor, "batch targets 4"],
    targets_valid: Bool[Tensor, "batch targets"],
    minimum: float | None = None,
) -> Overlaps:
    """Best overlaps both ways. `best_of` is of targets whose best IoU is above 0 and at least `minimum`; None: none."""
    candidates = candidates.masked_fill(~candidates_valid[..., None], 0.0)
    targets = targets.to(candidates.dtype).masked_fill(~targets_valid[..., None], 0.0)
    best = candidates.new_zeros(candidates.shape[:2])
    best_target = torch.zeros_like(best, dtype=torch.int64)
    best_of = torch.full_like(best, -1, dtype=torch.int32)
    target_iou = candidates.new_zeros(targets.shape[:2])
    for part in occupied_chunks(candidates, targets_valid):
        iou = pairwise_iou(targets[:, part], candidates)  # batch targets candidates
        chunk_best, chunk_target = iou.max(dim=1)
        best_target = torch.where(chunk_best > best, chunk_target + part.start, best_target)
        best = torch.maximum(best, chunk_best)
        target_iou[:, part] = iou.amax(dim=2) if iou.shape[2] else 0.0
        if minimum is not None:
            best_of = torch.maximum(best_of, _best_of(iou, target_iou[:, part], minimum, part.start))
    return Overlaps(best, best_target, target_iou, best_of.long())


def _best_of(iou: Tensor, target_iou: Tensor, minimum: float, first: int) -> Tensor:
    """For each candidate the last target whose best it is, or -1; `first` is the place of the chunk's first target."""
    counts = (target_iou >= minimum) & (target_iou > 0.0)
    # Equals are found whatever the rounding: both sides of the comparison are the same numbers.
    is_best = (iou == target_iou[..., None]) & counts[..., None]  # batch targets candidates
    place = torch.arange(first, first + iou.shape[1], dtype=torch.int32, device=iou.device)[:, None]
    return torch.where(is_best, place, -1).amax(dim=1)


def best_coverage(
    candidates: Float[Tensor, "batch candidates 4"],
    regions: Float[Tensor, "batch regions 4"],
    regions_valid: Bool[Tensor, "batch regions"],
) -> Float[Tensor, "batch candidates"]:
    """The largest share of each candidate's area that lies in one region, 0 to 1; 0 for candidates without area."""
    regions = regions.to(candidates.dtype).masked_fill(~regions_valid[..., None], 0.0)
    area = box_area(candidates).clamp(min=torch.finfo(candidates.dtype).tiny)
    best = torch.zeros_like(area)
    for part in occupied_chunks(candidates, regions_valid):
        best = torch.maximum(best, pairwise_intersection(regions[:, part], candidates).amax(dim=1) / area)
    return best


def target_chunks(candidates: Shaped[Tensor, "batch candidates *rest"], targets: int) -> Iterator[slice]:
    """Slices of `targets` rows, each as long as its pairs, in the candidates' dtype, fit into so many bytes."""
    row_bytes = candidates.shape[0] * candidates.shape[1] * candidates.element_size()
    length = max(1, (CPU_CHUNK_BYTES if candidates.is_cpu else CHUNK_BYTES) // max(row_bytes, 1))
    return (slice(start, min(start + length, targets)) for start in range(0, targets, length))


def occupied_chunks(
    candidates: Shaped[Tensor, "batch candidates *rest"], targets_valid: Bool[Tensor, "batch targets"]
) -> Iterator[slice]:
    """`target_chunks`, on the CPU, where it costs nothing to ask, without those that hold no target of any image."""
    for part in target_chunks(candidates, targets_valid.shape[1]):
        if not candidates.is_cpu or bool(targets_valid[:, part].any()):
            yield part


def inside_any(
    points: Float[Tensor, "batch points 2"], boxes: Float[Tensor, "batch boxes 4"]
) -> Bool[Tensor, "batch points"]:
    """Whether a point (x, y) lies strictly inside at least one box; boxes without area hold no point."""
    x, y = points.movedim(-1, 0).contiguous()[:, :, None].unbind(dim=0)
    found = torch.zeros(points.shape[:2], dtype=torch.bool, device=points.device)
    for part in target_chunks(points, boxes.shape[1]):
        left, top, right, bottom = boxes[:, part, :, None].unbind(dim=2)
        found |= ((x > left) & (x < right) & (y > top) & (y < bottom)).any(dim=1)
    return found


def iou_with_own(
    candidates: Float[Tensor, "batch candidates 4"],
    targets: Float[Tensor, "batch targets 4"],
    own: Int64[Tensor, "batch candidates"],
) -> Float[Tensor, "batch candidates"]:
    """IoU of each candidate with the target at `own`; there is at least one target."""
    return pairwise_iou(candidates[:, :, None], take_rows(targets, own)[:, :, None])[..., 0, 0]


def lowest_places(
    values: Float[Tensor, "batch targets candidates"], count: int, largest: bool = False
) -> Int64[Tensor, "batch targets picked"]:
    """The candidates with each target's lowest (or `largest`) values, the first of equals before the next.

    `picked` is `count`, or `candidates` if that is less. No value is negative or NaN; they are compared in fp32.
    """
    keys = rank_keys(values, torch.arange(values.shape[2], device=values.device), largest)
    return keys.topk(min(count, values.shape[2]), dim=2, largest=False).indices


def rank_keys(values: Float[Tensor, "*shape"], places: Tensor, largest: bool = False) -> Int64[Tensor, "*shape"]:
    """Numbers in the order of `values` (`largest`: the largest first), and of `places` where values are equal.

    `topk` and `scatter_reduce` then never meet equals, of which they would choose any; the low 32 bits are the place.
    """
    bits = values.float().view(torch.int32).long()  # of numbers that are not negative, in their order
    if largest:
        bits.neg_().add_(INFINITY_BITS)
    return bits.mul_(2**32).add_(places)


def quality_by_rank(
    target: Int64[Tensor, "batch candidates"],
    measure: Float[Tensor, "batch candidates"],
    iou: Float[Tensor, "batch candidates"],
    targets: int,
) -> Float[Tensor, "batch candidates"]:
    """measure / (max measure + 1e-7) x max iou, with both maxima over the candidates of the same of `targets` targets.

    A target's best candidate gets its best IoU, the others less as they measure less; 0 where `target` is negative.

    Source: Feng et al., TOOD, ICCV 2021, arXiv:2108.07755, the normalized t.
    """
    place = torch.where(target < 0, targets, target)  # one place more, for those without
    zeros = measure.new_zeros(len(measure), targets + 1)
    best_measure = zeros.scatter_reduce(1, place, measure, "amax").gather(1, place)
    best_iou = zeros.scatter_reduce(1, place, iou, "amax").gather(1, place)
    return (measure / (best_measure + 1e-7) * best_iou).masked_fill(target < 0, 0.0)

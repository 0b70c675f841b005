"""Non-maximum suppression of whole batches, in as few calls of torchvision's kernel as its cost allows."""

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

LARGEST_CALL = {"cpu": 500, "cuda": 50_000}
"""Boxes in one call, where groups allow it: the kernel compares all pairs, so the CPU prefers many small calls."""


def batched_nms(
    boxes: Float[Tensor, "batch boxes 4"],
    scores: Float[Tensor, "batch boxes"],
    groups: Int64[Tensor, "batch boxes"],
    valid: Bool[Tensor, "batch boxes"],
    iou: float | None,
    keep: int,
) -> tuple[Int64[Tensor, "batch kept"], Bool[Tensor, "batch kept"]]:
    """The places of each image's `keep` best boxes after greedy suppression, best first, and which of them are valid.

    Boxes suppress boxes of their own image and group only, where they overlap by more than `iou`; None: nothing is
    suppressed. `groups` are small numbers from 0, such as levels or classes. `kept` is `keep`, or `boxes` if that is
    less.
    """
    image = torch.arange(len(boxes), device=boxes.device)[:, None]
    # A box without area neither suppresses nor is suppressed, so invalid ones need no compaction, which asks the host.
    survives = suppress(
        boxes.masked_fill(~valid[..., None], 0.0).flatten(0, 1),
        scores.flatten(),
        (groups * len(boxes) + image).flatten(),
        iou,
    )
    ranked = scores.masked_fill(~(survives.view_as(valid) & valid), -torch.inf)
    # Stable, because bf16 scores are often equal and the answer should not depend on the device.
    best, index = ranked.sort(dim=1, descending=True, stable=True)
    return index[:, :keep], best[:, :keep] > -torch.inf


def suppress(
    boxes: Float[Tensor, "boxes 4"], scores: Float[Tensor, "boxes"], groups: Int64[Tensor, "boxes"], iou: float | None
) -> Bool[Tensor, "boxes"]:
    """Which boxes survive greedy suppression within their group: none better overlaps them by more than `iou`.

    All where `iou` is None, of which the host is asked nothing.

    Groups are moved apart in float64: in fp32 the offsets cost enough precision to change the answer.
    """
    from torchvision.ops import nms

    survives = torch.full_like(scores, iou is None, dtype=torch.bool)
    if iou is None or not len(boxes):
        return survives
    wide, order = boxes.double(), scores.double()
    apart = wide + (groups * (wide.amax() - wide.amin() + 1.0))[:, None]
    limit = LARGEST_CALL.get(boxes.device.type, len(boxes))
    if len(boxes) <= limit:
        return survives.index_fill(0, nms(apart, order, iou), True)
    for rows in _calls(groups, limit):
        survives.index_fill_(0, rows[nms(apart[rows], order[rows], iou)], True)
    return survives


def _calls(groups: Tensor, limit: int) -> Iterator[Tensor]:
    """Rows of whole groups, together at most `limit` where a single group is not larger."""
    by_group = groups.argsort(stable=True)
    start = stop = 0
    for length in torch.unique_consecutive(groups[by_group], return_counts=True)[1].tolist():
        if stop > start and stop + length - start > limit:
            yield by_group[start:stop]
            start = stop
        stop += length
    yield by_group[start:stop]

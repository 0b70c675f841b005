"""The shortlist: the detections that a selector considers, before any threshold."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ssodkit.assigners.selectors.base import Shortlist, Suppress
from ssodkit.ops.boxes import has_area
from ssodkit.ops.nms import suppress
from ssodkit.structures.predictions import Detections


def shortlist(
    found: Detections, config: Shortlist
) -> tuple[Bool[Tensor, "batch detections"], dict[str, Bool[Tensor, "batch detections"]]]:
    """Which detections are considered, and what is left after each filter on the way there, by its field's name.

    A considered box has an area, survived `suppress`, is among the `at_most` most confident of its image, and stands
    out from these by `deviations`.
    """
    passed = {}
    listed = found.valid & has_area(found.boxes)
    if config.suppress is not None:
        listed = passed["suppress"] = listed & survives(found, listed, config.suppress)
    listed = passed["at_most"] = listed & is_among_best(found, listed, config.at_most)
    if config.deviations is not None:
        listed = passed["deviations"] = listed & stands_out(found.confidence, listed, config.deviations)
    return listed, passed


def survives(
    found: Detections, listed: Bool[Tensor, "batch detections"], rule: Suppress
) -> Bool[Tensor, "batch detections"]:
    """Whether no more confident listed detection of the image (and class) overlaps by more than the rule's IoU."""
    group = torch.arange(len(listed), device=listed.device)[:, None].expand_as(listed)
    if not rule.across_classes:
        group = found.labels * len(listed) + group
    boxes = found.boxes.masked_fill(~listed[..., None], 0.0)  # a box without area suppresses nothing
    kept = suppress(boxes.flatten(0, 1), found.confidence.flatten(), group.flatten(), rule.iou)
    return kept.view_as(listed)


def is_among_best(
    found: Detections, listed: Bool[Tensor, "batch detections"], at_most: int
) -> Bool[Tensor, "batch detections"]:
    """Whether fewer than `at_most` listed detections of the image are more confident; the first row wins a tie."""
    confidence = found.confidence.masked_fill(~listed, -torch.inf)
    rank = confidence.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
    return rank < at_most


def stands_out(
    confidence: Float[Tensor, "batch detections"], listed: Bool[Tensor, "batch detections"], deviations: float
) -> Bool[Tensor, "batch detections"]:
    """Whether a confidence reaches the mean of its image's listed ones plus so many standard deviations (of n - 1).

    Source: the released code of Semi-DETR (JCZ404/Semi-DETR), in which one detection alone makes no number.
    """
    scores = confidence.double()  # so that equal ones are their mean
    count = listed.sum(dim=1, keepdim=True)
    mean = (scores * listed).sum(dim=1, keepdim=True) / count.clamp(min=1)
    variance = ((scores - mean).square() * listed).sum(dim=1, keepdim=True) / (count - 1).clamp(min=1)
    return scores >= mean + deviations * variance.sqrt()

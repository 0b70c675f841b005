"""The shortlist: the detections that a selector considers, before any threshold."""

import torch
from jaxtyping import Bool
from torch import Tensor

from ssodkit.assigners.selectors.base import SelectorConfig, Suppress
from ssodkit.ops.boxes import has_area
from ssodkit.ops.nms import suppress
from ssodkit.structures.predictions import Detections


def shortlist(
    found: Detections, config: SelectorConfig
) -> tuple[Bool[Tensor, "batch detections"], dict[str, Bool[Tensor, "batch detections"]]]:
    """Which detections are considered, and what is left after each filter on the way there, by its field's name.

    A considered box has an area, survived `suppress`, and is among the `at_most` most confident of its image.
    """
    passed = {}
    listed = found.valid & has_area(found.boxes)
    if config.suppress is not None:
        listed = passed["suppress"] = listed & survives(found, listed, config.suppress)
    listed = passed["at_most"] = listed & is_among_best(found, listed, config.at_most)
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

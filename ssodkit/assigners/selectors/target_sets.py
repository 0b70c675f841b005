"""Target sets: from rules on scores to which detections teach, which are ignored, and which are neither."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ssodkit.assigners.selectors.base import SetRule
from ssodkit.structures.predictions import Detections
from ssodkit.structures.teaching import Targets


def passes(score: Float[Tensor, "batch detections"], rule: SetRule) -> Bool[Tensor, "batch detections"]:
    """Where a score lies strictly on the rule's side of its threshold."""
    if rule.above is not None:
        return score > rule.above
    assert rule.below is not None  # a rule has one side
    return score < rule.below


def is_ignored(
    score: Float[Tensor, "batch detections"], rule: SetRule, listed: Bool[Tensor, "batch detections"]
) -> Bool[Tensor, "batch detections"] | None:
    """Which listed scores fail the rule but reach its `ignore_from`; None without one: nothing is ignored."""
    if rule.ignore_from is None:
        return None
    reaches = score >= rule.ignore_from if rule.above is not None else score <= rule.ignore_from
    return listed & reaches & ~passes(score, rule)


def targets_of(
    found: Detections,
    taught: Bool[Tensor, "batch detections"],
    ignored: Bool[Tensor, "batch detections"] | None = None,
) -> Targets:
    """Detections as targets of weight 1 where `taught` and 0 where `ignored`; all other rows are not valid."""
    return Targets(
        boxes=found.boxes,
        labels=found.labels,
        valid=taught if ignored is None else taught | ignored,
        weight=taught.float(),
        crowd=torch.zeros_like(taught),
        extra={**found.extra, "score": found.confidence},
        all_teach=ignored is None,
    )

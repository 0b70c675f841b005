"""A threshold per class that follows the teacher: a mixture of two Gaussians, fitted to each class's latest scores.

Source: Wang et al., Consistent-Teacher, CVPR 2023, arXiv:2209.01589, section 3.4. The filter by the expected count, the
queue's form and the rule of the threshold are those of the released code (Adamdad/ConsistentTeacher).
"""

from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int64
from pydantic import Field
from torch import Tensor

from ssodkit.assigners.selectors.base import SelectionContext, Selector, SelectorConfig
from ssodkit.assigners.selectors.shortlist import shortlist
from ssodkit.assigners.selectors.target_sets import targets_of
from ssodkit.ops.collect import gather_over_processes
from ssodkit.ops.mixture import Policy, mixture_thresholds
from ssodkit.ops.rows import first_rows
from ssodkit.plugins import BuildContext, register
from ssodkit.structures.predictions import Detections
from ssodkit.structures.progress import Progress
from ssodkit.structures.run import Selection
from ssodkit.structures.teaching import Supervision


@register
class GmmSelectorConfig(SelectorConfig):
    """Thresholds per class from a mixture of two Gaussians over a queue of confidences."""

    type: Literal["gmm"] = "gmm"
    learns: ClassVar[bool] = True
    more_boxes: ClassVar[str] = "raise `method.selector.expected_factor`, or take `policy: middle`"
    fewer_boxes: ClassVar[str] = "lower `method.selector.expected_factor`, or take `policy: high`"

    queue_per_image: int = Field(25, ge=1, le=10_000)
    """Entries of a class's queue per unlabeled image of a step, over all processes: the published 100 for 4 images."""
    policy: Policy = "high"
    """The threshold is the likeliest of the scores that the upper Gaussian made, or (`middle`) the lowest of them."""
    min_samples: int = Field(4, ge=2)
    """A class with fewer scores in its queue has the default threshold."""
    default_threshold: float = Field(0.0, ge=0.0, le=1.0)
    """Where no mixture can be fitted: all scores equal, none made by the upper Gaussian, too few."""
    expected_factor: float = Field(1.0, gt=0.0, le=1e6)
    """Rho: an image keeps about this factor times the sum of its confidences, the most confident first."""

    ignore_from: float | None = Field(None, ge=0.0, le=1.0)
    """What fails its threshold but has at least this confidence stays with weight 0: its candidates are ignored."""

    @property
    def reads(self) -> frozenset[str]:
        """Confidence alone."""
        return frozenset({"confidence"})

    def build(self, context: BuildContext) -> "GmmSelector":
        return GmmSelector(self, context)


class GmmSelector(Selector):
    """One queue of scores per class, newest first and filled up with zeros, the same on all processes.

    A step may select several times, for each of its micro-batches; what they add waits in `pending`, which no
    checkpoint holds, and joins the queue after the update.
    """

    queue: Float[Tensor, "classes length"]
    pending: Float[Tensor, "classes length"]

    def __init__(self, config: GmmSelectorConfig, context: BuildContext) -> None:
        super().__init__()
        self.config = config
        length = config.queue_per_image * max(1, context.unlabeled_images)
        self.register_buffer("queue", torch.zeros(context.num_classes, length))
        self.register_buffer("pending", torch.zeros(context.num_classes, length), persistent=False)

    def forward(self, found: Detections, context: SelectionContext) -> Selection:
        """One target set, thrice; `passed` names the shortlist's filters, then `expected_count` and `mixture`.

        Thresholds see the step's own scores. All processes must call it.
        """
        confidence = found.confidence.float()
        listed, passed = shortlist(found, self.config)
        kept = passed["expected_count"] = listed & is_expected(confidence, listed, self.config.expected_factor)

        mine = push(scores_by_class(confidence, found.labels, kept, len(self.queue)), torch.zeros_like(self.queue))
        everyones = gather_over_processes(mine).movedim(0, 1).flatten(1)  # in the order of the global batch
        self.pending.copy_(push(everyones, self.pending))
        scores = push(self.pending, self.queue)
        thresholds, failed = mixture_thresholds(
            scores, scores > 0.0, self.config.policy, self.config.default_threshold, self.config.min_samples
        )

        threshold = thresholds[found.labels]
        passed["mixture"] = kept & (confidence > threshold)
        least = self.config.ignore_from
        ignored = None if least is None else listed & ~passed["mixture"] & (confidence >= least)
        targets = targets_of(found, passed["mixture"], ignored)
        numbers = {"threshold": threshold, "failed_fit": failed[found.labels].float()}
        return Selection(Supervision.uniform(targets, context.progress), passed, numbers)

    def after_update(self, progress: Progress, ok: Tensor) -> None:
        """Keep what the step saw, if it was finite."""
        self.queue.copy_(torch.where(ok, push(self.pending, self.queue), self.queue))
        self.pending.zero_()


def is_expected(
    confidence: Float[Tensor, "batch detections"], listed: Bool[Tensor, "batch detections"], factor: float
) -> Bool[Tensor, "batch detections"]:
    """Which listed detections are among as many as the image's confidences let expect, and one more.

    With m detections that is n = min(int(factor * sum + 0.5), m - 1), and those pass that reach the score at place n,
    counted from 0 in falling order, less 1e-5.
    """
    if confidence.shape[1] == 0:
        return listed
    scores = confidence.masked_fill(~listed, 0.0)
    expected = (factor * scores.double().sum(dim=1) + 0.5).long()  # float64: the same for any padding
    place = torch.minimum(expected, listed.sum(dim=1) - 1).clamp(min=0)
    limit = scores.sort(dim=1, descending=True).values.gather(1, place[:, None]) - 1e-5
    return listed & (confidence > limit)


def scores_by_class(
    confidence: Float[Tensor, "batch detections"],
    labels: Int64[Tensor, "batch detections"],
    kept: Bool[Tensor, "batch detections"],
    num_classes: int,
) -> Float[Tensor, "classes scores"]:
    """Of every class its kept scores, in the order of images and of their detections; 0 elsewhere."""
    classes = torch.arange(num_classes, device=labels.device)[:, None]
    return torch.where((labels.flatten() == classes) & kept.flatten(), confidence.flatten(), 0.0)


def push(
    scores: Float[Tensor, "classes scores"], queue: Float[Tensor, "classes length"]
) -> Float[Tensor, "classes length"]:
    """The queue with the scores above 0 before it, in their order; what no longer fits falls off its end."""
    joined = torch.cat([scores, queue], dim=1)
    return joined.gather(1, first_rows(joined > 0.0, queue.shape[1]))

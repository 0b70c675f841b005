"""As many pseudo-boxes of each class as the labels have: a threshold per class that follows the teacher's scores.

If unlabeled images hold as many objects as labeled ones, the teacher's n best boxes of a class are the likeliest to be
its objects, n being the labels' boxes per image times the images looked at. A share of them teaches; the others are
unsure and are ignored, neither taught nor background.

Source: Chen et al., LabelMatch, CVPR 2022, arXiv:2206.06608: the adaptive label-distribution-aware confidence threshold
(ACT), in its online form. There the unsure boxes have soft labels; here they are ignored.
"""

from dataclasses import replace
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from ssodkit.assigners.selectors.base import SelectionContext, Selector, SelectorConfig, SetRule
from ssodkit.assigners.selectors.shortlist import shortlist
from ssodkit.assigners.selectors.target_sets import passes, targets_of
from ssodkit.ops.collect import sum_over_processes
from ssodkit.ops.ranks import bin_at_place, bin_of, count_scores
from ssodkit.plugins import BuildContext, register
from ssodkit.structures.predictions import Detections
from ssodkit.structures.progress import Progress
from ssodkit.structures.run import Selection
from ssodkit.structures.teaching import Supervision

BINS = 10_000
"""Thresholds are exact to 0.0001."""


@register
class LabelDistributionSelectorConfig(SelectorConfig):
    """Thresholds per class that let through as many boxes per image as the labels have, or a share of them."""

    type: Literal["label_distribution"] = "label_distribution"
    learns: ClassVar[bool] = True
    more_boxes: ClassVar[str] = "raise `method.selector.reliable`"
    fewer_boxes: ClassVar[str] = "lower `method.selector.reliable`"

    reliable: float = Field(0.2, gt=0.0, le=10.0)
    """So many boxes of a class teach, as a share of what the labels have per image: the paper's alpha."""
    uncertain: float = Field(1.0, gt=0.0, le=100.0)
    """Up to this share, boxes that do not teach are ignored: their candidates are not background either."""
    least: float = Field(0.0, ge=0.0, le=1.0)
    """The confidence that a box needs to teach, however few there are: a young teacher's best boxes may be wrong. What
    is below is ignored, as far as `uncertain` reaches."""
    floor: float = Field(0.05, ge=0.0, le=1.0)
    """Boxes below this confidence neither teach nor are ignored."""
    places: SetRule | None = None
    """Which of the boxes that teach also say where exactly they are, such as {score: agreement, above: 0.9}: those that
    several looks (`method.ensemble`) place alike. Null: all."""
    window: int = Field(12_800, ge=1)
    """Unlabeled images over which the scores of a class are remembered: each step fades what was seen before by its
    images / `window`."""

    @model_validator(mode="after")
    def _bands_are_in_order(self) -> "LabelDistributionSelectorConfig":
        if self.uncertain < self.reliable:
            raise ValueError("`uncertain` is below `reliable`: what teaches cannot be ignored; set it to as much")
        return self

    @property
    def reads(self) -> frozenset[str]:
        """Confidence, and the score of `places`."""
        return frozenset({"confidence"} | ({self.places.score} if self.places is not None else set()))

    def build(self, context: BuildContext) -> "LabelDistributionSelector":
        return LabelDistributionSelector(self, context)


class LabelDistributionSelector(Selector):
    """Fading counts of scores per class, the same on all processes.

    A step may select several times, for each of its micro-batches; what they add waits in buffers that no checkpoint
    holds, and is remembered after the update.
    """

    expected: Float[Tensor, "classes"]
    histogram: Float[Tensor, "classes bins"]
    images: Float[Tensor, ""]
    pending: Float[Tensor, "classes bins"]
    pending_images: Float[Tensor, ""]

    def __init__(self, config: LabelDistributionSelectorConfig, context: BuildContext) -> None:
        super().__init__()
        self.config = config
        classes = context.num_classes
        known = context.labeled_boxes_per_image or (1.0,) * classes
        self.register_buffer("expected", torch.tensor(known, dtype=torch.float64))
        self.register_buffer("histogram", torch.zeros(classes, BINS, dtype=torch.float64))
        self.register_buffer("images", torch.zeros((), dtype=torch.float64))
        self.register_buffer("pending", torch.zeros(classes, BINS, dtype=torch.float64), persistent=False)
        self.register_buffer("pending_images", torch.zeros((), dtype=torch.float64), persistent=False)

    def forward(self, found: Detections, context: SelectionContext) -> Selection:
        """One target set, thrice, in which with `places` some boxes have no weight; `passed` names the shortlist's
        filters, then `uncertain`, `reliable` and `boxes`.

        Thresholds see the step's own scores. All processes must call it.
        """
        listed, passed = shortlist(found, self.config)
        self._note(found, listed)
        seen, images = self._with_pending()
        confidence = found.confidence.float()
        bins = bin_of(confidence, BINS)
        reliable, uncertain = (
            bin_at_place(seen, share * self.expected * images)
            for share in (self.config.reliable, self.config.uncertain)
        )
        is_sure = listed & (confidence >= self.config.floor)
        passed["uncertain"] = is_sure & (bins >= uncertain[found.labels])
        passed["reliable"] = is_sure & (bins >= reliable[found.labels]) & (confidence >= self.config.least)
        targets = targets_of(found, passed["reliable"], passed["uncertain"] & ~passed["reliable"])
        supervision = Supervision.uniform(targets, context.progress)
        if self.config.places is not None:
            passed["boxes"] = passed["reliable"] & passes(found.scores[self.config.places.score], self.config.places)
            supervision = replace(supervision, boxes=replace(targets, weight=targets.weight * passed["boxes"]))
        lowest = max(self.config.floor, self.config.least)
        threshold = (reliable / BINS).clamp(min=lowest).float()[found.labels]
        return Selection(supervision, passed, {"threshold": threshold})

    def _note(self, found: Detections, listed: Tensor) -> None:
        counts = count_scores(found.confidence, found.labels, listed, len(self.histogram), BINS)
        images = counts.new_full((1,), float(len(listed)))
        summed = sum_over_processes(torch.cat([counts.flatten(), images]))
        self.pending += summed[:-1].view_as(counts)
        self.pending_images += summed[-1]

    def _with_pending(self) -> tuple[Tensor, Tensor]:
        """What was seen before, faded by what waits, and what waits."""
        kept = (1.0 - self.pending_images / self.config.window).clamp(min=0.0)
        return self.histogram * kept + self.pending, self.images * kept + self.pending_images

    def after_update(self, progress: Progress, ok: Tensor) -> None:
        """Remember what the step saw, if it was finite."""
        histogram, images = self._with_pending()
        self.histogram.copy_(torch.where(ok, histogram, self.histogram))
        self.images.copy_(torch.where(ok, images, self.images))
        self.pending.zero_()
        self.pending_images.zero_()

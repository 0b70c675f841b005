"""Flip: an image and its mirror are answered alike, in classes and boxes, wherever something may be there.

Source: Jeong, Lee, Kim, Kwak, "Consistency-based Semi-supervised Learning for Object Detection" (CSD), NeurIPS 2019;
code: soo89/CSD-SSD (one stage), soo89/CSD-RFCN (two stages). Heads with sigmoids, and what they count as foreground,
are ours.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int64
from pydantic import Field
from torch import Tensor

from ssodkit.consistency.base import Consistency, ConsistencyConfig, Scene
from ssodkit.detectors.base import Detector, DetectorConfig
from ssodkit.detectors.detections import ranking_scores
from ssodkit.detectors.rules import DetectionRule
from ssodkit.ops.boxes import at_least_fp32
from ssodkit.ops.coding import Coder
from ssodkit.ops.divergence import half_jeffreys, jensen_shannon
from ssodkit.ops.homography import reflection, warp_boxes
from ssodkit.plugins import BuildContext, register
from ssodkit.structures.predictions import Answered, Candidates, Features, Predictions
from ssodkit.structures.records import join
from ssodkit.structures.run import Losses, Term
from ssodkit.structures.views import View, mirrored

Divergence = Literal["js", "half_jeffreys"]
Foreground = Literal["first_view", "both", "none"]


@register
class FlipConfig(ConsistencyConfig):
    """Every image, labeled or not, and its mirror are answered alike, wherever something may be there.

    Views are those that the student sees. A detector that can be asked about regions is asked about the same proposals
    in both; any other is compared cell by cell. Gradients reach the answers about both.
    """

    type: Literal["flip"] = "flip"
    needs: ClassVar[frozenset[str]] = frozenset({"comparable_answers"})

    divergence: Divergence = "js"
    """Between class probabilities: Jensen-Shannon as in the paper, or half of Jeffreys' with detached targets, about
    four times as large, as in its code. Under sigmoids each class is a distribution of two."""
    foreground: Foreground = "first_view"
    """Which candidates are compared: those that are no background in the view, or in both, or all."""
    above: float = Field(0.05, ge=0.0, le=1.0)
    """Under sigmoids a candidate is no background where its best score, as detections are ranked, is above this; under
    a softmax, where a class is likelier than the background."""
    regressions: Literal["predicted", "all"] = "predicted"
    """Where each class has a box regression of its own: that of the class that the view shows, or the mean of all, as
    in the code."""
    class_weight: float = Field(1.0, ge=0.0, le=1000.0)
    """Multiplies the term of the classes."""
    box_weight: float = Field(1.0, ge=0.0, le=1000.0)
    """Multiplies the term of the boxes."""

    def misfit(self, detector: DetectorConfig, pad_to: int) -> str | None:
        """Cells meet their mirrors only where canvases are whole cells wide."""
        if "exact_regions" in detector.provided or not self.needed <= detector.provided:
            return None
        cell = detector.largest_cell
        if cell is None:
            return f"'flip' compares cells, and the config of '{detector.type}' does not say `largest_cell`"
        if pad_to % cell == 0:
            return None
        return (
            f"'flip' compares cells of up to {cell} pixels with those of a mirrored canvas, whose sides, multiples of "
            f"{pad_to}, need not be whole cells; write `views.pad_to: {cell}`"
        )

    def build(self, context: BuildContext) -> "Flip":
        assert isinstance(context.detector, DetectorConfig)
        return Flip(self, context.detector)


class Flip(Consistency):
    """Has no state; means are over the compared candidates of all images together."""

    def __init__(self, config: FlipConfig, detector: DetectorConfig) -> None:
        super().__init__()
        self.config = config
        self.rule: DetectionRule = detector.test
        self.asks_regions = "exact_regions" in detector.provided

    def forward(self, scene: Scene) -> Losses:
        """`class` and `box`."""
        config = self.config
        answer = answers_about_regions if self.asks_regions else answers_about_cells
        classes, boxes, counts = [], [], []
        for seen in _on_one_canvas(scene):
            first, second = answer(scene.student, seen)
            compared = self._compared(first, second)
            classes.append((class_difference(first, second, config.divergence) * compared).sum())
            boxes.append((box_difference(first, second, config.regressions == "all") * compared).sum())
            counts.append(compared.sum().to(classes[-1].dtype))
        count = torch.stack(counts).sum()
        return Losses(
            {
                "class": Term(torch.stack(classes).sum(), count, factor=config.class_weight),
                "box": Term(torch.stack(boxes).sum(), count, factor=config.box_weight),
            }
        )

    @torch.no_grad()
    def _compared(self, first: Predictions, second: Predictions) -> Bool[Tensor, "batch candidates"]:
        """Which candidates are; those of the view that are not valid never are."""
        compared = first.candidates.valid
        if self.config.foreground != "none":
            compared = compared & is_foreground(first, self.rule, self.config.above)
        if self.config.foreground == "both":
            compared = compared & is_foreground(second, self.rule, self.config.above)
        return compared


def answers_about_regions(student: Detector, seen: Sequence[Answered]) -> tuple[Predictions, Predictions]:
    """The last stage's answers about all proposals of views on one canvas, and about their mirrors in the mirrored
    views; codes of both say boxes of the views.

    Proposals are taken before any are sampled. Source: the code of two-stage CSD.
    """
    views = join([answered.view for answered in seen])
    regions = join([answered.stages.proposals or answered.stages.last.candidates for answered in seen])
    there = replace(regions, boxes=_mirrored_boxes(regions.boxes, views))
    features = join([*(answered.features for answered in seen), student.extract(mirrored(views))])
    said = student.score_regions(features, join([regions, there]))  # at once: the host waits but once
    first, second = said[: len(views.keys)], said[len(views.keys) :]
    return first, replace(second, candidates=first.candidates, box_codes=second.coder.mirrored(second.box_codes))


def answers_about_cells(student: Detector, seen: Sequence[Answered]) -> tuple[Predictions, Predictions]:
    """The last stage's answers about all cells of views on one canvas, and about their mirrors in the mirrored views;
    codes of both say boxes of the views, seen from their candidates.

    Where an anchor does not lie in the middle of its cell, mirrored anchors lie beside those of the mirrored cells, so
    what is compared are boxes, not what was said of different anchors.
    """
    views = join([answered.view for answered in seen])
    first = join([replace(answered.stages.last, plan=None) for answered in seen])
    features = student.extract(mirrored(views))
    second = student.predict(features).last
    order = mirrored_cells(second.candidates, features)
    there = _mirrored_boxes(second.candidates.boxes[:, order], views)
    codes = at_least_fp32(second.coder.mirrored(second.box_codes[:, order]))
    codes = _seen_from(first.candidates.boxes, there, codes, second.coder)
    extra = {name: said[:, order] for name, said in second.extra.items()}
    logits = second.class_logits[:, order]
    return first, replace(second, candidates=first.candidates, class_logits=logits, box_codes=codes, extra=extra)


def mirrored_cells(candidates: Candidates, features: Features) -> Int64[Tensor, "candidates"]:
    """For each candidate of a pyramid the place of its mirror: same level, row and anchor, the column from the other
    side."""
    places, first = [], 0
    for level, length in zip(features.maps, candidates.lengths, strict=True):
        height, width = level.shape[-2:]
        rows = torch.arange(first, first + length, device=level.device).view(height, width, -1)
        places.append(rows.flip(1).flatten())
        first += length
    return torch.cat(places)


@torch.no_grad()
def is_foreground(predictions: Predictions, rule: DetectionRule, above: float) -> Bool[Tensor, "batch candidates"]:
    """Where a class is likelier than the background; under sigmoids, where the best score is above a threshold."""
    probs = predictions.class_probs()
    best = probs[..., : predictions.num_classes]
    if predictions.activation == "softmax":
        return best.amax(dim=-1) > probs[..., -1]
    return ranking_scores(best, predictions.extra, rule.rank).amax(dim=-1) > above


def class_difference(
    first: Predictions, second: Predictions, divergence: Divergence
) -> Float[Tensor, "batch candidates"]:
    """The divergence of class probabilities; under sigmoids the sum over classes, of (p, 1 - p) each."""
    between = {"js": jensen_shannon, "half_jeffreys": half_jeffreys}[divergence]
    probs, others = first.class_probs(), second.class_probs()
    if first.activation == "softmax":
        return between(probs, others)
    return between(torch.stack([probs, 1.0 - probs], -1), torch.stack([others, 1.0 - others], -1)).sum(dim=-1)


def box_difference(
    first: Predictions, second: Predictions, all_regressions: bool = False
) -> Float[Tensor, "batch candidates"]:
    """The mean of squared code differences; of classes with regressions of their own, the class that `first` says, or
    the mean of all.

    Source: CSD, equation of l_loc, after `second` has been mirrored back.
    """
    if all_regressions:
        apart = at_least_fp32(first.box_codes) - at_least_fp32(second.box_codes)
        return apart.square().mean(dim=(-2, -1))
    labels = first.class_logits[..., : first.num_classes].argmax(dim=-1)
    return (at_least_fp32(first.codes_of(labels)) - at_least_fp32(second.codes_of(labels))).square().mean(dim=-1)


def _on_one_canvas(scene: Scene) -> list[list[Answered]]:
    """What was answered about both streams: together where their canvases are equal."""
    seen = [scene.labeled] if scene.unlabeled is None else [scene.labeled, scene.unlabeled]
    canvases = {answered.view.pixels.shape[2:] for answered in seen}
    return [seen] if len(canvases) == 1 else [[answered] for answered in seen]


def _seen_from(
    candidates: Float[Tensor, "batch candidates 4"],
    others: Float[Tensor, "batch candidates 4"],
    codes: Float[Tensor, "batch candidates regressions 4"],
    coder: Coder,
) -> Float[Tensor, "batch candidates regressions 4"]:
    """Codes of the boxes that `codes` say of `others`, seen from `candidates`; worked out in coordinates that begin at
    a candidate's corner, where they are small and exact."""
    corner = candidates[..., :2].tile(2)
    own, there = ((boxes - corner).to(codes.dtype)[:, :, None].expand_as(codes) for boxes in (candidates, others))
    return coder.encode(own, coder.decode(there, codes))


def _mirrored_boxes(boxes: Float[Tensor, "batch candidates 4"], views: View) -> Float[Tensor, "batch candidates 4"]:
    """Boxes of views in the frame of their mirrors, or back: the canvas is mirrored."""
    width = boxes.new_full((len(boxes),), float(views.pixels.shape[-1]))
    return warp_boxes(boxes, reflection(width))

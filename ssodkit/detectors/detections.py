"""From a stage's answers to final detections: threshold, suppression within each class, the best few.

`find` compares all answers above the threshold, of which a second stage has few. `find_by_level` compares the best of
each pyramid level, and asks the host for nothing but the suppression.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ssodkit.detectors.rules import DenseDetectionRule, DetectionRule
from ssodkit.ops.boxes import at_least_fp32, clip_boxes
from ssodkit.ops.nms import batched_nms, suppress
from ssodkit.ops.rows import best_of_groups, take_rows
from ssodkit.ops.uncertainty import certainty
from ssodkit.structures.predictions import Detections, Predictions


@torch.no_grad()
def find(
    predictions: Predictions,
    sizes: Int64[Tensor, "batch 2"],
    rule: DetectionRule,
    score: float | None = None,
    rank: Mapping[str, float] | None = None,
) -> Detections:
    """Detections, best first, clipped to images of `sizes`; `score` and `rank` override the rule's.

    A candidate may be found once per class. Only answers above the threshold are decoded.
    """
    classes = predictions.num_classes
    threshold = rule.score if score is None else score
    probs = predictions.class_probs()[..., :classes]
    ranks = ranking_scores(probs, predictions.extra, rank or rule.rank)
    passes = (probs if rule.score_of == "class" else ranks) > threshold  # batch candidates classes
    passes &= predictions.candidates.valid[..., None]
    probs = ranks
    image, pair = passes.flatten(1).nonzero(as_tuple=True)
    boxes = clip_boxes(_boxes_at(predictions, image, pair)[:, None], sizes[image])[:, 0]
    stays = (boxes[:, 2:] - boxes[:, :2] > rule.minimum_side).all(dim=-1)
    scores = probs.flatten(1)[image, pair]
    survives = suppress(boxes.masked_fill(~stays[:, None], 0.0), scores, image * classes + pair % classes, rule.nms)

    ranked = torch.full_like(probs, -torch.inf).flatten(1)
    ranked[image, pair] = scores.masked_fill(~(survives & stays), -torch.inf)
    best, pair = ranked.topk(min(rule.at_most, ranked.shape[1]), dim=1)
    valid = best > -torch.inf
    boxes = clip_boxes(_boxes_of_rows(predictions, pair), sizes)
    return _detections(predictions, pair, boxes, best, valid)


@torch.no_grad()
def find_by_level(
    predictions: Predictions,
    sizes: Int64[Tensor, "batch 2"],
    rule: DenseDetectionRule,
    score: float | None = None,
    rank: Mapping[str, float] | None = None,
) -> Detections:
    """Detections, best first; `score` and `rank` override the rule's. A candidate may be found once per class.

    Candidates say the `lengths` of their levels.

    Source: arXiv:1708.02002, section 4, "Inference".
    """
    classes, lengths = predictions.num_classes, predictions.candidates.lengths
    probs = predictions.class_probs()[..., :classes]
    ranks = ranking_scores(probs, predictions.extra, rank or rule.rank)
    passes = (probs if rule.score_of == "class" else ranks) > (rule.score if score is None else score)
    probs = ranks.masked_fill(~passes | ~predictions.candidates.valid[..., None], -1.0)
    best, pair = best_of_groups(probs.flatten(1), [length * classes for length in lengths], rule.per_level)
    boxes = _boxes_of_rows(predictions, pair)
    if rule.clip:
        boxes = clip_boxes(boxes, sizes)
    valid = best >= 0.0
    valid &= (boxes[..., 2:] - boxes[..., :2] > rule.minimum_side).all(dim=-1)
    kept, is_kept = batched_nms(boxes, best, pair % classes, valid, rule.nms, rule.at_most)
    pair, boxes, best = (take_rows(rows, kept) for rows in (pair, boxes, best))
    return _detections(predictions, pair, boxes, best, is_kept)


def _detections(
    predictions: Predictions,
    pair: Int64[Tensor, "batch detections"],
    boxes: Float[Tensor, "batch detections 4"],
    confidence: Float[Tensor, "batch detections"],
    valid: Bool[Tensor, "batch detections"],
) -> Detections:
    """Pairs of candidate and class as detections, with all that was answered besides about their candidates."""
    candidate = pair // predictions.num_classes
    return Detections(
        boxes=boxes.masked_fill(~valid[..., None], 0.0),
        labels=(pair % predictions.num_classes).masked_fill(~valid, 0),
        valid=valid,
        scores={"confidence": confidence.masked_fill(~valid, 0.0)},
        extra={name: take_rows(said, candidate) for name, said in predictions.extra.items()},
        candidate=candidate,
    )


def ranking_scores(
    probs: Float[Tensor, "batch candidates classes"], extra: Mapping[str, Tensor], rank: Mapping[str, float]
) -> Float[Tensor, "batch candidates classes"]:
    """What detections are ranked by: the product of the answers that `rank` names, each to its power. `extra` is what
    was answered beside the classes' `probs`."""
    for name, power in rank.items():
        if name == "class":
            probs = probs if power == 1.0 else probs.pow(power)
        else:
            said = worth(extra, name)
            probs = probs * (said if power == 1.0 else said.pow(power))[..., None]
    return probs


def rankable(answers: frozenset[str]) -> frozenset[str]:
    """What detections may be ranked by, where a stage has these answers; see `worth`."""
    return answers - {"box", "uncertainty"} | ({"certainty"} if "uncertainty" in answers else frozenset())


def worth(extra: Mapping[str, Tensor], name: str) -> Float[Tensor, "batch candidates"]:
    """A further answer as a factor of a score, 0 to 1, fp32 or finer: its probability; `certainty` is the mean over the
    four sides of what `uncertainty` leaves to 1."""
    if name == "certainty":
        return certainty(extra["uncertainty"]).mean(dim=-1)
    return at_least_fp32(extra[name]).sigmoid()


def _boxes_of_rows(predictions: Predictions, pair: Int64[Tensor, "batch pairs"]) -> Float[Tensor, "batch pairs 4"]:
    """Boxes of each image's own pairs, see `_boxes_at`."""
    image = torch.arange(len(pair), device=pair.device)[:, None].expand_as(pair)
    return _boxes_at(predictions, image.flatten(), pair.flatten()).view(*pair.shape, 4)


def _boxes_at(
    predictions: Predictions, image: Int64[Tensor, "pairs"], pair: Int64[Tensor, "pairs"]
) -> Float[Tensor, "pairs 4"]:
    """Boxes of candidates and classes, not clipped, where `pair` is candidate x number of classes + class."""
    candidate, label = pair // predictions.num_classes, pair % predictions.num_classes
    regressor = label if predictions.box_codes.shape[2] > 1 else torch.zeros_like(label)
    codes = at_least_fp32(predictions.box_codes[image, candidate, regressor])
    return predictions.coder.decode(predictions.candidates.boxes[image, candidate].to(codes.dtype), codes)

"""From a stage's answers to final detections: threshold, suppression within each class, the best few."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ssodkit.detectors.base import TestRule
from ssodkit.ops.boxes import at_least_fp32, clip_boxes
from ssodkit.ops.nms import suppress
from ssodkit.structures.predictions import Detections, Predictions


@torch.no_grad()
def find(
    predictions: Predictions, sizes: Int64[Tensor, "batch 2"], rule: TestRule, score: float | None = None
) -> Detections:
    """Detections, best first, clipped to images of `sizes`; `score` overrides the rule's threshold.

    A candidate may be found once per class. Only answers above the threshold are decoded.
    """
    classes = predictions.num_classes
    threshold = rule.score if score is None else score
    probs = predictions.class_probs()[..., :classes]
    passes = (probs > threshold) & predictions.candidates.valid[..., None]  # batch candidates classes
    image, pair = passes.flatten(1).nonzero(as_tuple=True)
    boxes = _boxes_at(predictions, image, pair, sizes)
    stays = (boxes[:, 2:] - boxes[:, :2] > rule.minimum_side).all(dim=-1)
    scores = probs.flatten(1)[image, pair]
    survives = suppress(boxes.masked_fill(~stays[:, None], 0.0), scores, image * classes + pair % classes, rule.nms)

    ranked = torch.full_like(probs, -torch.inf).flatten(1)
    ranked[image, pair] = scores.masked_fill(~(survives & stays), -torch.inf)
    best, pair = ranked.topk(min(rule.at_most, ranked.shape[1]), dim=1)
    valid = best > -torch.inf
    image = torch.arange(len(pair), device=pair.device)[:, None].expand_as(pair)
    boxes = _boxes_at(predictions, image.flatten(), pair.flatten(), sizes).view(*pair.shape, 4)
    return Detections(
        boxes=boxes.masked_fill(~valid[..., None], 0.0),
        labels=(pair % classes).masked_fill(~valid, 0),
        valid=valid,
        scores={"confidence": best.masked_fill(~valid, 0.0)},
    )


def _boxes_at(
    predictions: Predictions, image: Int64[Tensor, "pairs"], pair: Int64[Tensor, "pairs"], sizes: Tensor
) -> Float[Tensor, "pairs 4"]:
    """Clipped boxes of candidates and classes, where `pair` is candidate x number of classes + class."""
    candidate, label = pair // predictions.num_classes, pair % predictions.num_classes
    regressor = label if predictions.box_codes.shape[2] > 1 else torch.zeros_like(label)
    codes = at_least_fp32(predictions.box_codes[image, candidate, regressor])
    boxes = predictions.coder.decode(predictions.candidates.boxes[image, candidate].to(codes.dtype), codes)
    return clip_boxes(boxes[:, None], sizes[image])[:, 0]

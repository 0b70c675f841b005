"""What is said of one image, fused to one answer: in several views of it, or in several rankings."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ssodkit.ops.boxes import at_least_fp32, elementwise_iou, pairwise_iou
from ssodkit.ops.nms import batched_nms
from ssodkit.ops.rows import take_rows
from ssodkit.structures.predictions import Detections, Predictions


@torch.no_grad()
def fuse(answers: Sequence[Detections], iou: float) -> Detections:
    """The answers of several looks, all carried into one frame: best first, with `confidence` and `agreement`.

    The boxes that survive greedy suppression over all answers, within their class and at `iou`, stand for an object
    each. A box votes for the object that it overlaps most, and of each answer the nearest vote counts: an object's box
    is the mean of these, weighed by their confidence, and its confidence the mean over all answers, 0 where an answer
    has none. What is seen once of four times counts a quarter. Its agreement is the mean IoU of the box with its votes,
    again 0 where an answer has none: near 1 where all looks place it alike. What was answered besides is averaged
    as the boxes are. As many are kept as the longest answer has rows.

    Source: Solovyev et al., Weighted Boxes Fusion, Image and Vision Computing 2021, arXiv:1910.13302. There, objects
    move while boxes join them one by one; here, they stay where the most confident box is until all have voted.
    """
    boxes = torch.cat([found.boxes.float() for found in answers], dim=1)
    labels = torch.cat([found.labels for found in answers], dim=1)
    valid = torch.cat([found.valid for found in answers], dim=1)
    scores = torch.cat([found.confidence.float().masked_fill(~found.valid, 0.0) for found in answers], dim=1)

    heads, stands = batched_nms(boxes, scores, labels, valid, iou, keep=boxes.shape[1])
    head_boxes, head_labels = take_rows(boxes, heads), take_rows(labels, heads)
    overlap = pairwise_iou(head_boxes, boxes)  # batch heads boxes
    is_near = (head_labels[:, :, None] == labels[:, None]) & valid[:, None] & stands[..., None] & (overlap > iou)
    overlap = overlap.masked_fill(~is_near, 0.0)
    if overlap.shape[1]:
        place = torch.arange(overlap.shape[1], device=overlap.device)[:, None]
        overlap = overlap.masked_fill(overlap.argmax(dim=1, keepdim=True) != place, 0.0)
    weight = boxes.new_zeros(heads.shape)
    total = boxes.new_zeros(head_boxes.shape)
    extra = {name: boxes.new_zeros(*heads.shape, *values.shape[2:]) for name, values in answers[0].extra.items()}
    begin, votes = 0, []
    for found in answers:
        end = begin + found.boxes.shape[1]
        if end > begin:
            best, place = overlap[:, :, begin:end].max(dim=2)
            vote, score = take_rows(boxes[:, begin:end], place), take_rows(scores[:, begin:end], place) * (best > 0.0)
            weight += score
            total += vote * score[..., None]
            for name, values in found.extra.items():
                extra[name] += take_rows(values, place) * _like(score, values)
            votes.append((vote, best > 0.0))
        begin = end
    fused = total / weight.clamp(min=1e-12)[..., None]
    agreement = torch.zeros_like(weight)
    for vote, is_one in votes:
        agreement += elementwise_iou(fused, vote) * is_one
    most = max(found.boxes.shape[1] for found in answers)
    said = {name: values / _like(weight, values).clamp(min=1e-12) for name, values in extra.items()}
    confidences = {"confidence": weight / len(answers), "agreement": agreement / len(answers)}
    return _best(most, Detections(fused, head_labels, stands, confidences, said))


def mirror_mean(answers: Predictions, mirrored: Predictions) -> Predictions:
    """`answers`, averaged with those about the mirrored candidates in a mirrored view: probabilities of the classes,
    not their logits, and box codes, of which the mirrored are turned back.

    The mean probabilities are carried as logits that say them: under a softmax as their logarithms. Further answers are
    those of the view alone.

    Source: Tang et al., Humble Teacher, CVPR 2021, arXiv:2106.10456, the teacher ensemble.
    """
    first, second = (at_least_fp32(one.class_logits) for one in (answers, mirrored))
    if answers.activation == "softmax":
        logits = torch.logaddexp(first.log_softmax(dim=-1), second.log_softmax(dim=-1)) - math.log(2.0)
    else:
        logits = torch.logaddexp(logsigmoid(first), logsigmoid(second))
        logits = logits - torch.logaddexp(logsigmoid(-first), logsigmoid(-second))
    turned = answers.coder.mirrored(at_least_fp32(mirrored.box_codes))
    codes = 0.5 * (at_least_fp32(answers.box_codes) + turned)
    return replace(answers, class_logits=logits, box_codes=codes)


@torch.no_grad()
def unite(rankings: Mapping[str, Detections]) -> Detections:
    """One answer in several rankings, each with its own suppression: all that survives by any of them, best first.

    A ranking's score has its name, and is 0 where a detection did not survive by it; `confidence` is the best of them.
    """
    parts = list(rankings.values())
    boxes, labels, valid = (
        torch.cat([getattr(found, name) for found in parts], dim=1) for name in ("boxes", "labels", "valid")
    )
    candidate = torch.cat([found.candidate for found in parts if found.candidate is not None], dim=1)
    is_same = (candidate[:, :, None] == candidate[:, None]) & (labels[:, :, None] == labels[:, None])
    is_same &= valid[:, :, None] & valid[:, None]  # batch rows rows
    scores, begin = {}, 0
    for name, found in rankings.items():
        end = begin + found.boxes.shape[1]
        scores[name] = (found.confidence[:, None] * is_same[:, :, begin:end]).sum(dim=2)
        begin = end
    scores["confidence"] = torch.stack(list(scores.values())).amax(dim=0)
    is_first = ~is_same.tril(diagonal=-1).any(dim=2)
    extra = {name: torch.cat([found.extra[name] for found in parts], dim=1) for name in parts[0].extra}
    return _best(boxes.shape[1], Detections(boxes, labels, valid & is_first, scores, extra, candidate))


def _like(values: Tensor, other: Tensor) -> Tensor:
    """Values (batch, rows) with as many axes as another tensor has."""
    return values.reshape(*values.shape, *(1,) * (other.dim() - 2))


def _best(most: int, found: Detections) -> Detections:
    """The `most` most confident, best first; rows that are not valid are 0."""
    confidence = found.confidence.masked_fill(~found.valid, -1.0)
    order = confidence.sort(dim=1, descending=True, stable=True).indices[:, :most]
    valid = take_rows(found.valid, order)
    return Detections(
        boxes=take_rows(found.boxes, order).masked_fill(~valid[..., None], 0.0),
        labels=take_rows(found.labels, order).masked_fill(~valid, 0),
        valid=valid,
        scores={name: take_rows(score, order).masked_fill(~valid, 0.0) for name, score in found.scores.items()},
        extra={name: take_rows(said, order) for name, said in found.extra.items()},
        candidate=None if found.candidate is None else take_rows(found.candidate, order),
    )

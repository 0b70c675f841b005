"""One-stage detectors in operations that a file can hold; what it answers is what `OneStage` answers."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ssodkit.detectors.detections import ranking_scores
from ssodkit.detectors.portable.parts import (
    Answer,
    Suppress,
    best,
    clipped,
    lay_anchors,
    normalized,
    rows_at,
    surviving,
)

if TYPE_CHECKING:
    from ssodkit.detectors.one_stage import OneStage


class PortableOneStage(nn.Module):
    """The same weights and head, and the rules of `find_by_level` for a batch of images of one size."""

    def __init__(self, detector: "OneStage", suppress: Suppress, score: float) -> None:
        super().__init__()
        self.detector, self.suppress, self.score = detector, suppress, score

    def forward(self, pixels: Tensor, size: Tensor) -> Answer:
        """What is found above the score in gray levels (batch, 3, height, width), 0 beyond `size` (height, width)."""
        detector, rule, classes = self.detector, self.detector.config.test, self.detector.num_classes
        backbone = detector.backbone
        maps = detector.neck(backbone(normalized(pixels, size, backbone.mean, backbone.std)))
        anchors, lengths = lay_anchors(detector.anchors, maps, detector.neck.strides, size)
        said = detector.head(maps, anchors)
        probs, codes = said.logits.sigmoid(), said.codes
        ranks = ranking_scores(probs, said.extra, rule.rank)
        passes = ((probs if rule.score_of == "class" else ranks) > self.score) & anchors.valid[..., None]
        probs = ranks.masked_fill(~passes, -1.0)
        all_boxes, all_scores, all_labels, first = [], [], [], 0
        for length in lengths:
            score, pair = best(probs[:, first : first + length].flatten(1), rule.per_level)
            place = torch.div(pair, classes, rounding_mode="floor")
            code = rows_at(codes[:, first : first + length, 0], place)
            all_boxes.append(detector.head.coder.decode(rows_at(anchors.boxes[:, first : first + length], place), code))
            all_scores.append(score)
            all_labels.append(pair % classes)
            first = first + length
        boxes, scores, labels = (torch.cat(parts, dim=1) for parts in (all_boxes, all_scores, all_labels))
        boxes = clipped(boxes, size) if rule.clip else boxes
        stays = (boxes[..., 2:] - boxes[..., :2] > rule.minimum_side).all(dim=-1) & (scores >= 0.0)
        scores = scores.masked_fill(~stays, -torch.inf)
        return self._find(boxes, scores, labels)

    def _find(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> Answer:
        rule, classes, count = self.detector.config.test, self.detector.num_classes, boxes.shape[1]
        is_own = labels[:, None] == torch.arange(classes, device=labels.device)[:, None]  # batch classes boxes
        of_class = scores[:, None].masked_fill(~is_own, -torch.inf)
        groups = boxes[:, None].expand(-1, classes, count, 4).reshape(-1, count, 4)
        survives = surviving(self.suppress, groups, of_class.reshape(-1, count), rule.nms)
        survives = survives.view(-1, classes, count).any(dim=1)
        score, place = best(scores.masked_fill(~survives, -torch.inf), rule.at_most)
        return Answer(rows_at(boxes, place), score, rows_at(labels[..., None], place)[..., 0])

"""Faster R-CNN in operations that a file can hold; what it answers is what `FasterRcnn` answers."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ssodkit.detectors.detections import ranking_scores
from ssodkit.detectors.portable.parts import (
    Answer,
    Suppress,
    best,
    clipped,
    counted,
    lay_anchors,
    normalized,
    rows_at,
    surviving,
)
from ssodkit.nn.roi_head import RegionAnswers, region_levels

if TYPE_CHECKING:
    from ssodkit.detectors.faster_rcnn import FasterRcnn


class PortableFasterRcnn(nn.Module):
    """The same weights, and the rules of `propose`, `RoiHead` and `find` for a batch of images of one size."""

    def __init__(self, detector: "FasterRcnn", suppress: Suppress, score: float) -> None:
        super().__init__()
        self.detector, self.suppress, self.score = detector, suppress, score

    def forward(self, pixels: Tensor, size: Tensor) -> Answer:
        """What is found above the score in gray levels (batch, 3, height, width), 0 beyond `size` (height, width)."""
        backbone = self.detector.backbone
        maps = self.detector.neck(backbone(normalized(pixels, size, backbone.mean, backbone.std)))
        regions, valid = self._propose(maps, size)
        return self._find(self._look_at(maps, regions, valid), regions, valid, size)

    def _propose(self, maps: Sequence[Tensor], size: Tensor) -> tuple[Tensor, Tensor]:
        config, rule = self.detector.config, self.detector.config.proposals
        anchors, lengths = lay_anchors(config.anchors, maps, self.detector.neck.strides, size)
        logits, codes = self.detector.rpn(maps)
        scores = logits[..., 0].masked_fill(~anchors.valid, -torch.inf)
        all_boxes, all_scores, first = [], [], 0
        for length in lengths:
            score, place = best(scores[:, first : first + length], rule.test.per_level)
            code = rows_at(codes[:, first : first + length, 0], place)
            box = config.rpn.code.coder.decode(rows_at(anchors.boxes[:, first : first + length], place), code)
            box = clipped(box, size)
            stays = (box[..., 2:] - box[..., :2] > rule.minimum_side).all(dim=-1)
            score = score.masked_fill(~stays, -torch.inf)
            all_boxes.append(box)
            all_scores.append(score.masked_fill(~self.suppress(box, score, rule.nms), -torch.inf))
            first = first + length
        score, place = best(torch.cat(all_scores, dim=1), rule.test.keep)
        valid = score > -torch.inf
        return rows_at(torch.cat(all_boxes, dim=1), place) * valid[..., None], valid

    def _look_at(self, maps: Sequence[Tensor], regions: Tensor, valid: Tensor) -> RegionAnswers:
        """The box head's."""
        from torchvision.ops import roi_align

        head = self.detector.roi
        level = region_levels(regions, head.config.finest_side, len(head.strides))
        image = counted(regions[:, 0, 0])[:, None, None].expand(-1, regions.shape[1], 1)
        pooled = torch.zeros(())
        for number, (features, stride) in enumerate(zip(maps, head.strides, strict=False)):
            here = (level == number) & valid
            # Of another level's regions the point 0 is read: their number is fixed, and so they cost next to nothing.
            places = torch.cat([image, regions * here[..., None]], dim=-1).flatten(0, 1)
            cells = roi_align(
                features,
                places,
                head.config.cells,
                spatial_scale=1.0 / stride,
                sampling_ratio=head.config.samples,
                aligned=head.config.aligned,
            )
            pooled = pooled + cells * here.flatten()[:, None, None, None]
        hidden = head.read(pooled)
        shape = (-1, regions.shape[1])
        logits, codes = head.classify(hidden), head.regress(hidden)
        extra = {} if head.doubt is None else {"uncertainty": head.doubt(hidden).view(*shape, 4)}
        return RegionAnswers(logits.view(*shape, logits.shape[1]), codes.view(*shape, codes.shape[1] // 4, 4), extra)

    def _find(self, said: RegionAnswers, regions: Tensor, valid: Tensor, size: Tensor) -> Answer:
        config, classes = self.detector.config, self.detector.num_classes
        count = regions.shape[1]
        probs = said.logits.softmax(dim=-1)[..., :classes]
        ranks = ranking_scores(probs, said.extra, config.test.rank)
        passes = ((probs if config.test.score_of == "class" else ranks) > self.score) & valid[..., None]
        scores, passes = ranks.transpose(1, 2), passes.transpose(1, 2)  # batch classes regions
        boxes = clipped(config.roi.code.coder.decode(regions[:, :, None].expand_as(said.codes), said.codes), size)
        boxes = boxes.transpose(1, 2).expand(-1, classes, count, 4)
        stays = (boxes[..., 2:] - boxes[..., :2] > config.test.minimum_side).all(dim=-1)
        scores = scores.masked_fill(~(stays & passes), -torch.inf)
        survives = surviving(self.suppress, boxes.reshape(-1, count, 4), scores.reshape(-1, count), config.test.nms)
        scores = scores.masked_fill(~survives.view(-1, classes, count), -torch.inf).flatten(1)
        score, place = best(scores, config.test.at_most)
        labels = torch.div(place, count, rounding_mode="floor").clamp(max=classes - 1)
        return Answer(rows_at(boxes.flatten(1, 2), place), score, labels)

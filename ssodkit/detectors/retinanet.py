"""RetinaNet: one dense stage that classifies every anchor of the pyramid and moves it.

Source: Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, arXiv:1708.02002. What the published trainers
choose differently is a field each; the recipes of this detector are those choices.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import torch
from pydantic import model_validator
from torch import nn

from ssodkit.detectors.anchors import AnchorConfig, Anchored, check_sides, make_anchors
from ssodkit.detectors.backbones.base import Backbone, BackboneConfig
from ssodkit.detectors.base import Detector, DetectorConfig, build_matchers
from ssodkit.detectors.detections import find_by_level
from ssodkit.detectors.heads.base import DenseHeadConfig
from ssodkit.detectors.heads.plain import PlainConfig
from ssodkit.detectors.images import make_pyramid
from ssodkit.detectors.portable.parts import Suppress
from ssodkit.detectors.portable.retinanet import PortableRetinaNet
from ssodkit.detectors.rules import DenseTestRule
from ssodkit.nn.fpn import Fpn, FpnConfig
from ssodkit.nn.towers import DenseShape
from ssodkit.ops.boxes import at_least_fp32
from ssodkit.ops.matching import best_overlaps
from ssodkit.ops.rows import take_rows
from ssodkit.plugins import BuildContext, Slot, register
from ssodkit.structures.predictions import Candidates, Detections, Features, Predictions, Stages
from ssodkit.structures.teaching import Supervision
from ssodkit.structures.views import View


@register
class RetinaNetConfig(DetectorConfig):
    """One stage, `dense`, which has predictions before anything is matched."""

    type: Literal["retinanet"] = "retinanet"

    backbone: Slot[BackboneConfig]
    neck: FpnConfig = FpnConfig(extra_levels=2, extra_from="output")
    anchors: AnchorConfig = AnchorConfig()
    head: Slot[DenseHeadConfig] = PlainConfig()
    test: DenseTestRule = DenseTestRule()

    @property
    def stage_answers(self) -> Mapping[str, frozenset[str]]:
        """Classes and boxes."""
        return {"dense": frozenset({"class", "box"})}

    @property
    def stage_provides(self) -> Mapping[str, frozenset[str]]:
        """All that a stage of anchors has."""
        return {"dense": frozenset({"predictions", "places", "strides", "sigmoid"})}

    @model_validator(mode="after")
    def _parts_fit(self) -> "RetinaNetConfig":
        check_sides(self.anchors, self.backbone.levels + self.neck.extra_levels)
        misfit = self.head.misfit(self.neck.channels, self.anchors.per_cell)
        if misfit is not None:
            raise ValueError(misfit)
        return self

    def build(self, context: BuildContext) -> "RetinaNet":
        return RetinaNet(self, context)


class RetinaNet(Detector):
    """Its answers are about anchors; about any other region it has only the nearest anchor's."""

    backbone: Backbone
    neck: Fpn

    def __init__(self, config: RetinaNetConfig, context: BuildContext) -> None:
        super().__init__()
        self.config = config
        self.num_classes = context.num_classes
        self.stage_rules = config.stages
        self.backbone = config.backbone.build(context)
        self.neck = Fpn(config.neck, self.backbone.channels, self.backbone.strides)
        shape = DenseShape(config.neck.channels, self.neck.strides, config.anchors.per_cell, self.num_classes)
        self.head = config.head.build(shape)
        self.anchored = Anchored("dense", config.anchors, tuple(self.neck.strides))
        self.matchers = build_matchers(config.stages, context)

    def extract(self, view: View) -> Features:
        """The pyramid of the normalized images; the padding is 0 after normalizing."""
        return make_pyramid(view, self.backbone, self.neck)

    def predict(
        self,
        features: Features,
        supervision: Supervision | None = None,
        proposals: Literal["training", "test"] = "test",
    ) -> Stages:
        """All anchors; what is taught and how many are proposed does not matter here."""
        anchors = make_anchors(self.config.anchors, features)
        logits, codes = self.head(features.maps, anchors)
        return Stages({"dense": Predictions(anchors, logits, "sigmoid", codes, self.head.coder)}, features.view)

    def score_regions(self, features: Features, regions: Candidates) -> Predictions:
        """For each region the answer of the anchor with the best IoU, which its candidates then are: not exact.

        Regions that are not valid, or overlap no anchor, answer 0 and are not valid.
        """
        dense = self.predict(features).last
        anchors = dense.candidates
        assert anchors.level is not None
        assert anchors.stride is not None
        with torch.no_grad():
            boxes = at_least_fp32(regions.boxes)
            found = best_overlaps(boxes, regions.valid, anchors.boxes, anchors.valid)
        rows, valid = found.target, found.iou > 0.0
        nearest = Candidates(
            take_rows(anchors.boxes, rows), valid, take_rows(anchors.level, rows), take_rows(anchors.stride, rows)
        )
        logits = take_rows(dense.class_logits, rows).masked_fill(~valid[..., None], 0.0)
        codes = take_rows(dense.box_codes, rows).masked_fill(~valid[..., None, None], 0.0)
        return replace(dense, candidates=nearest, class_logits=logits, box_codes=codes)

    def detect(self, stages: Stages, score: float | None = None) -> Detections:
        """Final detections."""
        return find_by_level(stages.last, stages.view.sizes, self.config.test, score)

    def portable(self, suppress: Suppress, score: float) -> nn.Module:
        """The same in operations that a file can hold."""
        return PortableRetinaNet(self, suppress, score)

"""Faster R-CNN with a feature pyramid: anchors are proposed, proposals are classified.

Source: Ren et al., Faster R-CNN, arXiv:1506.01497; Lin et al., Feature Pyramid Networks, arXiv:1612.03144. What the
published trainers choose differently is a field each; the recipes of this detector are those choices.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from pydantic import model_validator
from torch import Tensor, nn

from ssodkit.detectors.anchors import AnchorConfig, Anchored, check_sides, make_anchors
from ssodkit.detectors.backbones.base import Backbone, BackboneConfig
from ssodkit.detectors.base import Detector, DetectorConfig, build_matchers
from ssodkit.detectors.detections import find
from ssodkit.detectors.images import make_pyramid
from ssodkit.detectors.portable.faster_rcnn import PortableFasterRcnn
from ssodkit.detectors.portable.parts import Suppress
from ssodkit.detectors.rpn import ProposalRule, Proposals, RpnConfig, RpnHead, propose
from ssodkit.detectors.rules import ProposalCount
from ssodkit.detectors.sampling import sample_regions
from ssodkit.nn.box_code import BoxCodeConfig, unsure_of_no_side
from ssodkit.nn.fpn import Fpn, FpnConfig
from ssodkit.nn.roi_head import RoiHead, RoiHeadConfig
from ssodkit.plugins import BuildContext, Slot, register
from ssodkit.structures.predictions import Candidates, Detections, Features, Predictions, Stages
from ssodkit.structures.progress import Progress
from ssodkit.structures.teaching import Supervision
from ssodkit.structures.views import View


class RoiConfig(RoiHeadConfig):
    """The box head: which features, how wide, and how its boxes are written."""

    code: BoxCodeConfig = BoxCodeConfig(center_std=0.1, side_std=0.2)


@register
class FasterRcnnConfig(DetectorConfig):
    """Two stages: `rpn` proposes, `roi` answers about any region."""

    type: Literal["faster_rcnn"] = "faster_rcnn"
    provides: ClassVar[frozenset[str]] = frozenset({"exact_regions", "proposals", "comparable_answers"})
    offers: ClassVar[Mapping[str, str]] = {"uncertainty": "roi.uncertainty: true"}

    backbone: Slot[BackboneConfig]
    neck: FpnConfig = FpnConfig()
    anchors: AnchorConfig = AnchorConfig()
    rpn: RpnConfig = RpnConfig()
    proposals: ProposalRule = ProposalRule(
        training=Proposals(per_level=2000, keep=1000), test=Proposals(per_level=1000, keep=1000)
    )
    roi: RoiConfig = RoiConfig()

    @property
    def stage_answers(self) -> Mapping[str, frozenset[str]]:
        """Both classify and move boxes; `roi` may say how unsure it is of them."""
        both = frozenset({"class", "box"})
        return {"rpn": both, "roi": both | ({"uncertainty"} if self.roi.uncertainty else frozenset())}

    @property
    def stage_provides(self) -> Mapping[str, frozenset[str]]:
        """Regions are sampled before the box head answers."""
        return {
            "rpn": frozenset({"predictions", "places", "strides", "sigmoid", "no_classes"}),
            "roi": frozenset({"places", "softmax"}),
        }

    @property
    def stage_levels(self) -> Mapping[str, int]:
        """Anchors lie on the whole pyramid."""
        return {"rpn": self.backbone.levels + self.neck.extra_levels}

    @model_validator(mode="after")
    def _parts_fit(self) -> "FasterRcnnConfig":
        if not self.stages["rpn"].one_class:
            raise ValueError("stages.rpn.one_class must be true: proposals have no class")
        levels = self.stage_levels["rpn"]
        check_sides(self.anchors, levels)
        if self.roi.levels > levels:
            raise ValueError(f"roi.levels is {self.roi.levels}, but the pyramid has {levels}")
        if (text := unsure_of_no_side("roi", self.roi.uncertainty, self.roi.code)) is not None:
            raise ValueError(text)
        if self.roi.uncertainty and self.roi.boxes_per_class:
            raise ValueError("roi.uncertainty is of one box: write `roi.boxes_per_class: false`")
        return self

    def build(self, context: BuildContext) -> "FasterRcnn":
        return FasterRcnn(self, context)


class FasterRcnn(Detector):
    """Answers about any region exactly: a box is pooled from the pyramid, wherever it came from."""

    backbone: Backbone
    neck: Fpn

    def __init__(self, config: FasterRcnnConfig, context: BuildContext) -> None:
        super().__init__()
        self.config = config
        self.num_classes = context.num_classes
        self.stage_rules = config.stages
        self.backbone = config.backbone.build(context)
        self.neck = Fpn(config.neck, self.backbone.channels, self.backbone.strides)
        self.rpn = RpnHead(config.neck.channels, config.anchors.per_cell, config.rpn.layers)
        regressions = self.num_classes if config.roi.boxes_per_class else 1
        self.roi = RoiHead(config.roi, config.neck.channels, self.neck.strides, self.num_classes + 1, regressions)
        self.anchored = Anchored("rpn", config.anchors, tuple(self.neck.strides))
        self.matchers = build_matchers(config.stages, context)

    def extract(self, view: View) -> Features:
        """The pyramid of the normalized images; the padding is 0 after normalizing."""
        return make_pyramid(view, self.backbone, self.neck)

    def predict(
        self,
        features: Features,
        supervision: Supervision | None = None,
        proposals: ProposalCount = "test",
    ) -> Stages:
        """Anchors and proposals. With `supervision`, `roi` answers about the sample drawn from it, and has a plan."""
        rpn = self._answer_about_anchors(features)
        rule = self.config.proposals
        proposed = regions = propose(rpn, features.view.sizes, rule.counts(proposals), rule)
        plan = None
        if supervision is not None:
            regions, plan = sample_regions(
                proposed,
                self.rule("roi", supervision.progress),
                self.matcher("roi", supervision.progress),
                supervision,
                features.view.keys,
                rule.append_targets,
            )
        roi = replace(self.score_regions(features, regions), plan=plan)
        return Stages({"rpn": rpn, "roi": roi}, features.view, None if supervision is None else proposed)

    def answer_about(self, features: Features, others: Stages) -> Stages:
        """Anchors, and the others' proposals."""
        regions = others.by_name["roi"].candidates
        stages = {"rpn": self._answer_about_anchors(features), "roi": self.score_regions(features, regions)}
        return Stages(stages, features.view)

    def _answer_about_anchors(self, features: Features) -> Predictions:
        logits, codes = self.rpn(features.maps)
        anchors = make_anchors(self.config.anchors, features)
        return Predictions(anchors, logits, "sigmoid", codes, self.config.rpn.code.coder)

    def score_regions(self, features: Features, regions: Candidates) -> Predictions:
        """The box head's answers; regions that are not valid or have no area answer 0."""
        said = self.roi(features.maps, regions.boxes, regions.valid)
        return Predictions(regions, said.logits, "softmax", said.codes, self.config.roi.code.coder, said.extra)

    def detect(
        self,
        stages: Stages,
        score: float | None = None,
        rank: Mapping[str, float] | None = None,
        progress: Progress | None = None,
        nms: float | None = None,
    ) -> Detections:
        """Final detections of the last stage."""
        return find(stages.last, stages.view.sizes, self.config.test.at(progress, nms), score, rank)

    def class_layers(self, num_classes: int) -> Mapping[str, Tensor]:
        """Of the box head; its background is behind the classes."""
        layers = {"roi.classify": torch.arange(num_classes)[:, None]}
        if self.config.roi.boxes_per_class:
            layers["roi.regress"] = torch.arange(4 * num_classes).unflatten(0, (-1, 4))
        return layers

    def portable(self, suppress: Suppress, score: float) -> nn.Module:
        """The same in operations that a file can hold."""
        return PortableFasterRcnn(self, suppress, score)

"""One-stage detectors: a pyramid, and a head that answers about every anchor of it; their names are configs.

Source: Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, arXiv:1708.02002.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import model_validator
from torch import Tensor

from ssodkit.detectors.anchors import AnchorConfig, Anchored, make_anchors
from ssodkit.detectors.backbones.base import Backbone, BackboneConfig
from ssodkit.detectors.base import Detector, DetectorConfig, build_matchers
from ssodkit.detectors.detections import find_by_level
from ssodkit.detectors.heads.base import DenseHeadConfig
from ssodkit.detectors.images import make_pyramid
from ssodkit.detectors.portable.one_stage import PortableOneStage
from ssodkit.detectors.portable.parts import Suppress
from ssodkit.detectors.rules import DenseDetectionRule, ProposalCount
from ssodkit.nn.fpn import Fpn, FpnConfig
from ssodkit.nn.towers import DenseShape
from ssodkit.plugins import BuildContext, Slot
from ssodkit.structures.predictions import Detections, Features, Predictions, Stages
from ssodkit.structures.progress import Progress
from ssodkit.structures.teaching import Supervision
from ssodkit.structures.views import View


class OneStageConfig(DetectorConfig):
    """One stage, `dense`, which has predictions before anything is matched."""

    provides: ClassVar[frozenset[str]] = frozenset({"comparable_answers"})

    backbone: Slot[BackboneConfig]
    neck: FpnConfig = FpnConfig(extra_levels=2, extra_from="output")
    head: Slot[DenseHeadConfig]
    test: DenseDetectionRule = DenseDetectionRule()

    @property
    @abstractmethod
    def anchors_per_cell(self) -> int:
        """On every level."""

    @abstractmethod
    def anchors_on(self, strides: tuple[int, ...]) -> AnchorConfig:
        """What the stage classifies, on a pyramid of these strides."""

    @property
    def stage_answers(self) -> Mapping[str, frozenset[str]]:
        """The head's."""
        return {"dense": self.head.answers}

    @property
    def stage_provides(self) -> Mapping[str, frozenset[str]]:
        """All that a stage of anchors has."""
        return {"dense": frozenset({"predictions", "places", "strides", "sigmoid"})}

    @property
    def levels(self) -> int:
        """Of the pyramid."""
        return self.backbone.levels + self.neck.extra_levels

    @property
    def stage_levels(self) -> Mapping[str, int]:
        """Anchors lie on all of them."""
        return {"dense": self.levels}

    @property
    def largest_cell(self) -> int:
        """Of the coarsest level."""
        return self.backbone.coarsest * 2**self.neck.extra_levels

    @model_validator(mode="after")
    def _parts_fit(self) -> "OneStageConfig":
        misfit = self.head.misfit(self.neck.channels, self.anchors_per_cell)
        if misfit is not None:
            raise ValueError(misfit)
        return self

    def build(self, context: BuildContext) -> "OneStage":
        return OneStage(self, context)


class OneStage(Detector):
    """Its answers are about anchors, and about no other region."""

    backbone: Backbone
    neck: Fpn

    def __init__(self, config: OneStageConfig, context: BuildContext) -> None:
        super().__init__()
        self.config = config
        self.num_classes = context.num_classes
        self.stage_rules = config.stages
        self.backbone = config.backbone.build(context)
        self.neck = Fpn(config.neck, self.backbone.channels, self.backbone.strides)
        strides = tuple(self.neck.strides)
        shape = DenseShape(config.neck.channels, strides, config.anchors_per_cell, self.num_classes)
        self.head = config.head.build(shape)
        self.anchors = config.anchors_on(strides)
        self.anchored = Anchored("dense", self.anchors, strides)
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
        """All anchors; what is taught and how many are proposed does not matter here."""
        anchors = make_anchors(self.anchors, features)
        said = self.head(features.maps, anchors)
        dense = Predictions(anchors, said.logits, "sigmoid", said.codes, self.head.coder, said.extra)
        return Stages({"dense": dense}, features.view)

    def answer_about(self, features: Features, others: Stages) -> Stages:
        """All anchors, which are those of any other."""
        return self.predict(features)

    def detect(
        self,
        stages: Stages,
        score: float | None = None,
        rank: Mapping[str, float] | None = None,
        progress: Progress | None = None,
        nms: float | None = None,
    ) -> Detections:
        """Final detections."""
        return find_by_level(stages.last, stages.view.sizes, self.config.test.at(progress, nms), score, rank)

    def class_layers(self, num_classes: int) -> Mapping[str, Tensor]:
        """Whatever the head calls `classify`: all classes of a cell's first anchor, then those of the next."""
        rows = torch.arange(self.config.anchors_per_cell * num_classes).unflatten(0, (-1, num_classes)).T
        return {name: rows for name, _ in self.head.named_modules(prefix="head") if name.endswith(".classify")}

    def portable(self, suppress: Suppress, score: float) -> PortableOneStage:
        """The same in operations that a file can hold."""
        return PortableOneStage(self, suppress, score)

"""What a detector exposes, and how its stages learn, as data.

A stage is any part with candidates, class logits and boxes. Its terms name the target set that teaches them.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field
from torch import nn

from ssodkit.assigners.matchers.base import MatcherConfig
from ssodkit.detectors.criteria.base import CriterionConfig
from ssodkit.plugins import BuildContext, Config, PluginConfig, Slot
from ssodkit.structures.predictions import Candidates, Detections, Features, Predictions, Stages
from ssodkit.structures.teaching import Supervision
from ssodkit.structures.views import View

NormalizerName = Literal["sampled", "sampled_of_each", "quota", "positives", "weights", "two_means"]
"""Functions of `detectors/normalizers.py`."""


class Sampler(Config):
    """A random sample of a stage's candidates."""

    per_image: int = Field(ge=1)
    positive_share: float = Field(ge=0.0, le=1.0)
    """At most this share are positives; background fills the rest."""


class TermRule(Config):
    """How one loss term of a stage learns."""

    taught_by: Literal["objectness", "classes", "boxes"]
    criterion: Slot[CriterionConfig]
    quality: Literal["unused", "target", "weight"] = "unused"
    """A positive's target is hard, or its matcher's quality; or the quality weights it."""
    normalizer: NormalizerName
    floor: float = Field(1.0, gt=0.0)
    """The denominator, summed over processes, never falls below it."""
    weight: float = Field(1.0, ge=0.0)


class StageRule(Config):
    """How one stage learns."""

    matcher: Slot[MatcherConfig]
    sampler: Sampler | None = None
    one_class: bool = False
    """The stage knows one class: all targets are class 0."""
    terms: dict[Literal["class", "box"], TermRule]


class Proposals(Config):
    """How many proposals go on."""

    per_level: int = Field(ge=1)
    """Best per pyramid level before non-maximum suppression."""
    keep: int = Field(ge=1)
    """Per image after it."""


class ProposalCounts(Config):
    """The student learns with `training`; evaluation uses `test`."""

    training: Proposals
    test: Proposals


class TestRule(Config):
    """What becomes of the last stage's answers at test time, and in a teacher."""

    __test__: ClassVar[bool] = False

    score: float = Field(0.05, ge=0.0, le=1.0)
    """Detections need a score above this."""
    nms: float = Field(0.5, gt=0.0, le=1.0)
    at_most: int = Field(100, ge=1)
    """Detections per image."""


class DetectorConfig(PluginConfig, ABC):
    """Capabilities belong to the config, so that a recipe is checked before a network exists."""

    slot: ClassVar[str] = "detector"
    stage_provides: ClassVar[Mapping[str, frozenset[str]]] = {}
    """Stage -> what it provides to matchers: `predictions` where it has them before matching."""

    stages: Mapping[str, StageRule]
    test: TestRule = TestRule()

    @abstractmethod
    def build(self, context: BuildContext) -> "Detector": ...


class Detector(nn.Module, ABC):
    """A network whose answers are records; nothing it returns depends on `self.training`."""

    num_classes: int
    stage_rules: Mapping[str, StageRule]
    matchers: nn.ModuleDict
    """Stage -> its built matcher."""

    @abstractmethod
    def extract(self, view: View) -> Features:
        """Normalize, backbone and neck."""

    @abstractmethod
    def predict(
        self,
        features: Features,
        supervision: Supervision | None = None,
        proposals: Literal["training", "test"] = "test",
    ) -> Stages:
        """Raw predictions of every stage. `supervision` serves detectors that sample before they predict."""

    @abstractmethod
    def score_regions(self, features: Features, regions: Candidates) -> Predictions:
        """The last stage's answer about any box in the frame of `features`, differentiably."""

    @abstractmethod
    def detect(self, stages: Stages, score: float | None = None) -> Detections:
        """Final detections in the frame of `stages.view`; `score` overrides the test threshold."""

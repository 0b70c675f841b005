"""What a detector exposes, and how its stages learn, as data.

A stage is any part with candidates and answers about them. Its terms name the target set that teaches them.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator
from torch import nn

from ssodkit.assigners.matchers.base import Matcher, MatcherConfig
from ssodkit.detectors.anchors import Anchored
from ssodkit.detectors.criteria.base import CriterionConfig
from ssodkit.detectors.normalizers.base import NormalizerConfig
from ssodkit.detectors.portable.parts import Suppress
from ssodkit.plugins import BuildContext, Config, PluginConfig, Slot
from ssodkit.structures.predictions import Candidates, Detections, Features, Predictions, Stages
from ssodkit.structures.teaching import Supervision
from ssodkit.structures.views import View

TermName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


class Sampler(Config):
    """A random sample of a stage's candidates."""

    per_image: int = Field(ge=1, le=1_000_000)
    positive_share: float = Field(ge=0.0, le=1.0)
    """At most this share are positives; background fills the rest."""

    @property
    def positives(self) -> int:
        """The most positives per image, rounded down."""
        return int(self.per_image * self.positive_share)


class TermRule(Config):
    """How one loss term of a stage learns."""

    taught_by: Literal["objectness", "classes", "boxes"]
    criterion: Slot[CriterionConfig]
    quality: Literal["unused", "target", "weight"] = "unused"
    """A positive's target is hard, or its matcher's quality, which only classes can have; or the quality weights it."""
    normalizer: Slot[NormalizerConfig]
    floor: float = Field(1.0, ge=1e-6, le=1e6)
    """The denominator, summed over processes, never falls below it."""
    weight: float = Field(1.0, ge=0.0, le=1000.0)

    @model_validator(mode="after")
    def _only_soft_targets_have_a_quality(self) -> "TermRule":
        if self.quality == "target" and not self.criterion.takes_soft_targets:
            raise ValueError(
                f"`quality: target` has no effect on '{self.criterion.type}'; take `weight`, or leave it out"
            )
        return self


class StageRule(Config):
    """How one stage learns."""

    matcher: Slot[MatcherConfig]
    sampler: Sampler | None = None
    one_class: bool = False
    """The stage knows one class: all targets are class 0."""
    crossing: Literal["learn", "ignore"] = "learn"
    """What candidates do that reach beyond their image: learn like others, or nothing at all."""
    terms: dict[TermName, TermRule]
    """By any name. Null takes away a term that a base has set."""

    @property
    def key_needs(self) -> Mapping[str, str]:
        """Candidates are left out of a match between predictions and targets; only without classes are all one."""
        crossing = {"crossing": "predictions"} if self.crossing == "ignore" else {}
        return crossing | ({"one_class": "no_classes"} if self.one_class else {})

    @field_validator("terms", mode="before")
    @classmethod
    def _null_is_no_term(cls, terms: object) -> object:
        return {name: term for name, term in terms.items() if term is not None} if isinstance(terms, dict) else terms


class TestRule(Config):
    """What becomes of the last stage's answers at test time, and in a teacher."""

    __test__: ClassVar[bool] = False

    score: float = Field(0.05, ge=0.0, le=1.0)
    """Detections need a score above this."""
    nms: float = Field(0.5, gt=0.0, le=1.0)
    at_most: int = Field(100, ge=1)
    """Detections per image."""
    minimum_side: float = Field(0.0, ge=0.0)
    """Pixels; both sides of a detection are longer than this."""


class DenseTestRule(TestRule):
    """The same for a dense stage, whose answers are too many to compare all."""

    per_level: int = Field(1000, ge=1)
    """Pairs of candidate and class that go on, the best of each pyramid level."""
    clip: bool = True
    """Whether boxes are clipped to the image."""


class DetectorConfig(PluginConfig, ABC):
    """Capabilities belong to the config, so that a recipe is checked before a network exists."""

    slot: ClassVar[str] = "detector"

    stages: Mapping[str, StageRule]
    test: TestRule = TestRule()

    @property
    @abstractmethod
    def stage_answers(self) -> Mapping[str, frozenset[str]]:
        """Stage -> its answers, such as `class` and `box`; in the order in which stages answer.

        Each answer needs a term that teaches it, or its weights would never learn.
        """

    @property
    @abstractmethod
    def stage_provides(self) -> Mapping[str, frozenset[str]]:
        """Stage -> what else its rule, matcher and criteria may build on.

        `predictions`: it has them before matching; `places`: its candidates lie somewhere; `strides`: on cells of the
        pyramid; `sigmoid` or `softmax`: what its class logits are for; `no_classes`: it tells things from background.
        """

    @model_validator(mode="after")
    def _all_stages_have_rules(self) -> "DetectorConfig":
        if set(self.stages) != set(self.stage_answers):
            own, given = (" and ".join(names) for names in (self.stage_answers, self.stages))
            raise ValueError(f"the stages of {self.type} are {own}, not {given or 'none'}")
        return self

    @abstractmethod
    def build(self, context: BuildContext) -> "Detector": ...


class Detector(nn.Module, ABC):
    """A network whose answers are records; nothing it returns depends on `self.training`."""

    num_classes: int
    stage_rules: Mapping[str, StageRule]
    backbone: nn.Module
    neck: nn.Module
    """From the backbone's maps to the pyramid; both are compiled where the recipe asks for it."""
    matchers: nn.ModuleDict
    """Stage -> its built matcher."""
    anchored: Anchored | None = None
    """The stage whose candidates are anchors, where there is one."""

    def matcher(self, stage: str) -> Matcher:
        """The matcher of a stage."""
        matcher = self.matchers[stage]
        assert isinstance(matcher, Matcher)
        return matcher

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

    def portable(self, suppress: Suppress, score: float) -> nn.Module | None:
        """This detector in operations that a file can hold: gray levels (batch, 3, height, width), and the one size
        (height, width) of the images in them -> `Answer`. None where it has no such form.
        """
        return None

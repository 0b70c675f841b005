"""Reliability scorers say how far to trust: instance scorers a detection, candidate scorers a candidate."""

from abc import ABC, abstractmethod
from typing import ClassVar

from pydantic import Field
from torch import nn

from ssodkit.plugins import BuildContext, Config, PluginConfig
from ssodkit.structures.predictions import Detections, Features, Seen, Stages
from ssodkit.structures.teaching import Plan
from ssodkit.teachers.base import Teacher


class Asks(Config):
    """About which detections a scorer is asked; the others score infinity."""

    score: str = "confidence"
    above: float = 0.5
    at_most: int = Field(40, ge=1)
    """Per image: the best."""


class InstanceScorerConfig(PluginConfig, ABC):
    """Adds the score that it `writes` to the teacher's detections."""

    slot: ClassVar[str] = "instance_scorer"

    @abstractmethod
    def build(self, context: BuildContext) -> "InstanceScorer": ...


class InstanceScorer(nn.Module, ABC):
    """Called without gradient, in the weak frame."""

    @abstractmethod
    def forward(self, teacher: Teacher, features: Features, found: Detections) -> Detections: ...


class CandidateScorerConfig(PluginConfig, ABC):
    """Weighs sampled background candidates of the last stage."""

    slot: ClassVar[str] = "candidate_scorer"

    @abstractmethod
    def build(self, context: BuildContext) -> "CandidateScorer": ...


class CandidateScorer(nn.Module, ABC):
    """Called without gradient; `stages` are the student's, in the strong frame, `seen` the teacher's, in the weak."""

    @abstractmethod
    def forward(self, teacher: Teacher, seen: Seen, stages: Stages, plan: Plan) -> Plan: ...

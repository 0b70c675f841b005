"""Reliability scorers say how far to trust: instance scorers a detection, candidate scorers a candidate."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Float, Int64
from pydantic import Field
from torch import Tensor, nn

from ssodkit.ops.rows import take_rows
from ssodkit.plugins import BuildContext, Config, PluginConfig
from ssodkit.structures.predictions import Detections, Features, Seen, Stages
from ssodkit.structures.teaching import Plan, Supervision
from ssodkit.teachers.base import Teacher


class Asks(Config):
    """About which detections a scorer is asked; the others score NaN, which no rule lets through."""

    score: str = "confidence"
    above: float = 0.5
    at_most: int = Field(40, ge=1)
    """Per image: the best."""

    def choose(self, found: Detections) -> tuple[Detections, Int64[Tensor, "batch asked"]]:
        """The detections to ask about, best first, and the rows of `found` they stand in; the rest is not valid."""
        score = found.scores[self.score]
        asked = found.valid & (score > self.above)
        count = min(self.at_most, score.shape[-1])
        rows = score.masked_fill(~asked, -torch.inf).topk(count, dim=-1).indices
        chosen = Detections(
            boxes=take_rows(found.boxes, rows),
            labels=take_rows(found.labels, rows),
            valid=take_rows(asked, rows),
            scores={name: take_rows(values, rows) for name, values in found.scores.items()},
        )
        return chosen, rows


def answer(
    found: Detections,
    name: str,
    score: Float[Tensor, "batch asked"],
    asked: Detections,
    rows: Int64[Tensor, "batch asked"],
) -> Detections:
    """`found` with the score `name`: what was answered about the `asked` that are valid, which stand in its `rows`.

    NaN where nobody asked: neither above any threshold nor below it, whichever way a score is good.
    """
    unasked = torch.full_like(found.confidence, torch.nan, dtype=score.dtype)
    return found.with_score(name, unasked.scatter(1, rows, score.masked_fill(~asked.valid, torch.nan)))


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
    """Changes who learns how much from what in the student's stages, such as background that may hide an object."""

    slot: ClassVar[str] = "candidate_scorer"

    @abstractmethod
    def build(self, context: BuildContext) -> "CandidateScorer": ...


class CandidateScorer(nn.Module, ABC):
    """Called without gradient; `stages` are the student's and `pseudo` what they learn from, in the strong frame,
    `seen` is the teacher's, in the weak."""

    @abstractmethod
    def forward(self, teacher: Teacher, seen: Seen, stages: Stages, plan: Plan, pseudo: Supervision) -> Plan: ...

"""Matchers say which candidate learns from which target. They serve labeled and pseudo-labeled data alike."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from ssodkit.plugins import BuildContext, PluginConfig
from ssodkit.structures.predictions import Predictions
from ssodkit.structures.progress import Progress
from ssodkit.structures.teaching import Assignment, Targets


class MatcherConfig(PluginConfig, ABC):
    """What it `needs` are capabilities of the stage: `places` where it reads where candidates lie, `strides` where it
    counts in cells, `predictions` where it reads what they answer."""

    slot: ClassVar[str] = "matcher"

    @property
    def learns_from(self) -> float | None:
        """The IoU from which on a candidate learns from a target; None where something else decides as well."""
        return None

    def misfit(self, levels: int) -> str | None:
        """A sentence that says why it cannot serve a pyramid of so many levels; None if it can."""
        return None

    @abstractmethod
    def build(self, context: BuildContext) -> "Matcher": ...


class Matcher(nn.Module, ABC):
    """Called without gradient, in fp32; targets of weight 0 and crowds never reach it (see `detectors.sampling`)."""

    asks_host: ClassVar[bool] = False
    """Whether the host is waited for, once for all questions of a stream."""

    @abstractmethod
    def forward(self, predictions: Predictions, targets: Targets, progress: Progress) -> Assignment:
        """Every valid candidate's target, BACKGROUND or IGNORE; weight 1, nothing sampled yet."""

    @staticmethod
    def answer(questions: Sequence["Question"], progress: Progress) -> list[Assignment]:
        """What `forward` says to each question put to matchers of this class; here one after the other.

        A class that asks the host overrides it, and asks once for all questions of a stream.
        """
        return [asked.matcher(asked.predictions, asked.targets, progress) for asked in questions]


@dataclass(frozen=True)
class Question:
    """Which of a stage's candidates learns from which of these targets?"""

    matcher: Matcher
    predictions: Predictions
    targets: Targets


def ask(questions: Sequence[Question], progress: Progress) -> list[Assignment]:
    """The answers, in the order of the questions; those to matchers of one class are asked together."""
    answers: dict[int, Assignment] = {}
    kinds = [type(question.matcher) for question in questions]
    for kind in dict.fromkeys(kinds):
        places = [place for place, own in enumerate(kinds) if own is kind]
        answers |= zip(places, kind.answer([questions[place] for place in places], progress), strict=True)
    return [answers[place] for place in range(len(questions))]

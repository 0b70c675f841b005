"""Lessons: what the candidates of a stage are to say in one loss term, be it targets or another network's answers."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import pad

from ssodkit.ops.boxes import at_least_fp32
from ssodkit.ops.rows import take_rows
from ssodkit.structures.predictions import Predictions
from ssodkit.structures.records import Record
from ssodkit.structures.teaching import Assignment, Targets


@dataclass(frozen=True)
class Lesson(Record, ABC):
    """Who learns, and from whom; what is to be said is looked up where it is read."""

    assignment: Assignment
    num_classes: int

    @property
    @abstractmethod
    def labels(self) -> Int64[Tensor, "batch candidates"]:
        """The class that each candidate is to say; num_classes, the background, where it is not positive."""

    @property
    @abstractmethod
    def boxes(self) -> Float[Tensor, "batch candidates 4"]:
        """The box that each candidate is to say, in pixels, fp32 or finer; the unit box where it is not positive."""

    @abstractmethod
    def wanted(
        self, columns: int, strength: Float[Tensor, "batch candidates"]
    ) -> Float[Tensor, "batch candidates columns"]:
        """How much of each class is to be said, times `strength`; 0 where a candidate is not positive. Where there is a
        column more than classes, background has the rest to 1."""

    @abstractmethod
    def answer(self, name: str) -> Float[Tensor, "batch candidates ..."]:
        """What another network says by a further answer, such as `quality`: probabilities, fp32 or finer."""

    @property
    def codes(self) -> Float[Tensor, "batch candidates regressions 4"]:
        """The box codes of all regressors; only answers say them, targets say boxes."""
        raise NotImplementedError("targets have no codes")


@dataclass(frozen=True)
class TargetLesson(Lesson):
    """The target that each positive candidate was given."""

    targets: Targets
    """At least one row of them, which means nothing where no candidate is positive."""

    @property
    def labels(self) -> Int64[Tensor, "batch candidates"]:
        labels = take_rows(self.targets.labels, self.assignment.index.clamp(min=0))
        return labels.masked_fill(~self.assignment.positive, self.num_classes)

    @property
    def boxes(self) -> Float[Tensor, "batch candidates 4"]:
        boxes = take_rows(self.targets.boxes, self.assignment.index.clamp(min=0))
        return _unit_where_not(self.assignment, boxes)

    def wanted(
        self, columns: int, strength: Float[Tensor, "batch candidates"]
    ) -> Float[Tensor, "batch candidates columns"]:
        """`strength` in the column of the target's class."""
        classes = torch.arange(self.num_classes, device=strength.device)
        return _with_background((self.labels[..., None] == classes) * strength[..., None], columns)

    def answer(self, name: str) -> Float[Tensor, "batch candidates ..."]:
        """What was said where the target was found; anything where a candidate is not positive.

        Raises KeyError for targets that were not found by a network.
        """
        said = take_rows(self.targets.extra[name], self.assignment.index.clamp(min=0))
        return at_least_fp32(said).sigmoid()


@dataclass(frozen=True)
class AnswerLesson(Lesson):
    """What another network, such as a teacher, answered about the same candidates."""

    theirs: Predictions

    @property
    def labels(self) -> Int64[Tensor, "batch candidates"]:
        """Their best class."""
        best = self.theirs.class_logits[..., : self.num_classes].argmax(dim=-1)
        return best.masked_fill(~self.assignment.positive, self.num_classes)

    @property
    def boxes(self) -> Float[Tensor, "batch candidates 4"]:
        return _unit_where_not(self.assignment, self.theirs.decode(self.labels))

    def wanted(
        self, columns: int, strength: Float[Tensor, "batch candidates"]
    ) -> Float[Tensor, "batch candidates columns"]:
        """Their probabilities."""
        probs = self.theirs.class_probs()[..., : self.num_classes]
        return _with_background(probs * (strength * self.assignment.positive)[..., None], columns)

    def answer(self, name: str) -> Float[Tensor, "batch candidates ..."]:
        return at_least_fp32(self.theirs.extra[name]).sigmoid()

    @property
    def codes(self) -> Float[Tensor, "batch candidates regressions 4"]:
        return self.theirs.box_codes


def _unit_where_not(
    assignment: Assignment, boxes: Float[Tensor, "batch candidates 4"]
) -> Float[Tensor, "batch candidates 4"]:
    unit = pad(boxes.new_ones(2), (2, 0))
    return torch.where(assignment.positive[..., None], boxes, unit)


def _with_background(
    classes: Float[Tensor, "batch candidates classes"], columns: int
) -> Float[Tensor, "batch candidates columns"]:
    if columns == classes.shape[-1]:
        return classes
    return torch.cat([classes, 1.0 - classes.sum(dim=-1, keepdim=True)], dim=-1)

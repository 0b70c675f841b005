"""A lesson: what the candidates of a stage are to say in one loss term."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import pad

from ssodkit.ops.rows import take_rows
from ssodkit.structures.records import Record
from ssodkit.structures.teaching import Assignment, Targets


@dataclass(frozen=True)
class Lesson(Record):
    """Who learns from which target; what that target says is looked up where it is read."""

    assignment: Assignment
    targets: Targets
    """At least one row of them, which means nothing where no candidate is positive."""
    num_classes: int

    @property
    def labels(self) -> Int64[Tensor, "batch candidates"]:
        """The class of each candidate's target; num_classes, the background, where it has none."""
        labels = take_rows(self.targets.labels, self.assignment.index.clamp(min=0))
        return labels.masked_fill(~self.assignment.positive, self.num_classes)

    @property
    def boxes(self) -> Float[Tensor, "batch candidates 4"]:
        """The box of each candidate's target, in pixels, fp32 or finer; the unit box where it has none."""
        boxes = take_rows(self.targets.boxes, self.assignment.index.clamp(min=0))
        unit = pad(boxes.new_ones(2), (2, 0))
        return torch.where(self.assignment.positive[..., None], boxes, unit)

    def wanted(
        self, columns: int, strength: Float[Tensor, "batch candidates"]
    ) -> Float[Tensor, "batch candidates columns"]:
        """`strength` in the column of each candidate's class, 0 elsewhere; background is a column if there is one
        more than classes."""
        classes = torch.arange(columns, device=strength.device)
        return (self.labels[..., None] == classes) * strength[..., None]

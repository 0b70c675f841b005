"""What is taught: targets, the three sets that teach a detector's terms, and which candidate learns from what."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ssodkit.structures.progress import Progress
from ssodkit.structures.records import Record

BACKGROUND = -1
"""In `Assignment.index`: this candidate learns that nothing is there."""
IGNORE = -2
"""In `Assignment.index`: this candidate learns nothing."""


@dataclass(frozen=True)
class Targets(Record):
    """Boxes to learn from, in xyxy pixels of their view, padded; rows that are not `valid` mean nothing."""

    boxes: Float[Tensor, "batch targets 4"]
    labels: Int64[Tensor, "batch targets"]
    """0 .. num_classes - 1."""
    valid: Bool[Tensor, "batch targets"]
    weight: Float[Tensor, "batch targets"]
    """How much: 0 means that its candidates are ignored, neither taught nor background."""
    crowd: Bool[Tensor, "batch targets"]
    """A region of many objects: never learned, what lies in it is ignored."""
    all_teach: bool = False
    """Known on the host: no valid row is a crowd or weighs 0, so that nobody needs to look for what is ignored. False
    where that is not known; who changes `weight` or `crowd` answers for it anew."""
    extra: Mapping[str, Float[Tensor, "batch targets ..."]] = field(default_factory=dict)
    """What a teacher answered besides where it found a target, named as in `Predictions.extra`, and its confidence as
    `score`; labels have none."""

    @classmethod
    def empty(cls, batch: int, device: torch.device | str = "cpu", length: int = 0) -> "Targets":
        """No target for any of `batch` images."""
        return cls(
            boxes=torch.zeros(batch, length, 4, device=device),
            labels=torch.zeros(batch, length, dtype=torch.int64, device=device),
            valid=torch.zeros(batch, length, dtype=torch.bool, device=device),
            weight=torch.zeros(batch, length, device=device),
            crowd=torch.zeros(batch, length, dtype=torch.bool, device=device),
            all_teach=length == 0,
        )

    def where(self, keep: Bool[Tensor, "batch targets"]) -> "Targets":
        """The same rows, those outside `keep` no longer valid."""
        return replace(self, valid=self.valid & keep)


@dataclass(frozen=True)
class Supervision(Record):
    """Three target sets; each loss term of each stage names the one that teaches it (`TermRule.taught_by`)."""

    objectness: Targets
    classes: Targets
    boxes: Targets
    progress: Progress

    @classmethod
    def uniform(cls, targets: Targets, progress: Progress) -> "Supervision":
        """One set teaches all, as ground truth does; what is shared is matched once."""
        return cls(targets, targets, targets, progress)

    def map(self, change: Callable[[Targets], Targets]) -> "Supervision":
        """The same with every set changed; sets that are one object are changed once, and stay one."""
        sets = {id(targets): targets for targets in (self.objectness, self.classes, self.boxes)}
        done = {key: change(targets) for key, targets in sets.items()}
        return Supervision(done[id(self.objectness)], done[id(self.classes)], done[id(self.boxes)], self.progress)


@dataclass(frozen=True)
class Assignment(Record):
    """What each candidate of a stage learns from, for one loss term."""

    index: Int64[Tensor, "batch candidates"]
    """The target's place in its row, or BACKGROUND, or IGNORE."""
    weight: Float[Tensor, "batch candidates"]
    """How much this candidate counts; the loss executes it. 0 wherever the candidate was not sampled."""
    quality: Float[Tensor, "batch candidates"]
    """Of a positive the matcher's measure (IoU, soft target); of a background candidate its best IoU."""
    sampled: Float[Tensor, "batch"]
    """The draws that were made in each image: what the normalizer `sampled` counts."""

    @classmethod
    def matched(
        cls,
        index: Int64[Tensor, "batch candidates"],
        quality: Float[Tensor, "batch candidates"],
        valid: Bool[Tensor, "batch candidates"],
    ) -> "Assignment":
        """What a matcher answers: weight 1, nothing sampled yet, and IGNORE for candidates that are not `valid`."""
        return cls(
            index=index.masked_fill(~valid, IGNORE),
            weight=torch.ones_like(quality),
            quality=quality,
            sampled=quality.new_zeros(len(quality)),
        )

    @property
    def positive(self) -> Bool[Tensor, "batch candidates"]:
        """Candidates that learn from a target."""
        return self.index >= 0

    @property
    def background(self) -> Bool[Tensor, "batch candidates"]:
        """Candidates that learn that nothing is there."""
        return self.index == BACKGROUND


Plan = Mapping[str, Mapping[str, Assignment]]
"""Name in `Stages` -> term name, such as `class` -> what its candidates learn from."""

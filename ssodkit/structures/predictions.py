"""What networks answer: features, candidates with raw predictions, and final detections."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ssodkit.ops.boxes import at_least_fp32
from ssodkit.ops.coding import Coder
from ssodkit.structures.records import Record
from ssodkit.structures.teaching import Assignment, Supervision
from ssodkit.structures.views import View


@dataclass(frozen=True)
class Features(Record):
    """A view as its detector sees it; opaque to methods."""

    maps: tuple[Float[Tensor, "batch channels _ _"], ...]
    """One per pyramid level, finest first."""
    strides: tuple[int, ...]
    view: View
    """Without pixels: the frame in which all boxes from these features lie."""


@dataclass(frozen=True)
class Candidates(Record):
    """What a stage classifies: anchors, points (boxes of side stride), proposals or queries; padded."""

    boxes: Float[Tensor, "batch candidates 4"]
    valid: Bool[Tensor, "batch candidates"]
    level: Int64[Tensor, "batch candidates"] | None = None
    """Pyramid level, 0 the finest; None where a candidate has none."""
    stride: Float[Tensor, "batch candidates"] | None = None
    """Pixels per cell of that level; None likewise."""
    lengths: tuple[int, ...] = ()
    """Candidates of each level, which lie one behind the other; empty where candidates have no levels."""
    lie: bool = True
    """False for queries: where they are is what they answer, and each of their `boxes` is the whole image."""


@dataclass(frozen=True)
class Predictions(Record):
    """Raw answers of one stage about its candidates."""

    candidates: Candidates
    class_logits: Float[Tensor, "batch candidates columns"]
    """num_classes columns under a sigmoid; under a softmax one more, the last: background."""
    activation: Literal["sigmoid", "softmax"]
    box_codes: Float[Tensor, "batch candidates regressions 4"]
    """One regression per candidate, or one per class."""
    coder: Coder
    extra: Mapping[str, Float[Tensor, "batch candidates ..."]] = field(default_factory=dict)
    """Further answers by name, such as `quality`: logits for a sigmoid. `uncertainty` has four numbers, of the left,
    top, right and bottom side; the higher, the less sure."""
    plan: Mapping[str, Assignment] | None = None
    """Term -> assignment, where the stage had to sample before it could predict."""

    @property
    def num_classes(self) -> int:
        """Foreground classes."""
        return self.class_logits.shape[-1] - (self.activation == "softmax")

    def class_probs(self) -> Float[Tensor, "batch candidates columns"]:
        """Probabilities, fp32 or finer; under a softmax the last column is the background's."""
        logits = at_least_fp32(self.class_logits)
        return logits.softmax(dim=-1) if self.activation == "softmax" else logits.sigmoid()

    def codes_of(self, labels: Int64[Tensor, "batch candidates"] | None = None) -> Float[Tensor, "batch candidates 4"]:
        """The codes of the regressor for each candidate's class, by default its best; the only one if classes share.

        Where a label is num_classes, the background, they are any regressor's.
        """
        if self.box_codes.shape[2] == 1:
            return self.box_codes[:, :, 0]
        if labels is None:
            labels = self.class_logits[..., : self.num_classes].argmax(dim=-1)
        regressor = labels.clamp(max=self.box_codes.shape[2] - 1)
        return self.box_codes.gather(2, regressor[..., None, None].expand(-1, -1, 1, 4))[:, :, 0]

    def decode(self, labels: Int64[Tensor, "batch candidates"] | None = None) -> Float[Tensor, "batch candidates 4"]:
        """Boxes in pixels, not clipped, fp32 or finer: of the given class, else of the best foreground class."""
        codes = at_least_fp32(self.codes_of(labels))
        return self.coder.decode(self.candidates.boxes.to(codes.dtype), codes)


@dataclass(frozen=True)
class Stages(Record):
    """The answers of all stages of a detector, in the order in which they are computed.

    A stage that answers in layers has a name for each, such as `decoder.1`: one rule, see `stage_of`, is for all.
    """

    by_name: Mapping[str, Predictions]
    view: View
    """Without pixels."""
    proposals: Candidates | None = None
    """What the last stage's candidates were drawn from, where a sample was drawn; None: it answers about all."""
    memory: Record | None = None
    """What the detector answers further questions from, see `Detector.states_of`; opaque, and None where it takes
    none."""

    @property
    def last(self) -> Predictions:
        """The stage whose answers become detections."""
        return self.by_name[list(self.by_name)[-1]]


@dataclass(frozen=True)
class Queries(Record):
    """Further questions to a detector whose candidates are queries; padded."""

    content: Float[Tensor, "batch queries channels"]
    """What each begins as; as wide as `DetectorConfig.query_channels`."""
    boxes: Float[Tensor, "batch queries 4"]
    """Where it begins, in pixels of its view."""
    valid: Bool[Tensor, "batch queries"]
    group: Int64[Tensor, "batch queries"]
    """Those of one group see each other."""


def stage_of(name: str) -> str:
    """The stage in a name of `Stages`, which may be that of one of its layers."""
    return name.partition(".")[0]


@dataclass(frozen=True)
class Detections(Record):
    """Final answers (after NMS), best first, padded; in pixels of their view."""

    boxes: Float[Tensor, "batch detections 4"]
    labels: Int64[Tensor, "batch detections"]
    valid: Bool[Tensor, "batch detections"]
    scores: Mapping[str, Float[Tensor, "batch detections"]] = field(default_factory=dict)
    """`confidence`, one more for every further ranking of the teacher, and one for every instance scorer."""
    extra: Mapping[str, Float[Tensor, "batch detections ..."]] = field(default_factory=dict)
    """What was answered besides about the candidates that they come from, as in `Predictions`."""
    candidate: Int64[Tensor, "batch detections"] | None = None
    """Places of these in the stage that made them; None where several made one."""

    @property
    def confidence(self) -> Float[Tensor, "batch detections"]:
        """The detector's own score, 0 to 1."""
        return self.scores["confidence"]

    def with_score(self, name: str, score: Float[Tensor, "batch detections"]) -> "Detections":
        """The same detections with one more named score."""
        return replace(self, scores={**self.scores, name: score})

    @classmethod
    def empty(cls, batch: int, device: torch.device | str = "cpu", length: int = 0) -> "Detections":
        """Nothing found in any of `batch` images."""
        return cls(
            boxes=torch.zeros(batch, length, 4, device=device),
            labels=torch.zeros(batch, length, dtype=torch.int64, device=device),
            valid=torch.zeros(batch, length, dtype=torch.bool, device=device),
            scores={"confidence": torch.zeros(batch, length, device=device)},
        )


@dataclass(frozen=True)
class Seen(Record):
    """What a teacher makes of a view."""

    features: Features
    stages: Stages
    found: Detections


@dataclass(frozen=True)
class Answered(Record):
    """What a student makes of a view, and what it was to learn of it."""

    view: View
    """With pixels, on the canvas on which they were seen: another one than the view's own where views were joined."""
    features: Features
    stages: Stages
    supervision: Supervision | None
    """None: nothing is known of these images."""

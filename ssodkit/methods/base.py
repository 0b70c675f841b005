"""Methods: the order of one training step. One class per kind of step; a paper is a recipe that fills it."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import ClassVar

from pydantic import ValidationError, field_validator
from torch import Tensor, nn

from ssodkit.consistency.base import ConsistencyConfig, Scene
from ssodkit.detectors.base import Detector, DetectorConfig
from ssodkit.detectors.learning import assign, loss, predict_together
from ssodkit.detectors.rules import TermChange
from ssodkit.plugins import BuildContext, Joined, PluginConfig, Slot, mistake_at
from ssodkit.structures.geometry import SemiBatch, Stream
from ssodkit.structures.predictions import Answered
from ssodkit.structures.progress import Progress
from ssodkit.structures.run import Losses, Step
from ssodkit.structures.teaching import Supervision
from ssodkit.teachers.base import TeacherConfig


class MethodConfig(PluginConfig, ABC):
    """Which method, and what it asks of the recipe around it."""

    slot: ClassVar[str] = "method"

    consistencies: tuple[Slot[ConsistencyConfig], ...] = ()
    """Further losses that look at the whole step, such as that an image and its mirror are answered alike; each type
    once."""

    @field_validator("consistencies")
    @classmethod
    def _each_type_once(cls, given: tuple[ConsistencyConfig, ...]) -> tuple[ConsistencyConfig, ...]:
        types = [one.type for one in given]
        if twice := [place for place, name in enumerate(types) if name in types[:place]]:
            text = f"there is a '{types[twice[0]]}' before it; its losses would have the same names"
            raise ValidationError.from_exception_data(
                cls.__name__, [mistake_at((place, "type"), text, types[place]) for place in twice]
            )
        return given

    @property
    def needs_views(self) -> Mapping[str, tuple[str, ...]]:
        """The views that the step reads, by stream, such as {"unlabeled": ("weak", "strong")}."""
        return {}

    aligned_views: ClassVar[tuple[str, str] | None] = None
    """Two views of unlabeled images that must show every image alike but for its colors."""

    @property
    def average(self) -> TeacherConfig | None:
        """What follows the student and is scored beside it, which a control keeps; None: nothing does."""
        return None

    @property
    def learns_stored(self) -> bool:
        """Whether the step learns from stored labels of unlabeled images, in their view `strong`."""
        return False

    @abstractmethod
    def build(self, context: BuildContext) -> "Method": ...

    def uses_unlabeled(self, progress: Progress) -> bool:
        """Whether this step reads the unlabeled stream; where False, none of it is loaded."""
        return "unlabeled" in self.needs_views

    def teaches_unlabeled(self, progress: Progress) -> bool:
        """Whether unlabeled images teach in this step; they may be looked at before they do."""
        return self.uses_unlabeled(progress)

    @property
    def advice(self) -> tuple[str, str]:
        """What to change where pseudo-boxes are too few, and where they are too many: middles of sentences."""
        return "take more of them", "take fewer of them"

    scored_by: ClassVar[Mapping[str, str]] = {}
    """A score that this method can give detections -> the setting that makes it do so: the middle of a sentence."""

    @property
    def scores(self) -> frozenset[str]:
        """What the teacher's detections are scored by, beside their confidence, before any scorer sees them."""
        return frozenset()

    about_labels: ClassVar[frozenset[str]] = frozenset()
    """Keys of `term_changes` that speak of terms taught by labels, to which nothing is provided that a network says."""

    @property
    def term_changes(self) -> Mapping[str, Mapping[str, TermChange]]:
        """Key of this config -> what it changes about the detector's terms, by their names; see `changes_of`."""
        return {}


class Method(nn.Module, ABC):
    """Owns networks and parts, `Consistencies` among them; all its state is in buffers and parameters."""

    @abstractmethod
    def step(self, batch: SemiBatch, progress: Progress) -> Step:
        """Losses and report of one step.

        The names of the losses are the same in every micro-batch and process of a step, and every parameter that
        learns is in their graph, be it with a gradient of 0. What a part wants to remember waits in buffers that no
        checkpoint holds; what counts changes in `after_update` alone.
        """

    def forward(self, batch: SemiBatch, progress: Progress) -> Step:
        """`step`, by the name under which distributed training calls it."""
        return self.step(batch, progress)

    @abstractmethod
    def after_update(self, progress: Progress, ok: Tensor) -> None:
        """The one place where what counts changes. `progress.step` counts the update just made.

        `ok`, 0-d and on the device, says whether the step was finite; where it was not, nothing may change.
        """

    @abstractmethod
    def networks(self) -> Mapping[str, Detector]:
        """`student`, and `teacher` where there is one: evaluated, saved and exported."""


def build_student(context: BuildContext) -> Detector:
    """The network that learns."""
    assert isinstance(context.detector, DetectorConfig)
    return context.detector.build(context)


def learn_from_labels(
    student: Detector, batch: SemiBatch, progress: Progress, changes: Mapping[str, TermChange] = {}
) -> tuple[Losses, Scene]:
    """The student's losses on labeled images alone, whose names read `labeled/roi/class`; and what it answered.

    `changes` are those of `loss`.
    """
    answers, losses = learn_from_streams(student, {"labeled": batch.labeled}, progress, changes=changes)
    return losses["labeled"], Scene(student, batch, progress, answers["labeled"])


def learn_from_streams(
    student: Detector,
    streams: Mapping[str, Stream],
    progress: Progress,
    joined: Joined = "auto",
    unknown: Collection[str] = (),
    changes: Mapping[str, TermChange] = {},
) -> tuple[dict[str, Answered], dict[str, Losses]]:
    """What the student answers about each stream; and its losses on each alone, by its own labels, each with its own
    denominators. Streams that are `unknown` have no labels, so no losses.

    Names begin with the stream's. `joined` is that of `predict_together`, `changes` those of `loss`.
    """
    views, truths = [], []
    for stream in streams.values():
        view, targets = stream.joined()
        views.append(view)
        truths.append(Supervision.uniform(targets, progress))
    answers = dict(zip(streams, predict_together(student, views, truths, joined), strict=True))
    losses = {}
    for (name, answered), truth in zip(answers.items(), truths, strict=True):
        if name in unknown:
            answers[name] = replace(answered, supervision=None)
        else:
            plan = assign(student, answered.stages, truth)
            losses[name] = loss(student, answered.stages, plan, truth, changes).named(name)
    return answers, losses

"""Supervised: learn from the labels that the batch has. The baseline of every comparison; with stored labels of
unlabeled images, the second stage of STAC; with consistencies, which look at images without labels, such as CSD's.

Source of the second stage: Sohn et al., STAC, arXiv:2005.04757, equation 2; google-research/ssl_detection.
"""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field
from torch import Tensor

from ssodkit.consistency.base import Consistencies, Scene
from ssodkit.detectors.base import Detector
from ssodkit.methods.base import Method, MethodConfig, build_student, learn_from_streams
from ssodkit.plugins import BuildContext, Slot, register
from ssodkit.schedules.base import LossWeight
from ssodkit.structures.geometry import SemiBatch
from ssodkit.structures.progress import Progress
from ssodkit.structures.run import Losses, Step
from ssodkit.teachers.base import TeacherConfig


@register
class SupervisedConfig(MethodConfig):
    """Labeled images, and unlabeled ones whose labels are stored."""

    type: Literal["supervised"] = "supervised"

    teacher: Slot[TeacherConfig] | None = None
    """A network that follows the student and teaches nothing, so that averaged weights can be scored here too."""
    unlabeled_weight: LossWeight | None = None
    """Multiplies the terms of unlabeled images: STAC's lambda. Null: labeled images alone teach."""
    loss_scale: float = Field(1.0, gt=0.0, le=1000.0)
    """Multiplies all terms of both streams; consistencies have their own weights. STAC's code divides the sum of both
    streams by the number of its forward passes, two; its equation does not."""

    @property
    def average(self) -> TeacherConfig | None:
        """The teacher, if there is one."""
        return self.teacher

    @property
    def learns_stored(self) -> bool:
        """True where unlabeled images have a weight."""
        return self.unlabeled_weight is not None

    @property
    def needs_views(self) -> Mapping[str, tuple[str, ...]]:
        """Consistencies look at the view `strong` of unlabeled images; stored labels are checked by themselves."""
        return {"unlabeled": ("strong",)} if self.consistencies else {}

    def uses_stored(self, progress: Progress) -> bool:
        """False where stored labels have no weight, or 0."""
        return self.unlabeled_weight is not None and self.unlabeled_weight.at(progress) != 0.0

    def uses_unlabeled(self, progress: Progress) -> bool:
        """Whether stored labels or a consistency weigh something."""
        return self.uses_stored(progress) or any(one.weight.at(progress) != 0.0 for one in self.consistencies)

    def teaches_unlabeled(self, progress: Progress) -> bool:
        """Whether stored labels do."""
        return self.uses_stored(progress)

    def combine(self, streams: Mapping[str, Losses], progress: Progress) -> Losses:
        """loss_scale x (L_labeled + unlabeled_weight x L_unlabeled), the second if it is given."""
        losses = streams["labeled"]
        if "unlabeled" in streams and self.unlabeled_weight is not None:
            losses += streams["unlabeled"] * self.unlabeled_weight.at(progress)
        return losses * self.loss_scale

    def build(self, context: BuildContext) -> "Supervised":
        return Supervised(self, context)


class Supervised(Method):
    """One student, and its average if the recipe asks for one."""

    def __init__(self, config: SupervisedConfig, context: BuildContext) -> None:
        super().__init__()
        self.config, self.joined = config, context.joined
        self.student = build_student(context)
        self.teacher = config.teacher.build(self.student, context) if config.teacher else None
        self.consistencies = Consistencies(config.consistencies, context)

    def step(self, batch: SemiBatch, progress: Progress) -> Step:
        """Losses on all labeled views, on the strong one of unlabeled images where their labels have a weight, and of
        the consistencies."""
        streams = {"labeled": batch.labeled}
        if batch.unlabeled is not None and self.config.uses_unlabeled(progress):
            streams["unlabeled"] = batch.unlabeled.only("strong")
        unknown = () if self.config.uses_stored(progress) else ("unlabeled",)
        answers, losses = learn_from_streams(self.student, streams, progress, self.joined, unknown)
        scene = Scene(self.student, batch, progress, answers["labeled"], answers.get("unlabeled"))
        return Step(self.consistencies(self.config.combine(losses, progress), scene))

    def after_update(self, progress: Progress, ok: Tensor) -> None:
        """Let the average follow."""
        if self.teacher is not None:
            self.teacher.after_update(self.student, progress, ok)
        self.consistencies.after_update(progress, ok)

    def networks(self) -> Mapping[str, Detector]:
        """`student`, and `teacher` if there is an average."""
        return {"student": self.student} | ({"teacher": self.teacher.network} if self.teacher is not None else {})

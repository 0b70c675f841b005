"""Supervised: learn from the labels that the batch has. The baseline of every comparison."""

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from ssodkit.detectors.base import Detector
from ssodkit.methods.base import Method, MethodConfig, build_student, learn_from_labels
from ssodkit.plugins import BuildContext, Slot, register
from ssodkit.structures.geometry import SemiBatch
from ssodkit.structures.progress import Progress
from ssodkit.structures.run import Step
from ssodkit.teachers.base import TeacherConfig


@register
class SupervisedConfig(MethodConfig):
    """Labeled images only."""

    type: Literal["supervised"] = "supervised"

    teacher: Slot[TeacherConfig] | None = None
    """A network that follows the student and teaches nothing, so that averaged weights can be scored here too."""

    def build(self, context: BuildContext) -> "Supervised":
        return Supervised(self, context)


class Supervised(Method):
    """One student, and its average if the recipe asks for one."""

    def __init__(self, config: SupervisedConfig, context: BuildContext) -> None:
        super().__init__()
        self.student = build_student(context)
        self.teacher = config.teacher.build(self.student, context) if config.teacher else None

    def step(self, batch: SemiBatch, progress: Progress) -> Step:
        """Losses on the labeled views; the unlabeled stream is not read."""
        return Step(learn_from_labels(self.student, batch.labeled, progress))

    def after_update(self, progress: Progress, ok: Tensor) -> None:
        """Let the average follow."""
        if self.teacher is not None:
            self.teacher.after_update(self.student, progress, ok)

    def networks(self) -> Mapping[str, Detector]:
        """`student`, and `teacher` if there is an average."""
        return {"student": self.student} | ({"teacher": self.teacher.network} if self.teacher is not None else {})

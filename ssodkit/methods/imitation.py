"""Imitation: what a teacher answers about a weak view, candidate by candidate, teaches the student in the strong one.

No score threshold, suppression or matching stands between them: L = L_labeled + lambda L_unlabeled, with
`unlabeled_weight` as lambda. `region` says which candidates learn, and `terms` how.

Source: Zhou et al., Dense Teacher, ECCV 2022, arXiv:2207.02541, section 3; Tang et al., Humble Teacher, CVPR 2021,
arXiv:2106.10456.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from ssodkit.assigners.regions.base import RegionConfig
from ssodkit.consistency.base import Consistencies
from ssodkit.detectors.base import Detector
from ssodkit.detectors.fusion import mirror_mean
from ssodkit.detectors.learning import agree
from ssodkit.detectors.rules import TermChange
from ssodkit.methods.base import Method, MethodConfig, build_student, learn_from_labels
from ssodkit.plugins import BuildContext, Slot, register
from ssodkit.schedules.base import LossWeight
from ssodkit.schedules.constant import ConstantConfig
from ssodkit.structures.geometry import SemiBatch, carry_boxes
from ssodkit.structures.predictions import Answered, Stages
from ssodkit.structures.progress import Progress
from ssodkit.structures.run import Step
from ssodkit.structures.views import View, mirrored
from ssodkit.teachers.base import TeacherConfig


@register
class ImitationConfig(MethodConfig):
    """Which teacher answers, which candidates learn its answers, and how much they count."""

    type: Literal["imitation"] = "imitation"
    needs: ClassVar[frozenset[str]] = frozenset({"comparable_answers"})
    provides: ClassVar[frozenset[str]] = frozenset({"other_answers", "their_uncertainty"})
    aligned_views: ClassVar[tuple[str, str] | None] = ("weak", "strong")

    teacher: Slot[TeacherConfig]
    region: Slot[RegionConfig]
    """The candidates of each stage that learn what the teacher answers; all others learn that nothing is there."""
    terms: dict[str, TermChange] = Field(default_factory=dict)
    """What is different about the detector's terms where the teacher's answers teach: by names as in
    `pseudo_label.unlabeled_terms`. Dense Teacher's class term is {class: {criterion: {type: focal, balance: null},
    normalizer: quality}}."""
    flip_average: bool = False
    """Whether what the teacher answers about its regions is the mean of the view and its mirror image. Its proposals,
    and its answers about anchors, are those of the view alone, and so are its detections wherever it is scored."""
    unlabeled_weight: LossWeight = ConstantConfig(value=1.0)
    """Multiplies all unlabeled terms. Humble Teacher's beta times unlabeled over labeled images of a step."""

    @property
    def needs_views(self) -> Mapping[str, tuple[str, ...]]:
        """Of unlabeled images: `weak` for the teacher and `strong` for the student."""
        return {"unlabeled": ("weak", "strong")}

    @property
    def key_needs(self) -> Mapping[str, str]:
        """Mirrored regions can be asked about where any can."""
        return {"flip_average": "exact_regions"} if self.flip_average else {}

    @property
    def average(self) -> TeacherConfig:
        """The teacher."""
        return self.teacher

    def uses_unlabeled(self, progress: Progress) -> bool:
        """False where the unlabeled weight is 0."""
        return self.unlabeled_weight.at(progress) != 0.0

    @property
    def term_changes(self) -> Mapping[str, Mapping[str, TermChange]]:
        """Those of unlabeled images."""
        return {"terms": self.terms}

    def build(self, context: BuildContext) -> "Imitation":
        return Imitation(self, context)


class Imitation(Method):
    """A student, and a teacher made from it."""

    def __init__(self, config: ImitationConfig, context: BuildContext) -> None:
        super().__init__()
        self.config = config
        self.student = build_student(context)
        self.teacher = config.teacher.build(self.student, context)
        self.consistencies = Consistencies(config.consistencies, context)

    def step(self, batch: SemiBatch, progress: Progress) -> Step:
        """Losses of both streams. There are no pseudo-boxes to report."""
        losses, scene = learn_from_labels(self.student, batch, progress)
        if not self.config.uses_unlabeled(progress):
            return Step(self.consistencies(losses, scene))
        assert batch.unlabeled is not None
        with torch.no_grad():
            theirs = self._ask_teacher(batch.unlabeled.views["weak"])
            plan = {name: self.config.region(answers) for name, answers in theirs.by_name.items()}
        strong = batch.unlabeled.views["strong"]
        features = self.student.extract(strong)
        mine = self.student.answer_about(features, theirs)
        extra = agree(self.student, mine, theirs, plan, progress, self.config.terms).named("unlabeled")
        losses += extra * self.config.unlabeled_weight.at(progress)
        scene = replace(scene, unlabeled=Answered(strong, features, mine, None), teacher=self.teacher)
        return Step(self.consistencies(losses, scene))

    def _ask_teacher(self, view: View) -> Stages:
        theirs = self.teacher.answer(view)
        if not self.config.flip_average:
            return theirs
        mirror, regions = mirrored(view), theirs.last.candidates
        there = replace(regions, boxes=carry_boxes(regions.boxes, view, mirror))
        seen = self.teacher.score_regions(self.teacher.network.extract(mirror), there)
        (*_, last) = theirs.by_name
        return replace(theirs, by_name={**theirs.by_name, last: mirror_mean(theirs.last, seen)})

    def after_update(self, progress: Progress, ok: Tensor) -> None:
        """The teacher follows the student."""
        self.teacher.after_update(self.student, progress, ok)
        self.consistencies.after_update(progress, ok)

    def networks(self) -> Mapping[str, Detector]:
        """`student` and `teacher`."""
        return {"student": self.student, "teacher": self.teacher.network}

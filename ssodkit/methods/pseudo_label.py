"""Pseudo-label: a teacher labels weak views on the fly, and the student learns them in strong views.

Source: Xu et al., Soft Teacher, ICCV 2021, arXiv:2106.09018, figure 2; other papers fill the same step with other
selectors, scorers and weights.
"""

from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ssodkit.assigners.selectors.base import SelectionContext, SelectorConfig
from ssodkit.detectors.base import Detector, DetectorConfig, NormalizerName
from ssodkit.detectors.learning import assign, loss, predict_together
from ssodkit.methods.base import Method, MethodConfig, build_student, learn_from_labels
from ssodkit.plugins import BuildContext, Slot, register, suggest
from ssodkit.reliability.base import CandidateScorerConfig, InstanceScorerConfig
from ssodkit.schedules.base import ScheduleConfig
from ssodkit.schedules.constant import ConstantConfig
from ssodkit.structures.geometry import SemiBatch, carry
from ssodkit.structures.progress import Progress
from ssodkit.structures.run import Report, Step
from ssodkit.structures.teaching import Supervision
from ssodkit.teachers.base import TeacherConfig


@register
class PseudoLabelConfig(MethodConfig):
    """Which teacher labels, how far its answers are trusted, and how much they count."""

    type: Literal["pseudo_label"] = "pseudo_label"
    needs_views: ClassVar[Mapping[str, tuple[str, ...]]] = {"unlabeled": ("weak", "strong")}

    teacher: Slot[TeacherConfig]
    scorers: tuple[Slot[InstanceScorerConfig], ...] = ()
    """Each adds a score to the teacher's detections, in this order."""
    selector: Slot[SelectorConfig]
    candidate_scorers: tuple[Slot[CandidateScorerConfig], ...] = ()
    """Each weighs the student's background candidates, in this order."""
    unlabeled_weight: Slot[ScheduleConfig] = ConstantConfig(value=1.0)
    """Multiplies all unlabeled terms: the papers' alpha or lambda."""
    unlabeled_terms: dict[str, float] = Field(default_factory=dict)
    """Further factors by stage or term, such as {rpn/box: 0, roi/box: 0}; the others have 1."""
    unlabeled_normalizers: dict[str, NormalizerName] = Field(default_factory=dict)
    """Normalizers of unlabeled terms, such as {roi/class: two_means}; the others have the detector's, as labeled terms
    always do."""
    while_unweighted: Literal["skip", "look"] = "skip"
    """Where the unlabeled weight is 0: load and compute nothing unlabeled, or let teacher, scorers and selector run, so
    that the selector's state fills."""

    def uses_unlabeled(self, progress: Progress) -> bool:
        """False where the unlabeled weight is 0 and nobody looks."""
        return self.while_unweighted == "look" or self.unlabeled_weight.at(progress) != 0.0

    def misfits(self, detector: DetectorConfig) -> Iterator[tuple[tuple[str, ...], str]]:
        """Names of no stage or term, and quotas of stages that draw no sample."""
        rules = {f"{name}/{term}": rule for name, rule in detector.stages.items() for term in rule.terms}
        stages_and_terms = [*detector.stages, *rules]
        for name in self.unlabeled_terms:
            if name not in stages_and_terms:
                text = f"no stage or loss term has this name; {suggest(name, stages_and_terms)}"
                yield ("unlabeled_terms", name), text
        for name, normalizer in self.unlabeled_normalizers.items():
            if name not in rules:
                yield ("unlabeled_normalizers", name), f"no loss term has this name; {suggest(name, rules)}"
            elif normalizer == "quota" and rules[name].sampler is None:
                yield ("unlabeled_normalizers", name), "`quota` counts the draws of a stage that has no `sampler`"

    def build(self, context: BuildContext) -> "PseudoLabel":
        return PseudoLabel(self, context)


class PseudoLabel(Method):
    """A student, a teacher made from it, and the parts between them."""

    def __init__(self, config: PseudoLabelConfig, context: BuildContext) -> None:
        super().__init__()
        self.config = config
        self.minimum_visible, self.joined = context.minimum_visible, context.joined
        self.student = build_student(context)
        self.teacher = config.teacher.build(self.student, context)
        self.scorers = nn.ModuleList(scorer.build(context) for scorer in config.scorers)
        self.selector = config.selector.build(context)
        self.candidate_scorers = nn.ModuleList(scorer.build(context) for scorer in config.candidate_scorers)

    def step(self, batch: SemiBatch, progress: Progress) -> Step:
        """Losses of both streams, and what the teacher found and the selector chose."""
        if not self.config.uses_unlabeled(progress):
            return Step(learn_from_labels(self.student, batch.labeled, progress))
        assert batch.unlabeled is not None
        weak, strong = batch.unlabeled.views["weak"], batch.unlabeled.views["strong"]
        labeled, targets = batch.labeled.joined()
        truth = Supervision.uniform(targets, progress)

        with torch.no_grad():
            seen = self.teacher.look(weak)
            found = seen.found
            for scorer in self.scorers:
                found = scorer(self.teacher, seen.features, found)
            selection = self.selector(found, SelectionContext(progress, targets))  # in the weak frame
            pseudo = carry(selection.supervision, weak, strong, self.minimum_visible)
        report = Report(found, selection, seen.features.view)
        weight = self.config.unlabeled_weight.at(progress)
        if weight == 0.0:
            return Step(learn_from_labels(self.student, batch.labeled, progress), report)

        stages_l, stages_u = predict_together(self.student, [labeled, strong], [truth, pseudo], self.joined)
        with torch.no_grad():
            plan_l = assign(self.student, stages_l, truth)
            plan_u = assign(self.student, stages_u, pseudo)
            for scorer in self.candidate_scorers:
                plan_u = scorer(self.teacher, seen, stages_u, plan_u)

        losses = loss(self.student, stages_l, plan_l, truth).named("labeled")
        extra = loss(self.student, stages_u, plan_u, pseudo, self.config.unlabeled_normalizers)
        extra = extra.scaled(self.config.unlabeled_terms).named("unlabeled")
        return Step(losses + extra * weight, report)

    def after_update(self, progress: Progress, ok: Tensor) -> None:
        """The teacher follows the student, and the selector keeps what it saw."""
        self.teacher.after_update(self.student, progress, ok)
        self.selector.after_update(progress, ok)

    def networks(self) -> Mapping[str, Detector]:
        """`student` and `teacher`."""
        return {"student": self.student, "teacher": self.teacher.network}

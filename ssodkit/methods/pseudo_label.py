"""Pseudo-label: a teacher labels weak views on the fly, and the student learns them in strong views.

The loss is L = L_labeled + lambda beta L_unlabeled, with `unlabeled_weight` as lambda and `background_factor` as beta;
`unlabeled_terms` weigh parts of the second, such as the box losses that Unbiased Teacher leaves out.

Source: Xu et al., Soft Teacher, ICCV 2021, arXiv:2106.09018, figure 2. Mean Teacher, Consistent-Teacher
(arXiv:2209.01589) and Unbiased Teacher (arXiv:2102.09480) fill the same step with other selectors, scorers and weights.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from pydantic import Field, ValidationError, model_validator
from torch import Tensor, nn

from ssodkit.assigners.selectors.base import SelectionContext, SelectorConfig
from ssodkit.consistency.base import Consistencies, Scene
from ssodkit.detectors.base import Detector
from ssodkit.detectors.fusion import fuse
from ssodkit.detectors.learning import assign, loss, predict_together
from ssodkit.detectors.rules import TermChange
from ssodkit.methods.base import Method, MethodConfig, build_student, learn_from_labels
from ssodkit.plugins import BuildContext, Config, Slot, mistake_at, register
from ssodkit.reliability.base import CandidateScorerConfig, InstanceScorerConfig
from ssodkit.schedules.base import LossWeight
from ssodkit.schedules.constant import ConstantConfig
from ssodkit.structures.geometry import SemiBatch, carry
from ssodkit.structures.progress import Progress
from ssodkit.structures.run import Losses, RareFactor, Report, Step
from ssodkit.structures.teaching import Supervision
from ssodkit.teachers.base import TeacherConfig


class BackgroundFactor(Config):
    """Unlabeled terms count less in steps that have hardly any pseudo-box: nearly all that they teach is background.

    Source: the released code of Consistent-Teacher (Adamdad/ConsistentTeacher); the paper does not mention it.
    """

    below: float = Field(0.5, gt=0.0, le=1.0)
    """It acts where less than this share of the global batch's unlabeled images has a pseudo-box in the strong view."""
    factor: float = Field(0.01, ge=0.0, le=1.0)
    """Of all unlabeled terms."""


class Ensemble(Config):
    """The teacher looks at several views of an unlabeled image, and its answers are fused to better ones than it has.

    Source: Radosavovic et al., Data Distillation, CVPR 2018, arXiv:1712.04440; how boxes are fused: `fuse`.
    """

    views: tuple[str, ...] = Field(min_length=1)
    """Beside `weak`: views of unlabeled images, such as mirrored ones, that show whole images: what is not found in
    one counts as 0 there."""
    iou: float = Field(0.6, gt=0.0, lt=1.0)
    """Boxes of a class in two views that overlap by more than this are one."""

    @model_validator(mode="after")
    def _views_are_further_ones(self) -> "Ensemble":
        for name in self.views:
            if name in ("weak", "strong") or self.views.count(name) > 1:
                raise ValueError(f"`views` are further ones, each once: leave out '{name}'")
        return self


@register
class PseudoLabelConfig(MethodConfig):
    """Which teacher labels, how far its answers are trusted, and how much they count."""

    type: Literal["pseudo_label"] = "pseudo_label"
    provides: ClassVar[frozenset[str]] = frozenset({"pseudo_boxes", "their_uncertainty"})
    about_labels: ClassVar[frozenset[str]] = frozenset({"labeled_terms"})
    scored_by: ClassVar[Mapping[str, str]] = {"agreement": "name further views in `method.ensemble`"}
    teacher: Slot[TeacherConfig]
    ensemble: Ensemble | None = None
    """Further views that the teacher looks at."""
    scorers: tuple[Slot[InstanceScorerConfig], ...] = ()
    """Each adds a score to the teacher's detections, in this order."""
    selector: Slot[SelectorConfig]
    candidate_scorers: tuple[Slot[CandidateScorerConfig], ...] = ()
    """Each weighs the student's candidates, in this order."""
    unlabeled_weight: LossWeight = ConstantConfig(value=1.0)
    """Multiplies all unlabeled terms: the papers' alpha or lambda."""
    unlabeled_terms: dict[str, TermChange] = Field(default_factory=dict)
    """What is different about unlabeled terms: by stage (`roi`), by term or what it teaches in all stages (`box`),
    or in one (`roi/box`). A number is a weight; weights are multiplied where several name a term, and of the rest the
    most particular counts. The printed class loss of Soft Teacher is {roi/class: {normalizer: two_means}}."""
    labeled_terms: dict[str, TermChange] = Field(default_factory=dict)
    """The same of labeled terms. Weights may be schedules: of Unbiased Teacher v2 {class: {weight: {type: step,
    before: 1.0, after: 0.25, at: 30000}}}."""
    background_factor: BackgroundFactor | None = None
    """A further factor of all unlabeled terms in steps with few pseudo-boxes: the papers' beta."""
    while_unweighted: Literal["skip", "look"] | None = None
    """Where the unlabeled weight is 0: load and compute nothing unlabeled (`skip`), or let teacher, scorers and
    selector run (`look`), so that the selector's state fills. Null: look if the selector has such state, like `gmm`."""

    @property
    def needs_views(self) -> Mapping[str, tuple[str, ...]]:
        """Of unlabeled images: `weak` for the teacher, with those of the ensemble, and `strong` for the student."""
        return {"unlabeled": ("weak", "strong", *(self.ensemble.views if self.ensemble else ()))}

    @property
    def average(self) -> TeacherConfig:
        """The teacher."""
        return self.teacher

    @property
    def looks(self) -> bool:
        """Whether the teacher labels, and the selector selects, while the unlabeled weight is 0."""
        return self.selector.learns if self.while_unweighted is None else self.while_unweighted == "look"

    def uses_unlabeled(self, progress: Progress) -> bool:
        """False where the unlabeled weight is 0 and nobody looks."""
        return self.looks or self.unlabeled_weight.at(progress) != 0.0

    def teaches_unlabeled(self, progress: Progress) -> bool:
        """False where the unlabeled weight is 0."""
        return self.unlabeled_weight.at(progress) != 0.0

    @property
    def advice(self) -> tuple[str, str]:
        """The selector's."""
        return self.selector.more_boxes, self.selector.fewer_boxes

    @property
    def scores(self) -> frozenset[str]:
        """The teacher's, and `agreement`, where it looks at several views."""
        return frozenset(self.teacher.scores) | ({"agreement"} if self.ensemble is not None else frozenset())

    @property
    def term_changes(self) -> Mapping[str, Mapping[str, TermChange]]:
        """Those of both streams."""
        return {"labeled_terms": self.labeled_terms, "unlabeled_terms": self.unlabeled_terms}

    @model_validator(mode="after")
    def _fused_answers_have_one_score(self) -> "PseudoLabelConfig":
        if self.ensemble is not None and self.teacher.scores:
            raise ValueError("`ensemble` fuses answers by their one confidence; leave it out, or `teacher.rankings`")
        return self

    @model_validator(mode="before")
    @classmethod
    def _normalizers_are_changes(cls, value: object) -> object:
        if not isinstance(value, Mapping) or "unlabeled_normalizers" not in value:
            return value
        given = value["unlabeled_normalizers"]  # of recipes before 0.2; runs of then have an empty one
        if given:
            text = "this is part of `unlabeled_terms` now: write {roi/class: {normalizer: two_means}} there"
            mistake = mistake_at(("unlabeled_normalizers",), text, given)
            raise ValidationError.from_exception_data(cls.__name__, [mistake])
        return {key: item for key, item in value.items() if key != "unlabeled_normalizers"}

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
        self.consistencies = Consistencies(config.consistencies, context)

    def step(self, batch: SemiBatch, progress: Progress) -> Step:
        """Losses of both streams, and what the teacher found and the selector chose."""
        if not self.config.uses_unlabeled(progress):
            return Step(self.consistencies(*self._learn_from_labels(batch, progress)))
        assert batch.unlabeled is not None
        weak, strong = batch.unlabeled.views["weak"], batch.unlabeled.views["strong"]
        labeled, targets = batch.labeled.joined()
        truth = Supervision.uniform(targets, progress)

        with torch.no_grad():
            seen = self.teacher.look(weak, progress)
            found = seen.found
            if self.config.ensemble is not None:
                others = [batch.unlabeled.views[name] for name in self.config.ensemble.views]
                carried = [carry(self.teacher.look(view, progress).found, view, weak) for view in others]
                found = fuse([found, *carried], self.config.ensemble.iou)
            for scorer in self.scorers:
                found = scorer(self.teacher, seen.features, found)
            selection = self.selector(found, SelectionContext(progress, targets))  # in the weak frame
            pseudo = carry(selection.supervision, weak, strong, self.minimum_visible)
        report = Report(found, selection, seen.features.view)
        weight = self.config.unlabeled_weight.at(progress)
        if weight == 0.0:
            return Step(self.consistencies(*self._learn_from_labels(batch, progress)), report)

        mine_l, mine_u = predict_together(self.student, [labeled, strong], [truth, pseudo], self.joined)
        with torch.no_grad():
            plan_l = assign(self.student, mine_l.stages, truth)
            plan_u = assign(self.student, mine_u.stages, pseudo)
            for scorer in self.candidate_scorers:
                plan_u = scorer(self.teacher, seen, mine_u.stages, plan_u, pseudo)

        losses = loss(self.student, mine_l.stages, plan_l, truth, self.config.labeled_terms).named("labeled")
        extra = loss(self.student, mine_u.stages, plan_u, pseudo, self.config.unlabeled_terms).named("unlabeled")
        if self.config.background_factor is not None:
            extra = extra.where_rare(rare_factor(pseudo, self.config.background_factor))
        seen = replace(seen, found=found)
        scene = Scene(self.student, batch, progress, mine_l, mine_u, plan_u, self.teacher, seen, selection.supervision)
        return Step(self.consistencies(losses + extra * weight, scene), report)

    def _learn_from_labels(self, batch: SemiBatch, progress: Progress) -> tuple[Losses, Scene]:
        return learn_from_labels(self.student, batch, progress, self.config.labeled_terms)

    def after_update(self, progress: Progress, ok: Tensor) -> None:
        """The teacher follows the student, and the selector keeps what it saw."""
        self.teacher.after_update(self.student, progress, ok)
        self.selector.after_update(progress, ok)
        self.consistencies.after_update(progress, ok)

    def networks(self) -> Mapping[str, Detector]:
        """`student` and `teacher`."""
        return {"student": self.student, "teacher": self.teacher.network}


def rare_factor(pseudo: Supervision, config: BackgroundFactor) -> RareFactor:
    """Counts this process's unlabeled images, and those with a box that teaches a class in the student's view."""
    taught = pseudo.classes.valid & (pseudo.classes.weight > 0)
    images = pseudo.classes.weight.new_full((), float(len(taught)))
    return RareFactor(taught.any(dim=1).sum().to(images.dtype), images, config.below, config.factor)

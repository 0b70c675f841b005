"""How the stages of a detector learn and what becomes of their answers, as data.

A stage is any part with candidates and answers about them. Its terms name the target set that teaches them.
"""

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_serializer, model_validator

from ssodkit.assigners.matchers.base import MatcherConfig
from ssodkit.detectors.criteria.base import CriterionConfig
from ssodkit.detectors.normalizers.base import NormalizerConfig
from ssodkit.plugins import Config, Slot, suggest
from ssodkit.schedules.base import LossWeight, StepNumber, to_step
from ssodkit.schedules.constant import ConstantConfig
from ssodkit.structures.progress import Progress


def _check_ranking(rank: dict[str, float]) -> dict[str, float]:
    if "class" not in rank:
        raise ValueError("a ranking needs a power of `class`, such as {class: 1.0}")
    return rank


def _check_proposal_count(value: object) -> object:
    is_count = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 1_000_000
    if not is_count and value not in ("training", "test"):
        raise ValueError("a count of proposals is `training`, `test`, or a number from 1 to 1,000,000")
    return value


Power = Annotated[float, Field(gt=0.0, le=100.0)]
Ranking = Annotated[dict[str, Power], AfterValidator(_check_ranking)]
"""Answer -> its power in the product that ranks detections."""
TermName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
ProposalCount = Annotated[
    Literal["training", "test"] | Annotated[int, Field(ge=1, le=1_000_000)], BeforeValidator(_check_proposal_count)
]
"""How many proposals go on, where a detector proposes: as its rule says for either, or at most so many of an image."""

R = TypeVar("R", bound="DetectionRule")


class Sampler(Config):
    """A random sample of a stage's candidates."""

    per_image: int = Field(ge=1, le=1_000_000)
    positive_share: float = Field(ge=0.0, le=1.0)
    """At most this share are positives; background fills the rest."""

    @property
    def positives(self) -> int:
        """The most positives per image, rounded down."""
        return int(self.per_image * self.positive_share)


TargetSet = Literal["objectness", "classes", "boxes"]
QualityUse = Literal["unused", "target", "weight"]


class TermChange(Config):
    """What is different about a term, for some images or from some step on; what is not given stays as it is.

    A number in its place is a weight.
    """

    criterion: Slot[CriterionConfig] | None = None
    quality: QualityUse | None = None
    normalizer: Slot[NormalizerConfig] | None = None
    floor: float | None = Field(None, ge=1e-6, le=1e6)
    weight: LossWeight = ConstantConfig(value=1.0)
    """A further factor of the term."""

    @model_validator(mode="before")
    @classmethod
    def _number_is_a_weight(cls, value: object) -> object:
        return {"weight": value} if isinstance(value, int | float) and not isinstance(value, bool) else value

    @model_serializer(mode="wrap")
    def _short(self, whole: Callable[[Any], Any]) -> Any:
        """The number where it is nothing but a weight, as recipes write it."""
        others = (self.criterion, self.quality, self.normalizer, self.floor)
        is_number = isinstance(self.weight, ConstantConfig) and all(other is None for other in others)
        return self.weight.at(Progress(0, 1)) if is_number else whole(self)


class TermRule(Config):
    """How one loss term of a stage learns."""

    taught_by: TargetSet
    criterion: Slot[CriterionConfig]
    quality: QualityUse = "unused"
    """A positive's target is hard, or its matcher's quality, which only classes can have; or the quality weights it."""
    normalizer: Slot[NormalizerConfig]
    floor: float = Field(1.0, ge=1e-6, le=1e6)
    """The denominator, summed over processes, never falls below it."""
    weight: float = Field(1.0, ge=0.0, le=1000.0)

    @model_validator(mode="after")
    def _only_soft_targets_have_a_quality(self) -> "TermRule":
        if self.misfit is not None:
            raise ValueError(self.misfit)
        return self

    @property
    def misfit(self) -> str | None:
        """A sentence that says which of these cannot be together; None if they can."""
        if self.quality == "target" and not self.criterion.takes_soft_targets:
            return f"`quality: target` has no effect on '{self.criterion.type}'; take `weight`, or leave it out"
        return None

    def changed(self, change: TermChange) -> "TermRule":
        """The same rule with what `change` gives; its weight, which is a schedule, is left to the caller."""
        given = {name: getattr(change, name) for name in ("criterion", "quality", "normalizer", "floor")}
        return self.model_copy(update={name: value for name, value in given.items() if value is not None})

    def misfit_of(self, change: TermChange) -> str | None:
        """A sentence that says why the rule cannot be changed so; None if it can."""
        if change.criterion is not None and change.criterion.teaches != self.criterion.teaches:
            theirs, ours = change.criterion.teaches, self.criterion.teaches
            return f"'{change.criterion.type}' teaches the answer '{theirs}', but this term '{ours}'"
        return self.changed(change).misfit


class Phase(Config):
    """What is different about a stage from a step of the run on."""

    at: StepNumber
    matcher: Slot[MatcherConfig] | None = None
    terms: dict[TermName, TermChange] = Field(default_factory=dict)


class StageRule(Config):
    """How one stage learns."""

    matcher: Slot[MatcherConfig] | None
    """Null where the stage itself knows what its candidates learn from, as queries made from targets do."""
    sampler: Sampler | None = None
    one_class: bool = False
    """The stage knows one class: all targets are class 0."""
    crossing: Literal["learn", "ignore"] = "learn"
    """What candidates do that reach beyond their image: learn like others, or nothing at all."""
    terms: dict[TermName, TermRule]
    """By any name. Null takes away a term that a base has set."""
    phases: tuple[Phase, ...] = ()
    """Changes of matcher and terms, laid one upon the other."""

    @property
    def key_needs(self) -> Mapping[str, str]:
        """Only what lies on cells may reach beyond its image before matching; only without classes are all one."""
        crossing = {"crossing": "strides"} if self.crossing == "ignore" else {}
        return crossing | ({"one_class": "no_classes"} if self.one_class else {})

    @field_validator("terms", mode="before")
    @classmethod
    def _null_is_no_term(cls, terms: object) -> object:
        return {name: term for name, term in terms.items() if term is not None} if isinstance(terms, dict) else terms

    @model_validator(mode="after")
    def _phases_fit(self) -> "StageRule":
        rule = self
        for phase in self.phases:
            for name, change in phase.terms.items():
                if name not in self.terms:
                    raise ValueError(
                        f"a phase changes the term '{name}', and there is none; {suggest(name, self.terms)}"
                    )
                if text := rule.terms[name].misfit_of(change):
                    raise ValueError(f"a phase cannot change the term '{name}' so: {text}")
            rule = rule._in(phase)
        return self

    @property
    def matchers(self) -> Mapping[str, MatcherConfig]:
        """Its matcher, named "", and those of its phases, named `@0` by their places."""
        all_of = {"": self.matcher} | {f"@{place}": phase.matcher for place, phase in enumerate(self.phases)}
        return {name: matcher for name, matcher in all_of.items() if matcher is not None}

    @property
    def normalizers(self) -> tuple[NormalizerConfig, ...]:
        """Those of its terms, and those that its phases give them."""
        later = [change.normalizer for phase in self.phases for change in phase.terms.values()]
        return (*(term.normalizer for term in self.terms.values()), *(one for one in later if one is not None))

    def begun(self, progress: Progress) -> tuple[int, ...]:
        """Places of the phases that have begun before this step."""
        return tuple(i for i, phase in enumerate(self.phases) if to_step(phase.at, progress.steps) <= progress.step)

    def at(self, progress: Progress) -> "StageRule":
        """The rule of this step, all changes laid on it but for the weights, which are schedules."""
        rule = self
        for place in self.begun(progress):
            rule = rule._in(self.phases[place])
        return rule

    def weight(self, term: str, progress: Progress) -> float:
        """What the term counts in this step: its weight times those of the phases that have begun."""
        changes = [self.phases[place].terms.get(term) for place in self.begun(progress)]
        return math.prod((c.weight.at(progress) for c in changes if c is not None), start=self.terms[term].weight)

    def _in(self, phase: Phase) -> "StageRule":
        terms = {name: rule.changed(phase.terms.get(name, TermChange())) for name, rule in self.terms.items()}
        return self.model_copy(update={"matcher": phase.matcher or self.matcher, "terms": terms})


def changes_of(changes: Mapping[str, TermChange], stage: str, term: str, answer: str) -> list[TermChange]:
    """Those whose key names the stage (`roi`), what the term teaches (`box`) or the term (`l1`) in every stage, or
    either in this one (`roi/box`), in this order: weights are multiplied, and of the rest the later counts."""
    keys = (stage, answer, term, f"{stage}/{answer}", f"{stage}/{term}")
    return [changes[key] for key in dict.fromkeys(keys) if key in changes]


class DetectionRule(Config):
    """What becomes of the last stage's answers at test time, and in a teacher."""

    score: float = Field(0.05, ge=0.0, le=1.0)
    """Detections need a score above this."""
    nms: float | None = Field(0.5, gt=0.0, le=1.0)
    """Detections of a class that overlap a better one by more than this are dropped. Null: none, where each object is
    found by one candidate alone."""
    nms_until: StepNumber = "never"
    """The first step of the run from which on none are dropped: where a phase then lets one candidate alone find each
    object. A checkpoint is tested by the rule of its own step."""
    rank: Ranking = Field(default_factory=lambda: {"class": 1.0})
    """Answer -> its power in the product that ranks detections and is their confidence, such as {class: 1.0,
    quality: 1.0}. `certainty` is what the answer `uncertainty` leaves to 1, the mean over the sides."""
    score_of: Literal["class", "rank"] = "class"
    """What must be above `score`: the class's probability alone (FCOS), or that product (torchvision's FCOS)."""
    at_most: int = Field(100, ge=1)
    """Detections per image."""
    minimum_side: float = Field(0.0, ge=0.0)
    """Pixels; both sides of a detection are longer than this."""

    @model_validator(mode="after")
    def _what_ends_has_begun(self) -> "DetectionRule":
        if self.nms is None and self.nms_until != "never":
            raise ValueError("`nms_until` has no effect without `nms`; give the latter a number, or leave both out")
        return self

    def at(self: R, progress: Progress | None, nms: float | None = None) -> R:
        """The rule of networks that are so far, which changes no more, or with this suppression instead of its own.

        Without `progress` it is as it stands.
        """
        if nms is None and progress is not None and to_step(self.nms_until, progress.steps) > progress.step:
            nms = self.nms
        elif nms is None and progress is None:
            return self
        return self.model_copy(update={"nms": nms, "nms_until": "never"})


class DenseDetectionRule(DetectionRule):
    """The same for a dense stage, whose answers are too many to compare all."""

    per_level: int = Field(1000, ge=1)
    """Pairs of candidate and class that go on, the best of each pyramid level."""
    clip: bool = True
    """Whether boxes are clipped to the image."""

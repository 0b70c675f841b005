"""Plug-ins as a user would write them beside a recipe: nothing but what the recipe check reads."""

from typing import ClassVar, Literal

from pydantic import Field

from ssodkit.assigners.matchers.base import Matcher, MatcherConfig
from ssodkit.assigners.selectors.base import Selector, SelectorConfig, SetRule
from ssodkit.detectors.backbones.base import Backbone, BackboneConfig
from ssodkit.detectors.base import Detector, DetectorConfig
from ssodkit.methods.base import Method, MethodConfig
from ssodkit.plugins import BuildContext, Slot, register
from ssodkit.reliability.base import Asks, InstanceScorer, InstanceScorerConfig
from ssodkit.schedules.base import ScheduleConfig, StepNumber
from ssodkit.structures.progress import Progress


@register
class ToyScheduleConfig(ScheduleConfig):
    """A number with drops."""

    type: Literal["toy_drops"] = "toy_drops"

    value: float = Field(gt=0.0)
    warmup: StepNumber = 0
    drops: tuple[StepNumber, ...] = ()

    def at(self, progress: Progress) -> float:
        return self.value

    @property
    def span(self) -> tuple[float, float]:
        return self.value, self.value


@register
class ToyMatcherConfig(MatcherConfig):
    """Reads more than candidates."""

    type: Literal["toy_adaptive"] = "toy_adaptive"
    needs: ClassVar[frozenset[str]] = frozenset({"predictions"})

    def build(self, context: BuildContext) -> Matcher:
        raise NotImplementedError


@register
class ToyPlainMatcherConfig(MatcherConfig):
    """Reads candidates alone."""

    type: Literal["toy_plain"] = "toy_plain"

    positive: float = Field(0.5, ge=0.0, le=1.0)

    def build(self, context: BuildContext) -> Matcher:
        raise NotImplementedError


@register
class ToyBackboneConfig(BackboneConfig):
    """May be frozen."""

    type: Literal["toy_backbone"] = "toy_backbone"

    weights: str | None = None
    frozen_stages: int = Field(0, ge=0)

    @property
    def levels(self) -> int:
        return 1

    @property
    def coarsest(self) -> int:
        return 8

    @property
    def is_pretrained(self) -> bool:
        return self.weights is not None

    @property
    def freezes(self) -> bool:
        return self.frozen_stages > 0

    def build(self, context: BuildContext) -> Backbone:
        raise NotImplementedError


class _ToyDetectorConfig(DetectorConfig):
    backbone: Slot[BackboneConfig] = ToyBackboneConfig()

    @property
    def stage_answers(self) -> dict[str, frozenset[str]]:
        return dict.fromkeys(("rpn", "roi"), frozenset({"class", "box"}))

    @property
    def stage_provides(self) -> dict[str, frozenset[str]]:
        return {
            "rpn": frozenset({"predictions", "places", "strides", "sigmoid"}),
            "roi": frozenset({"places", "softmax"}),
        }

    def build(self, context: BuildContext) -> Detector:
        raise NotImplementedError


@register
class ToyTwoStageConfig(_ToyDetectorConfig):
    """Answers for any box exactly."""

    type: Literal["toy_two_stage"] = "toy_two_stage"
    provides: ClassVar[frozenset[str]] = frozenset({"exact_regions"})


@register
class ToyDenseConfig(_ToyDetectorConfig):
    """Answers for the nearest anchor."""

    type: Literal["toy_dense"] = "toy_dense"


@register
class ToySelectorConfig(SelectorConfig):
    """One rule."""

    type: Literal["toy_selector"] = "toy_selector"

    boxes: SetRule = SetRule(score="confidence", above=0.5)

    @property
    def reads(self) -> frozenset[str]:
        return frozenset({self.boxes.score})

    def build(self, context: BuildContext) -> Selector:
        raise NotImplementedError


class _ToyScorerConfig(InstanceScorerConfig):
    asks: Asks = Asks()

    @property
    def reads(self) -> frozenset[str]:
        return frozenset({self.asks.score})

    def build(self, context: BuildContext) -> InstanceScorer:
        raise NotImplementedError


@register
class ToyJitterConfig(_ToyScorerConfig):
    """Asks about boxes of its own."""

    type: Literal["toy_jitter"] = "toy_jitter"
    needs: ClassVar[frozenset[str]] = frozenset({"exact_regions"})
    writes: ClassVar[str] = "toy_jitter"

    draws: int = Field(10, ge=2)


@register
class ToySureConfig(_ToyScorerConfig):
    """Asks about the detections themselves."""

    type: Literal["toy_sure"] = "toy_sure"
    writes: ClassVar[str] = "toy_sure"


@register
class ToyMethodConfig(MethodConfig):
    """Weak and strong views, scorers and a selector."""

    type: Literal["toy_method"] = "toy_method"

    @property
    def needs_views(self) -> dict[str, tuple[str, ...]]:
        return {"unlabeled": ("weak", "strong")}

    unlabeled_weight: Slot[ScheduleConfig] = 1.0  # type: ignore[assignment]
    scorers: tuple[Slot[InstanceScorerConfig], ...] = ()
    selector: Slot[SelectorConfig] = ToySelectorConfig()

    def build(self, context: BuildContext) -> Method:
        raise NotImplementedError


@register
class ToyBaselineConfig(MethodConfig):
    """Labels alone."""

    type: Literal["toy_baseline"] = "toy_baseline"

    def build(self, context: BuildContext) -> Method:
        raise NotImplementedError

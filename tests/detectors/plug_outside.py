"""A criterion, a normalizer, a matcher and a detector as somebody else would write them, beside a recipe."""

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ssodkit.assigners.matchers.base import Matcher, MatcherConfig
from ssodkit.detectors.criteria.base import CriterionConfig
from ssodkit.detectors.fcos import FcosConfig
from ssodkit.detectors.heads.base import DenseHeadConfig
from ssodkit.detectors.heads.distances import Distances, DistancesConfig
from ssodkit.detectors.normalizers.base import NormalizerConfig, Parts
from ssodkit.nn.towers import DenseShape
from ssodkit.ops.boxes import at_least_fp32, elementwise_iou
from ssodkit.ops.losses import sigmoid_cross_entropy
from ssodkit.ops.matching import best_overlaps
from ssodkit.plugins import BuildContext, Slot, register
from ssodkit.structures.lessons import Lesson
from ssodkit.structures.predictions import Candidates, Predictions
from ssodkit.structures.progress import Progress
from ssodkit.structures.teaching import Assignment, Targets


class SureHead(Distances):
    """One more answer: how sure a point is."""

    def forward(self, maps: list[Tensor], anchors: Candidates):
        said = super().forward(maps, anchors)
        return type(said)(said.logits, said.codes, {"sure": said.extra["quality"]})


@register
class SureHeadConfig(DistancesConfig):
    """The built-in head with another name for its third answer."""

    type: Literal["outside_head"] = "outside_head"

    @property
    def answers(self) -> frozenset[str]:
        return frozenset({"class", "box", "sure"})

    def build(self, shape: DenseShape) -> SureHead:
        return SureHead(self, shape)


@register
class OutsideDetectorConfig(FcosConfig):
    """A detector with an answer that nobody foresaw, and one more thing that parts may build on."""

    type: Literal["outside_detector"] = "outside_detector"
    head: Slot[DenseHeadConfig] = SureHeadConfig(groups=2)

    @property
    def stage_provides(self) -> Mapping[str, frozenset[str]]:
        return {"dense": super().stage_provides["dense"] | {"surety"}}


@register
class OutsideCriterionConfig(CriterionConfig):
    """Sure is what overlaps its target."""

    type: Literal["outside_criterion"] = "outside_criterion"
    needs: ClassVar[frozenset[str]] = frozenset({"box", "surety"})
    teaches: ClassVar[str] = "sure"

    def __call__(self, answers: Predictions, lesson: Lesson, strength: Tensor) -> Tensor:
        wanted = elementwise_iou(answers.decode(lesson.labels), lesson.boxes).detach()
        return sigmoid_cross_entropy(answers.extra["sure"], wanted)


@register
class OutsideNormalizerConfig(NormalizerConfig):
    """Divided by the images."""

    type: Literal["outside_images"] = "outside_images"

    def __call__(self, losses: Tensor, weights: Tensor, lesson: Lesson, answers: Predictions, quota: int) -> Parts:
        return {"": ((losses * weights).sum(), losses.new_full((), float(len(losses))))}


@register
class OutsideMatcherConfig(MatcherConfig):
    """Whatever touches a target learns from it."""

    type: Literal["outside_touching"] = "outside_touching"
    needs: ClassVar[frozenset[str]] = frozenset({"places"})

    def build(self, context: BuildContext) -> "Touching":
        return Touching()


class Touching(Matcher):
    """Quality is the IoU."""

    @torch.no_grad()
    def forward(self, predictions: Predictions, targets: Targets, progress: Progress) -> Assignment:
        candidates = predictions.candidates
        found = best_overlaps(at_least_fp32(candidates.boxes), candidates.valid, targets.boxes, targets.valid)
        return Assignment.matched(torch.where(found.iou > 0.0, found.target, -1), found.iou, candidates.valid)

"""Soft Teacher's selector: each target set has a score and a threshold of its own.

Source: Xu et al., Soft Teacher, ICCV 2021, arXiv:2106.09018, section 3: sure boxes teach what is there (score > 0.9),
steady boxes teach where it is (box-jitter variance < 0.02), and a box may do one without the other.
"""

from typing import ClassVar, Literal

from ssodkit.assigners.selectors.base import SelectionContext, Selector, SelectorConfig, SetRule
from ssodkit.assigners.selectors.shortlist import shortlist
from ssodkit.assigners.selectors.target_sets import is_ignored, passes, targets_of
from ssodkit.plugins import BuildContext, register
from ssodkit.structures.predictions import Detections
from ssodkit.structures.run import Selection
from ssodkit.structures.teaching import Supervision, Targets


@register
class SoftTeacherSelectorConfig(SelectorConfig):
    """Three rules, one per target set. Sets with equal rules are one set."""

    type: Literal["soft_teacher"] = "soft_teacher"
    more_boxes: ClassVar[str] = "lower `method.selector.classes.above`"
    fewer_boxes: ClassVar[str] = "raise `method.selector.classes.above`"

    objectness: SetRule = SetRule(score="confidence", above=0.9)
    classes: SetRule = SetRule(score="confidence", above=0.9)
    boxes: SetRule = SetRule(score="box_jitter", below=0.02)

    @property
    def reads(self) -> frozenset[str]:
        """The scores of the three rules."""
        return frozenset(rule.score for rule in (self.objectness, self.classes, self.boxes))

    def build(self, context: BuildContext) -> "SoftTeacherSelector":
        return SoftTeacherSelector(self)


class SoftTeacherSelector(Selector):
    """Has no state: thresholds are fixed."""

    def __init__(self, config: SoftTeacherSelectorConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, found: Detections, context: SelectionContext) -> Selection:
        """Every set holds the rows of `found`; `passed` names the shortlist's filters, then the sets."""
        listed, passed = shortlist(found, self.config)
        sets: dict[SetRule, Targets] = {}
        for name in ("objectness", "classes", "boxes"):
            rule: SetRule = getattr(self.config, name)
            score = found.scores[rule.score]
            passed[name] = listed & passes(score, rule)
            if rule not in sets:
                sets[rule] = targets_of(found, passed[name], is_ignored(score, rule, listed))
        supervision = Supervision(
            objectness=sets[self.config.objectness],
            classes=sets[self.config.classes],
            boxes=sets[self.config.boxes],
            progress=context.progress,
        )
        return Selection(supervision, passed)

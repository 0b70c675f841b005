"""One threshold for everything: what passes it teaches objectness, classes and boxes alike.

Source: Liu et al., Unbiased Teacher, ICLR 2021, arXiv:2102.09480 (0.7); the Mean Teacher baseline of Wang et al.,
Consistent-Teacher, CVPR 2023, arXiv:2209.01589 (0.5).
"""

from typing import ClassVar, Literal

from ssodkit.assigners.selectors.base import SelectionContext, Selector, SelectorConfig, SetRule
from ssodkit.assigners.selectors.shortlist import shortlist
from ssodkit.assigners.selectors.target_sets import is_ignored, passes, targets_of
from ssodkit.plugins import BuildContext, register
from ssodkit.structures.predictions import Detections
from ssodkit.structures.run import Selection
from ssodkit.structures.teaching import Supervision


@register
class FixedSelectorConfig(SelectorConfig, SetRule):
    """One rule for all three target sets, such as {type: fixed, above: 0.7}."""

    type: Literal["fixed"] = "fixed"
    more_boxes: ClassVar[str] = "lower `method.selector.above`"
    fewer_boxes: ClassVar[str] = "raise `method.selector.above`"

    score: str = "confidence"
    """A score that detections carry: `confidence`, or what an instance scorer of the recipe writes."""

    @property
    def reads(self) -> frozenset[str]:
        """The rule's score."""
        return frozenset({self.score})

    def build(self, context: BuildContext) -> "FixedSelector":
        return FixedSelector(self)


class FixedSelector(Selector):
    """Has no state: the threshold is fixed."""

    def __init__(self, config: FixedSelectorConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, found: Detections, context: SelectionContext) -> Selection:
        """One target set, thrice; `passed` names the shortlist's filters, then `threshold`."""
        listed, passed = shortlist(found, self.config)
        score = found.scores[self.config.score]
        passed["threshold"] = listed & passes(score, self.config)
        targets = targets_of(found, passed["threshold"], is_ignored(score, self.config, listed))
        return Selection(Supervision.uniform(targets, context.progress), passed)

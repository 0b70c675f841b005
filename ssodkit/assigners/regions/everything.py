"""Everything: all candidates learn.

Source: Tang et al., Humble Teacher, CVPR 2021, arXiv:2106.10456, of its proposals.
"""

from typing import Literal

from ssodkit.assigners.regions.base import RegionConfig, assignment_of, best_class_probs
from ssodkit.plugins import register
from ssodkit.structures.predictions import Predictions
from ssodkit.structures.teaching import Assignment


@register
class EverythingConfig(RegionConfig):
    """All valid candidates."""

    type: Literal["everything"] = "everything"

    def __call__(self, theirs: Predictions) -> Assignment:
        return assignment_of(theirs.candidates.valid, theirs.candidates, best_class_probs(theirs))

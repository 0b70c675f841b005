"""What folds say together: mean, spread, and how far two methods lie apart on the same folds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

CONFIDENCE = 0.95
FEW = 5
"""Below so many pairs an interval is wide, whatever the methods do: the factor on its error is 4.3 at three, 2.8 at
five."""


@dataclass(frozen=True)
class Difference:
    """The mean of differences within pairs, and its confidence interval."""

    mean: float
    half_width: float | None
    """Of the interval around the mean; None where one pair says nothing of the spread."""
    pairs: int

    @property
    def interval(self) -> tuple[float, float] | None:
        """Its lower and its upper end."""
        return None if self.half_width is None else (self.mean - self.half_width, self.mean + self.half_width)

    @property
    def is_wide(self) -> bool:
        """Whether there is an interval, from few pairs."""
        return self.half_width is not None and self.pairs < FEW


def mean(values: Sequence[float]) -> float | None:
    """None of nothing."""
    return fmean(values) if values else None


def sample_deviation(values: Sequence[float]) -> float | None:
    """The square root of the sum of squares over n - 1; None below two values."""
    return stdev(values) if len(values) > 1 else None


def paired_difference(values: Sequence[float], baseline: Sequence[float]) -> Difference | None:
    """How far `values` lie above `baseline`, pair by pair; None where there is no pair.

    The interval is Student's: the standard error of the mean difference times the t quantile of n - 1 degrees of
    freedom. Raises ValueError where the lengths differ.

    Source: Student, The probable error of a mean, Biometrika 1908.
    """
    differences = [value - base for value, base in zip(values, baseline, strict=True)]
    center, deviation = mean(differences), sample_deviation(differences)
    if center is None:
        return None
    if deviation is None:
        return Difference(center, None, len(differences))
    error = deviation / math.sqrt(len(differences))
    return Difference(center, _t_quantile(len(differences) - 1) * error, len(differences))


def _t_quantile(degrees_of_freedom: int) -> float:
    """So many standard errors reach from the middle of an interval to its ends."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees_of_freedom, (1.0 + CONFIDENCE) / 2.0))

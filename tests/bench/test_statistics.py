"""Means, spreads and paired intervals, compared with SciPy's and with numbers done by hand."""

import pytest
from scipy import stats

from ssodkit.bench.statistics import Difference, mean, paired_difference, sample_deviation

SUPERVISED = [40.1, 42.4, 38.1, 41.0, 39.3, 40.8]
TAUGHT = [55.4, 55.4, 52.2, 51.7, 55.0, 53.9]


def test_mean__of_nothing_is_none():
    assert mean([]) is None
    assert mean([3.0]) == 3.0
    assert mean([1.0, 2.0, 6.0]) == 3.0


def test_sample_deviation__divides_by_n_less_one():
    assert sample_deviation([2.0, 4.0, 4.0, 6.0]) == pytest.approx((8 / 3) ** 0.5)
    assert sample_deviation([4.0, 4.0]) == 0.0


@pytest.mark.parametrize("values", [[], [4.0]])
def test_sample_deviation__of_fewer_than_two_is_none(values: list[float]):
    assert sample_deviation(values) is None


@pytest.mark.parametrize("pairs", [2, 3, 4, 5, 6])
def test_paired_difference__equals_scipys_paired_t_test(pairs: int):
    ours = paired_difference(TAUGHT[:pairs], SUPERVISED[:pairs])
    theirs = stats.ttest_rel(TAUGHT[:pairs], SUPERVISED[:pairs]).confidence_interval(0.95)
    assert ours is not None
    assert ours.interval == pytest.approx((theirs.low, theirs.high), rel=1e-9)
    assert ours.mean == pytest.approx((theirs.low + theirs.high) / 2)
    assert ours.pairs == pairs


def test_paired_difference__two_pairs_by_hand():
    difference = paired_difference([3.0, 5.0], [1.0, 1.0])  # 2 and 4: 3, give or take 12.706 times 1
    assert difference is not None
    assert difference.interval == pytest.approx((3.0 - 12.7062, 3.0 + 12.7062), abs=1e-4)


def test_paired_difference__no_pair_has_none_and_one_pair_no_interval():
    assert paired_difference([], []) is None
    one = paired_difference([3.0], [1.0])
    assert one == Difference(2.0, None, 1)
    assert one.interval is None
    assert not one.is_wide


@pytest.mark.parametrize(("pairs", "is_wide"), [(2, True), (4, True), (5, False), (6, False)])
def test_paired_difference__below_five_pairs_it_is_wide(pairs: int, is_wide: bool):
    difference = paired_difference(TAUGHT[:pairs], SUPERVISED[:pairs])
    assert difference is not None
    assert difference.is_wide == is_wide


def test_paired_difference__equal_folds_have_no_width():
    difference = paired_difference([2.0, 3.0], [1.0, 2.0])
    assert difference is not None
    assert difference.interval == (1.0, 1.0)


def test_paired_difference__unpaired_values_are_refused():
    with pytest.raises(ValueError, match="argument"):
        paired_difference([1.0, 2.0], [1.0])

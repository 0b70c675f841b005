import warnings
from collections import Counter

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture

from ssodkit.ops.mixture import COST_FLOOR, fit_mixtures, low_center, mixture_thresholds

SPREAD = [0.06, 0.07, 0.08, 0.09, 0.10, 0.12, 0.15, 0.18, 0.55, 0.62, 0.70, 0.74, 0.78, 0.81, 0.85, 0.90]
OUTLIER = [0.05, 0.05, 0.05, 0.05, 0.95]
EQUAL = [0.5] * 5
FOUR = [0.1, 0.12, 0.88, 0.9]
SKEWED = [0.3, 0.5, 0.7, 0.72, 0.74, 0.75, 0.76, 0.77, 0.8, 0.9]


def padded(rows):
    """Rows of unequal lengths: scores, and which are valid; the padding would spoil any fit that saw it."""
    length = max(map(len, rows))
    scores = torch.full((len(rows), length), 7.0, dtype=torch.float64)
    valid = torch.zeros(len(rows), length, dtype=torch.bool)
    for row, values in enumerate(rows):
        scores[row, : len(values)] = torch.as_tensor(values, dtype=torch.float64)
        valid[row, : len(values)] = True
    return scores, valid


def fit(values, **options):
    return fit_mixtures(*padded([values]), **options)


def threshold(values, policy="high"):
    (found,), (failed,) = mixture_thresholds(*padded([values]), policy)
    assert not failed
    return found.item()


def scikit_learns(values, **options):
    """Its mixture of one row, fitted."""
    column = np.asarray(values)[:, None]
    mixture = GaussianMixture(
        2,
        weights_init=[0.5, 0.5],
        means_init=[[column.min()], [column.max()]],
        precisions_init=[[[1.0]], [[1.0]]],
        **options,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says where it stopped before it had converged
        return mixture.fit(column)


def oracle(values):
    """The thresholds of one row by scikit-learn's mixture."""
    column, mixture = np.asarray(values)[:, None], scikit_learns(values)
    made = mixture.predict(column) == 1
    if not made.any():
        return {"high": 0.0, "middle": 0.0}
    likelihood = np.where(made, mixture.score_samples(column), -np.inf)
    return {"high": column[likelihood.argmax(), 0], "middle": column[made].min()}


def random_rows(count):
    """Queues of 4 to 100 scores between 0.05 and 1, by kind."""
    kinds = ("uniform", "skewed", "two groups", "low", "equal", "two values", "four samples", "far outlier", "narrow")
    for seed in range(count):
        random = np.random.RandomState(seed)
        kind, length = kinds[seed % len(kinds)], random.randint(4, 101)
        low = random.randint(1, length)
        groups = np.concatenate([random.normal(0.15, 0.07, low), random.normal(0.7, 0.12, length - low)])
        values = {
            "uniform": random.uniform(0.05, 1.0, length).round(2),  # with many ties
            "skewed": 0.05 + 0.95 * random.beta(random.uniform(0.5, 3.0), random.uniform(0.5, 3.0), length),
            "two groups": random.permutation(groups).clip(0.05, 1.0),
            "low": 0.05 + random.exponential(0.03, length),
            "equal": np.full(length, random.uniform(0.05, 1.0)),
            "two values": random.choice(random.uniform(0.05, 1.0, 2), length),
            "four samples": random.uniform(0.05, 1.0, 4),
            "far outlier": np.append(random.normal(0.08, 0.01, length - 1), random.uniform(0.8, 1.0)),
            "narrow": 0.5 + 10.0 ** random.uniform(-4.0, -1.0) * random.rand(length),
        }
        yield kind, values[kind]


def test_mixture_thresholds__are_scikit_learns_on_1000_random_queues():
    kinds, rows = zip(*random_rows(1000), strict=True)
    assert min(Counter(kinds).values()) > 100
    found = {policy: mixture_thresholds(*padded(rows), policy) for policy in ("high", "middle")}
    for place, values in enumerate(rows):
        expected = oracle(values)
        for policy, (thresholds, failed) in found.items():
            assert thresholds[place].item() == pytest.approx(expected[policy], abs=1e-6), (kinds[place], place, policy)
            assert not failed[place]


def test_mixture_thresholds__where_scores_differ_by_less_than_1e_6_scikit_learn_has_no_answer_to_compare_with():
    """Its components then differ by rounding alone, so that the same scores in another order get another threshold."""
    changed = 0
    for seed in range(100):
        random = np.random.RandomState(seed)
        values = random.uniform(0.1, 0.8) + 3e-7 * random.rand(random.randint(4, 60))
        changed += abs(oracle(values)["middle"] - oracle(random.permutation(values))["middle"]) > 1e-6
        assert threshold(values.tolist(), "middle") in (0.0, *values)
    assert changed > 0


def test_fit_mixtures__of_two_groups_stops_long_before_it_has_converged():
    mixture = fit(SPREAD)
    assert mixture.iterations.tolist() == [3]
    assert mixture.means[0].tolist() == pytest.approx([0.379005, 0.473098], abs=1e-6)
    assert mixture.variances[0].sqrt().tolist() == pytest.approx([0.322494, 0.329239], abs=1e-6)
    assert mixture.weights[0].tolist() == pytest.approx([0.511172, 0.488828], abs=1e-6)
    joint = mixture.log_joint(torch.tensor([SPREAD]))[0]
    assert (joint[1] > joint[0]).tolist() == [False] * 8 + [True] * 8
    assert joint.logsumexp(dim=0)[8].item() == pytest.approx(0.118495, abs=1e-6)
    assert joint.logsumexp(dim=0)[8:].argmax() == 0
    assert (threshold(SPREAD), threshold(SPREAD, "middle")) == (0.55, 0.55)


def test_fit_mixtures__converged_would_give_another_threshold():
    mixture = fit(SPREAD, tolerance=1e-9)
    assert mixture.iterations.tolist() == [40]
    assert mixture.means[0].tolist() == pytest.approx([0.106250, 0.743750], abs=1e-6)
    assert mixture.variances[0].sqrt().tolist() == pytest.approx([0.038723, 0.109657], abs=1e-6)
    joint = mixture.log_joint(torch.tensor([SPREAD]))[0]
    likelihood = joint.logsumexp(dim=0).masked_fill(joint[1] <= joint[0], -torch.inf)
    assert SPREAD[likelihood.argmax()] == 0.74


def test_fit_mixtures__one_that_does_not_converge_has_the_parameters_of_its_last_iteration():
    mixture, theirs = fit(SKEWED, tolerance=1e-12, iterations=7), scikit_learns(SKEWED, tol=1e-12, max_iter=7)
    assert not theirs.converged_
    assert mixture.iterations.tolist() == [theirs.n_iter_] == [7]
    assert mixture.means[0].tolist() == pytest.approx(theirs.means_[:, 0].tolist(), abs=1e-9)
    assert mixture.variances[0].tolist() == pytest.approx(theirs.covariances_[:, 0, 0].tolist(), abs=1e-9)
    assert mixture.weights[0].tolist() == pytest.approx(theirs.weights_.tolist(), abs=1e-9)


def test_fit_mixtures__one_far_outlier_is_a_component():
    mixture = fit(OUTLIER)
    assert mixture.iterations.tolist() == [8]
    assert mixture.means[0].tolist() == pytest.approx([0.05, 0.95], abs=1e-6)
    assert mixture.variances[0].sqrt().tolist() == pytest.approx([0.001, 0.001], abs=1e-6)
    assert mixture.weights[0].tolist() == pytest.approx([0.8, 0.2], abs=1e-6)
    assert threshold(OUTLIER) == 0.95


def test_fit_mixtures__of_four_samples():
    mixture = fit(FOUR)
    assert mixture.means[0].tolist() == pytest.approx([0.437629, 0.562371], abs=1e-6)
    assert mixture.variances[0].sqrt().tolist() == pytest.approx([0.385111, 0.385111], abs=1e-6)
    assert threshold(FOUR) == 0.88


def test_mixture_thresholds__high_is_the_likeliest_and_middle_the_lowest_of_the_upper_component():
    mixture = fit(SKEWED)
    assert mixture.iterations.tolist() == [12]
    assert mixture.means[0].tolist() == pytest.approx([0.602654, 0.748811], abs=1e-6)
    assert mixture.variances[0].sqrt().tolist() == pytest.approx([0.235070, 0.029275], abs=1e-6)
    assert mixture.weights[0].tolist() == pytest.approx([0.375014, 0.624986], abs=1e-6)
    joint = mixture.log_joint(torch.tensor([SKEWED]))[0]
    assert (joint[1] > joint[0]).tolist() == [False] * 2 + [True] * 7 + [False]
    assert joint.logsumexp(dim=0)[5].item() == pytest.approx(2.200865, abs=1e-6)
    assert (threshold(SKEWED), threshold(SKEWED, "middle")) == (0.75, 0.70)


@pytest.mark.parametrize("values", [EQUAL, [0.5] * 100, [0.1, 0.2, 0.9], [0.3], [0.1 + 0.2] * 7])
def test_mixture_thresholds__equal_scores_and_fewer_than_four_have_the_default(values):
    thresholds, failed = mixture_thresholds(*padded([values, SPREAD]), default=0.25)
    assert thresholds.tolist() == [0.25, 0.55]
    assert not failed.any()


def test_mixture_thresholds__min_samples_says_what_is_few():
    assert mixture_thresholds(*padded([[0.1, 0.2, 0.9]]), min_samples=3)[0].item() > 0.0
    assert mixture_thresholds(*padded([SPREAD]), min_samples=17)[0].item() == 0.0


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_mixture_thresholds__a_score_that_is_not_finite_fails_its_row_alone(bad):
    thresholds, failed = mixture_thresholds(*padded([SPREAD, [*FOUR, bad], SKEWED]), default=0.25)
    assert thresholds.tolist() == [0.55, 0.25, 0.75]
    assert failed.tolist() == [False, True, False]


def test_mixture_thresholds__a_row_depends_on_its_scores_alone():
    rows = [values for _, values in random_rows(36)]
    together, _ = mixture_thresholds(*padded(rows))
    assert together.tolist() == [threshold(values) for values in rows]


def test_mixture_thresholds__neither_order_nor_gaps_matter():
    scores, valid = padded([SKEWED, [0.9] * 40])
    turned = mixture_thresholds(scores.flip(1), valid.flip(1))[0]
    assert turned.tolist() == mixture_thresholds(scores, valid)[0].tolist() == [0.75, 0.0]


def test_mixture_thresholds__of_fp32_scores_are_these_very_scores():
    scores = torch.tensor([SPREAD])
    thresholds, _ = mixture_thresholds(scores, torch.ones_like(scores, dtype=torch.bool))
    assert thresholds.dtype == torch.float32
    assert (scores > thresholds[:, None]).sum() == 7


def test_mixture_thresholds__under_autocast_stay_exact():
    with torch.autocast("cpu", torch.bfloat16):
        assert threshold(SPREAD) == 0.55


@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (3, 5)])
def test_mixture_thresholds__of_nothing_are_the_default(shape):
    thresholds, failed = mixture_thresholds(torch.zeros(shape), torch.zeros(shape, dtype=torch.bool), default=0.5)
    assert thresholds.tolist() == [0.5] * shape[0]
    assert not failed.any()


def test_mixture_thresholds__a_device_is_never_asked_whether_all_have_stopped():
    scores = torch.empty(3, 20, device="meta")  # has no values that could be read
    thresholds, failed = mixture_thresholds(scores, scores > 0.0)
    assert thresholds.shape == failed.shape == (3,)


COSTS = [-4.60, -4.35, -4.10, -3.95, -3.80, -3.70, -3.55, -3.30, -1.20, -0.70, -0.35, -0.10, 0.30, 0.85]


def center(costs):
    values = torch.tensor(costs, dtype=torch.float64)
    return low_center(values, torch.ones_like(values, dtype=torch.bool)).item()


def test_fit_mixtures__of_costs_has_the_parameters_of_the_example():
    mixture = fit(COSTS, floor=COST_FLOOR)
    assert mixture.iterations.tolist() == [4]
    for found, expected in (
        (mixture.means, [-3.918752, -0.200015]),
        (mixture.variances, [0.158095, 0.439223]),
        (mixture.weights, [0.571426, 0.428574]),
    ):
        assert found[0].tolist() == pytest.approx(expected, abs=1e-5)
    joint = mixture.log_joint(torch.tensor([COSTS]))[0]
    assert (joint[0] >= joint[1]).tolist() == [True] * 8 + [False] * 6


def test_low_center__is_about_the_middle_of_the_lower_costs():
    assert center(COSTS) == -3.95
    assert [cost for cost in COSTS if cost <= center(COSTS)] == [-4.60, -4.35, -4.10, -3.95]


@pytest.mark.parametrize(
    ("costs", "expected"), [([-4.0, -1.0], -4.0), ([-3.0] * 3, -3.0), ([2.5], 2.5), ([], 0.0), ([0.1, 0.2], 0.1)]
)
def test_low_center__of_few_costs(costs, expected):
    assert center(costs) == expected


def test_low_center__is_scikit_learns_whatever_the_order_and_what_is_not_valid():
    for seed in range(200):
        random = np.random.RandomState(seed)
        low, high = random.randint(1, 40, 2)
        costs = np.concatenate([random.normal(-4.0, random.uniform(0.1, 1.0), low), random.normal(0.0, 1.0, high)])
        column, mixture = np.sort(costs)[:, None], scikit_learns(np.sort(costs), reg_covar=1e-5)
        made = mixture.predict(column) == 0
        likelihood = np.where(made if made.any() else True, mixture.score_samples(column), -np.inf)
        values = torch.tensor([*random.permutation(costs), np.inf, -9.0])
        valid = torch.arange(len(values)) < len(costs)
        found = low_center(values, valid).item()
        assert found == pytest.approx(column[likelihood.argmax(), 0], abs=1e-6), seed
        assert low_center(values.flip(0), valid.flip(0)).item() == found


def test_low_center__asks_the_host_nothing(host_questions):
    costs = torch.linspace(-4.0, 1.0, 20)
    with host_questions() as asked:
        low_center(costs, costs < 0.5)
    assert not asked

import numpy as np
import pytest

from ssodkit.data.config import BatchConfig
from ssodkit.data.sampler import BLOCK, StepSampler, labeled_per_group

LANDSCAPE, PORTRAIT = (40, 60), (60, 40)


def sizes(landscape: int, portrait: int = 0) -> np.ndarray:
    return np.array([LANDSCAPE] * landscape + [PORTRAIT] * portrait, dtype=np.int32).reshape(-1, 2)


def random_batch(labeled: int, unlabeled: int, group: int, **options: bool) -> BatchConfig:
    return BatchConfig(labeled=labeled, unlabeled=unlabeled, composition="random", group=group, **options)


def test_step_sampler__each_epoch_shows_every_image_once():
    sampler = StepSampler(0, BatchConfig(labeled=4, unlabeled=6), sizes(20), sizes(30))
    for epoch in range(3):
        steps = [sampler.rows(5 * epoch + step) for step in range(5)]
        assert sorted(np.concatenate([rows.labeled for rows in steps])) == list(range(20))
        assert sorted(np.concatenate([rows.unlabeled for rows in steps])) == list(range(30))


def test_step_sampler__epochs_and_seeds_and_streams_are_shuffled_apart():
    batch = BatchConfig(labeled=20, unlabeled=20)
    orders = []
    for seed in (0, 1):
        sampler = StepSampler(seed, batch, sizes(20), sizes(20))
        orders += [
            tuple(stream) for step in (0, 1) for stream in (sampler.rows(step).labeled, sampler.rows(step).unlabeled)
        ]
    assert len(set(orders)) == 8


def test_step_sampler__a_step_does_not_depend_on_those_asked_before():
    batch = random_batch(8, 32, 5, same_orientation=True)
    data = sizes(700, 300), sizes(4000, 2000)
    last = 2 * BLOCK + 17
    fresh = StepSampler(3, batch, *data).rows(last)
    used = StepSampler(3, batch, *data)
    for step in (last + 1, 5, BLOCK - 1, BLOCK, last):
        rows = used.rows(step)
    assert np.array_equal(rows.labeled, fresh.labeled)
    assert np.array_equal(rows.unlabeled, fresh.unlabeled)
    assert np.array_equal(rows.labeled_per_group, fresh.labeled_per_group)


@pytest.mark.parametrize(
    "batch",
    [
        BatchConfig(labeled=3, unlabeled=5),
        random_batch(2, 8, 5),
        BatchConfig(labeled=3, unlabeled=5, same_orientation=True),
        random_batch(2, 8, 5, same_orientation=True),
    ],
)
def test_step_sampler__no_image_is_passed_over(batch):
    """Each orientation's images come equally often, to within the epoch that is under way."""
    sampler = StepSampler(0, batch, sizes(13, 7), sizes(11, 9))
    steps = [sampler.rows(step) for step in range(BLOCK - 300, BLOCK + 300)]
    for stream, split in (("labeled", 13), ("unlabeled", 11)):
        shown = np.bincount(np.concatenate([getattr(rows, stream) for rows in steps]), minlength=20)
        pools = (shown[:split], shown[split:]) if batch.same_orientation else (shown,)
        for pool in pools:
            assert pool.max() - pool.min() <= 2
            assert pool.min() > 20


def test_step_sampler__fewer_images_than_the_batch_come_several_times():
    rows = StepSampler(0, BatchConfig(labeled=7, unlabeled=3), sizes(2), sizes(1)).rows(4)
    assert sorted(np.bincount(rows.labeled)) == [3, 4]
    assert rows.unlabeled.tolist() == [0, 0, 0]


def test_step_sampler__a_stream_without_images_is_refused():
    with pytest.raises(ValueError, match="unlabeled stream has no images"):
        StepSampler(0, BatchConfig(labeled=1, unlabeled=1), sizes(2), sizes(0))


def test_step_sampler__no_unlabeled_stream_gives_no_unlabeled_rows():
    rows = StepSampler(0, BatchConfig(labeled=2, unlabeled=0), sizes(5)).rows(0)
    assert (len(rows.labeled), len(rows.unlabeled)) == (2, 0)


def test_step_sampler__images_of_a_step_share_their_orientation():
    batch = BatchConfig(labeled=4, unlabeled=4, same_orientation=True)
    sampler = StepSampler(0, batch, sizes(30, 10), sizes(20, 20))
    portrait = []
    for step in range(400):
        rows = sampler.rows(step)
        assert len(set(rows.labeled >= 30)) == 1
        assert len(set(rows.unlabeled >= 20)) == 1
        portrait.append((rows.labeled[0] >= 30, rows.unlabeled[0] >= 20))
    labeled, unlabeled = np.mean(portrait, axis=0)
    assert abs(labeled - 0.25) < 0.07
    assert abs(unlabeled - 0.5) < 0.08


@pytest.mark.parametrize(("landscape", "portrait"), [(5, 0), (0, 5)])
def test_step_sampler__one_orientation_alone_is_always_drawn(landscape, portrait):
    batch = BatchConfig(labeled=5, unlabeled=0, same_orientation=True)
    sampler = StepSampler(0, batch, sizes(landscape, portrait))
    assert all(sorted(sampler.rows(step).labeled) == [0, 1, 2, 3, 4] for step in range(50))


@pytest.mark.parametrize(
    ("batch", "probabilities", "mean"),
    [
        (random_batch(8, 32, 5), [0.73728, 0.20480, 0.05120, 0.00672], 1.32736),
        (random_batch(32, 32, 8), [0.035156], 4.0),
    ],
)
def test_labeled_per_group__has_the_distribution_of_soft_teacher(batch, probabilities, mean):
    counts = np.concatenate([labeled_per_group(0, batch, block).ravel() for block in range(6)])
    # Six times 4,096 steps of 8 groups: three standard errors are below 0.0035.
    for labeled, probability in enumerate(probabilities, start=1):
        assert abs((counts == labeled).mean() - probability) < 0.0035
    assert abs(counts.mean() - mean) < 0.0035 * 4
    assert counts.min() == 1
    assert counts.max() == batch.group - 1


def test_labeled_per_group__a_fixed_composition_is_fixed():
    counts = labeled_per_group(0, BatchConfig(labeled=3, unlabeled=9), 7)
    assert counts.shape == (BLOCK, 1)
    assert (counts == 3).all()


def test_step_sampler__random_steps_hold_all_slots():
    sampler = StepSampler(0, random_batch(2, 8, 5), sizes(50), sizes(50))
    for step in range(100):
        rows = sampler.rows(step)
        assert len(rows.labeled) == rows.labeled_per_group.sum()
        assert len(rows.labeled) + len(rows.unlabeled) == 10

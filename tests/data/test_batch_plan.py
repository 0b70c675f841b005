import numpy as np
import pytest

from ssodkit.data.batch_plan import BatchPlan, derive_batch
from ssodkit.data.config import BatchConfig
from ssodkit.data.sampler import StepRows, StepSampler
from ssodkit.errors import RecipeError

SOFT_TEACHER = BatchConfig(labeled=8, unlabeled=32)
RANDOM = BatchConfig(labeled=8, unlabeled=32, composition="random", group=5)


def taken(plan: BatchPlan, rows: StepRows) -> tuple[list[int], list[int]]:
    """The places of both streams that all processes take, in their order."""
    shares = [share for rank in range(plan.world) for share in plan.shares(rows, rank)]
    labeled = [place for share in shares for place in range(share.labeled.start, share.labeled.stop)]
    unlabeled = [place for share in shares for place in range(share.unlabeled.start, share.unlabeled.stop)]
    return labeled, unlabeled


@pytest.mark.parametrize(
    ("world", "images_per_device", "accumulation"),
    [(1, None, 1), (1, 40, 1), (1, 39, 2), (1, 10, 4), (8, 5, 1), (2, 5, 4), (4, 10, 1), (4, 9, 2)],
)
def test_derive_batch__takes_the_fewest_forwards_that_fit(world, images_per_device, accumulation):
    assert derive_batch(SOFT_TEACHER, world, images_per_device).accumulation == accumulation


def test_derive_batch__the_learning_rate_follows_the_images_of_a_step():
    assert derive_batch(SOFT_TEACHER).lr_factor == 1.0
    assert derive_batch(SOFT_TEACHER, lr_for_images=40).lr_factor == 1.0
    assert derive_batch(SOFT_TEACHER, lr_for_images=160).lr_factor == 0.25
    assert derive_batch(SOFT_TEACHER, world=4, images_per_device=5, lr_for_images=160).lr_factor == 0.25


def test_derive_batch__processes_that_cannot_share_equally_are_refused():
    with pytest.raises(
        RecipeError, match=r"8 labeled and 32 unlabeled images cannot .* 3 processes; possible: 1, 2, 4, 8"
    ):
        derive_batch(SOFT_TEACHER, world=3)
    with pytest.raises(RecipeError, match=r"in 8 groups cannot .* 16 processes"):
        derive_batch(RANDOM, world=16)


def test_derive_batch__a_limit_below_the_smallest_share_names_it():
    with pytest.raises(RecipeError, match=r"images_per_device is 4, .* Set it to 5 or more"):
        derive_batch(SOFT_TEACHER, images_per_device=4)


def test_derive_batch__labeled_images_alone_are_shared_too():
    plan = derive_batch(BatchConfig(labeled=6), world=2, images_per_device=1)
    assert plan.accumulation == 3
    rows = StepRows(np.arange(6), np.zeros(0, dtype=np.int64), np.array([6]))
    assert taken(plan, rows) == (list(range(6)), [])


@pytest.mark.parametrize("batch", [SOFT_TEACHER, RANDOM])
@pytest.mark.parametrize(("world", "images_per_device"), [(1, None), (2, None), (2, 10), (8, 5)])
def test_shares__every_image_is_taken_once_and_in_order(batch, world, images_per_device):
    plan = derive_batch(batch, world, images_per_device)
    sizes = np.full((100, 2), 50, dtype=np.int32)
    for step in range(20):
        rows = StepSampler(0, batch, sizes, sizes).rows(step)
        assert taken(plan, rows) == (list(range(len(rows.labeled))), list(range(len(rows.unlabeled))))


def test_shares__each_forward_holds_both_kinds_and_equal_slots():
    plan = derive_batch(RANDOM, world=2, images_per_device=10)
    rows = StepRows(np.arange(13), np.arange(27), np.array([1, 2, 1, 1, 4, 1, 1, 2]))
    counts = [
        [(s.labeled.stop - s.labeled.start, s.unlabeled.stop - s.unlabeled.start) for s in plan.shares(rows, rank)]
        for rank in (0, 1)
    ]
    assert counts == [[(3, 7), (2, 8)], [(5, 5), (3, 7)]]


def test_describe__says_what_was_derived():
    text = derive_batch(SOFT_TEACHER, world=2, images_per_device=5, lr_for_images=80).describe()
    assert text == (
        "A step has 8 labeled and 32 unlabeled images, shared by 2 processes in 4 forwards each: "
        "1 + 4 images at a time; losses are normalized within each forward. "
        "The recipe's learning rate is multiplied by 0.5."
    )


def test_batch_config__groups_that_do_not_divide_the_batch_are_refused():
    with pytest.raises(ValueError, match="divide the 40 images"):
        BatchConfig(labeled=8, unlabeled=32, composition="random", group=7)
    with pytest.raises(ValueError, match=r"batch\.unlabeled is 0"):
        BatchConfig(labeled=8, composition="random")
    with pytest.raises(ValueError, match="only with `composition: random`"):
        BatchConfig(labeled=8, unlabeled=32, group=5)

import multiprocessing
import os
import resource
import signal
from collections.abc import Iterable
from typing import Any

import pytest
import torch

from ssodkit.data import loader
from ssodkit.data.augment.flip import FlipConfig
from ssodkit.data.augment.resize import ResizeConfig
from ssodkit.data.batch_plan import derive_batch
from ssodkit.data.config import BatchConfig, DataConfig
from ssodkit.data.loader import training_batches
from ssodkit.data.sets import DataSets, open_data
from ssodkit.data.views import ViewConfig, ViewMaker, ViewsConfig
from ssodkit.errors import DataError, TrainingError
from ssodkit.ops.random import derive_keys, make_key
from ssodkit.structures.geometry import SemiBatch, Stream

FLIP, RESIZE = FlipConfig(), ResizeConfig(short=(24, 48), long=64)
VIEWS = ViewsConfig(
    labeled={"weak": ViewConfig(transforms=(RESIZE, FLIP))},
    unlabeled={"weak": ViewConfig(transforms=(RESIZE, FLIP)), "strong": ViewConfig(transforms=(RESIZE,))},
)
BATCHES = {
    "fixed": BatchConfig(labeled=4, unlabeled=4),
    "random": BatchConfig(labeled=2, unlabeled=6, composition="random", group=2),
    "oriented": BatchConfig(labeled=2, unlabeled=2, same_orientation=True),
}


@pytest.fixture
def make_sets(write_coco):
    sources = {"train": write_coco("train", 16), "test": write_coco("test", 7, first_id=101, seed=1)}

    def make(batch: BatchConfig, **options: Any) -> DataSets:
        return open_data(DataConfig(**{**sources, "percent": 40.0, "folds": "soft_teacher", "batch": batch, **options}))

    return make


Row = tuple[int, int, bytes, list[list[float]]]


def rows_of(stream: Stream, view: str) -> list[Row]:
    """What each image of a view is, apart from padding: id, key, pixels and boxes."""
    images, targets = stream.views[view], stream.targets[view]
    return [
        (
            int(images.image_ids[row]),
            int(images.keys[row]),
            images.pixels[row, :, :height, :width].numpy().tobytes(),
            targets.boxes[row][targets.valid[row]].tolist(),
        )
        for row, (height, width) in enumerate(images.sizes.tolist())
    ]


def all_rows(batches: Iterable[tuple[SemiBatch, ...]]) -> list[tuple[list[Row], list[Row], list[Row]]]:
    """For each step, the rows of all its forwards: labeled, unlabeled weak, unlabeled strong."""
    steps = []
    for forwards in batches:
        streams = (
            [(part.labeled, "weak") for part in forwards],
            *([(part.unlabeled, view) for part in forwards] for view in ("weak", "strong")),
        )
        steps.append(tuple([row for stream, view in kind for row in rows_of(stream, view)] for kind in streams))
    return steps


@pytest.mark.parametrize("name", list(BATCHES))
def test_training_batches__workers_change_nothing(make_sets, name):
    plan = derive_batch(BATCHES[name])
    sets = make_sets(plan.batch)
    here, workers = (all_rows(training_batches(sets, VIEWS, plan, 5, range(6), workers=count)) for count in (0, 2))
    assert here == workers
    assert len(here) == 6


@pytest.mark.parametrize("name", list(BATCHES))
@pytest.mark.parametrize(("world", "images_per_device"), [(2, None), (2, 2)])
def test_training_batches__processes_and_forwards_change_nothing(make_sets, name, world, images_per_device):
    batch = BATCHES[name]
    sets = make_sets(batch)
    whole = all_rows(training_batches(sets, VIEWS, derive_batch(batch), 5, range(3)))
    plan = derive_batch(batch, world, images_per_device)
    ranks = [list(training_batches(sets, VIEWS, plan, 5, range(3), rank)) for rank in range(world)]
    joined = [sum(parts, start=()) for parts in zip(*ranks, strict=True)]
    assert {len(part) for part in ranks[0]} == {plan.accumulation}
    assert all_rows(joined) == whole


def test_training_batches__a_resumed_run_goes_on_exactly(make_sets):
    plan = derive_batch(BATCHES["random"])
    sets = make_sets(plan.batch)
    straight = all_rows(training_batches(sets, VIEWS, plan, 5, range(8)))
    resumed = all_rows(training_batches(sets, VIEWS, plan, 5, range(3, 8), workers=2))
    assert resumed == straight[3:]


def test_training_batches__another_seed_is_another_run(make_sets):
    plan = derive_batch(BATCHES["fixed"])
    sets = make_sets(plan.batch)
    first, second = (all_rows(training_batches(sets, VIEWS, plan, seed, range(2))) for seed in (0, 1))
    assert first != second


def test_training_batches__keys_are_those_of_seed_step_stream_place_and_view(make_sets):
    plan = derive_batch(BATCHES["fixed"], world=2)
    ((part,),) = training_batches(make_sets(plan.batch), VIEWS, plan, 5, range(7, 8), rank=1)
    for stream, view in (("labeled", "weak"), ("unlabeled", "strong")):
        raw = torch.tensor([make_key(5, 7, stream, place) for place in (2, 3)])
        assert getattr(part, stream).views[view].keys.tolist() == derive_keys(raw, view).tolist()


def test_training_batches__row_i_is_one_image_in_every_view(make_sets):
    plan = derive_batch(BATCHES["fixed"])
    for (part,) in training_batches(make_sets(plan.batch), VIEWS, plan, 0, range(3)):
        weak, strong = (part.unlabeled.views[name] for name in ("weak", "strong"))
        assert weak.image_ids.tolist() == strong.image_ids.tolist()


def test_training_batches__labels_reach_labeled_images_only(make_sets):
    plan = derive_batch(BATCHES["fixed"])
    seen = 0
    for (part,) in training_batches(make_sets(plan.batch), VIEWS, plan, 0, range(6)):
        seen += int(part.labeled.targets["weak"].valid.sum())
        for targets in part.unlabeled.targets.values():
            assert targets.boxes.shape == (4, 0, 4)
    assert seen > 0


def test_training_batches__unused_unlabeled_images_are_not_touched(make_sets):
    plan = derive_batch(BATCHES["fixed"])
    sets = make_sets(plan.batch)
    used = list(training_batches(sets, VIEWS, plan, 0, range(4), uses_unlabeled=lambda step: step >= 2))
    assert [part.unlabeled is None for (part,) in used] == [True, True, False, False]
    always = all_rows(training_batches(sets, VIEWS, plan, 0, range(4)))
    assert all_rows(used[2:]) == always[2:]
    assert rows_of(used[0][0].labeled, "weak") == always[0][0]


def test_training_batches__without_unlabeled_views_there_are_labeled_images_alone(make_sets):
    plan = derive_batch(BatchConfig(labeled=3))
    views = ViewsConfig(labeled=VIEWS.labeled)
    ((part,),) = training_batches(make_sets(plan.batch), views, plan, 0, range(1))
    assert part.unlabeled is None
    assert part.labeled.views["weak"].image_ids.shape == (3,)


@pytest.mark.parametrize("workers", [0, 2])
def test_training_batches__a_broken_image_is_named(make_sets, monkeypatch, workers):
    monkeypatch.setattr("ssodkit.data.pictures.KEPT", 0)  # as for a set too large to be kept
    plan = derive_batch(BATCHES["fixed"])
    sets = make_sets(plan.batch)
    broken = sets.unlabeled.path(0)
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(DataError) as caught:
        list(training_batches(sets, VIEWS, plan, 0, range(6), workers=workers))
    assert str(caught.value).startswith(f"the image {broken} cannot be read")


def test_training_batches__another_image_takes_the_place_of_a_broken_one(make_sets, monkeypatch):
    """The same one whatever came before, in workers too; all other places are as they were."""
    monkeypatch.setattr("ssodkit.data.pictures.KEPT", 0)
    plan = derive_batch(BATCHES["fixed"])
    sets = make_sets(plan.batch)
    whole = [part.unlabeled.views["weak"].image_ids for (part,) in training_batches(sets, VIEWS, plan, 0, range(6))]
    sets.unlabeled.path(0).write_bytes(b"")
    gone = sets.unlabeled.ids[0]
    told = []

    def ids(steps, workers=0):
        batches = training_batches(sets, VIEWS, plan, 0, steps, workers=workers, on_skipped=told.append)
        return [part.unlabeled.views["weak"].image_ids for (part,) in batches]

    drawn = ids(range(6))
    assert [(each.key, each.image_id) for each in told] == [("unlabeled", gone)] * int(
        (torch.stack(whole) == gone).sum()
    )
    assert told[0].why.startswith(f"the image {sets.unlabeled.path(0)} cannot be read")
    is_same = torch.stack(drawn) == torch.stack(whole)
    assert torch.equal(~is_same, torch.stack(whole) == gone)
    assert torch.equal(torch.stack(ids(range(3, 6), workers=2)), torch.stack(drawn[3:]))


def test_training_batches__where_every_image_is_broken_one_is_named(make_sets):
    plan = derive_batch(BATCHES["fixed"])
    sets = make_sets(plan.batch)
    for place in range(len(sets.unlabeled)):
        sets.unlabeled.path(place).write_bytes(b"")
    with pytest.raises(DataError, match="cannot be read"):
        list(training_batches(sets, VIEWS, plan, 0, range(1), on_skipped=lambda skipped: None))


def test_training_batches__workers_outlive_the_signals_that_stop_a_run(make_sets):
    plan = derive_batch(BATCHES["fixed"])
    sets = make_sets(plan.batch)
    batches = training_batches(sets, VIEWS, plan, 5, range(12), workers=2)
    first = next(batches)
    for worker in multiprocessing.active_children():
        os.kill(worker.pid, signal.SIGINT)
        os.kill(worker.pid, signal.SIGTERM)
    rest = list(batches)
    assert all_rows([first, *rest]) == all_rows(training_batches(sets, VIEWS, plan, 5, range(12)))


class MadeOfLambdas(loader._Source):
    """Its items cannot leave a worker process."""

    def decode(self, number):
        return lambda: number

    def finish(self, raw):
        return raw


def test_load__what_a_worker_cannot_hand_over_is_not_waited_for():
    with pytest.raises(RuntimeError, match="exited unexpectedly") as caught:
        list(loader._load(MadeOfLambdas(), range(1), torch.device("cpu"), workers=1))
    assert "with exit code 1." in str(caught.value.__cause__)


def test_allow_open_files__raises_the_soft_limit_or_says_how_many_are_wanted():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
        loader._allow_open_files(90)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (100, hard)
        loader._allow_open_files(128)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (128, hard)
        if hard != resource.RLIM_INFINITY:
            with pytest.raises(TrainingError, match=rf"need {hard + 1} open files, and `ulimit -n` allows {hard}\."):
                loader._allow_open_files(hard + 1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_training_batches__leave_the_global_generator_alone(make_sets):
    plan = derive_batch(BATCHES["fixed"])
    before = torch.random.get_rng_state()
    list(training_batches(make_sets(plan.batch), VIEWS, plan, 5, range(2)))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(("world", "workers"), [(1, 0), (1, 2), (2, 0), (9, 0)])
def test_batches_in_order__every_image_comes_once_and_in_order(make_sets, world, workers):
    sets = make_sets(BATCHES["fixed"])
    maker = ViewMaker({"test": ViewConfig(transforms=(ResizeConfig(short=32),))}, 0.0, 32)
    ids = []
    for rank in range(world):
        batches = list(loader.batches_in_order(sets.test, maker, 3, rank, world, workers=workers))
        assert all(len(stream.views["test"].image_ids) == 3 for stream in batches[:-1])
        ids += [number for stream in batches for number in stream.views["test"].image_ids.tolist()]
    assert ids == sets.test.ids.tolist()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("workers", [0, 2])
def test_training_batches__on_a_gpu_are_those_of_the_cpu(make_sets, workers):
    plan = derive_batch(BATCHES["fixed"])
    sets = make_sets(plan.batch)
    host = list(training_batches(sets, VIEWS, plan, 5, range(4)))
    device = list(training_batches(sets, VIEWS, plan, 5, range(4), device="cuda", workers=workers))
    for (expected,), (found,) in zip(host, device, strict=True):
        for stream in ("labeled", "unlabeled"):
            for name, view in getattr(expected, stream).views.items():
                other = getattr(found, stream).views[name]
                assert other.pixels.is_cuda
                assert torch.equal(view.image_ids, other.image_ids.cpu())
                assert torch.equal(view.homography, other.homography.cpu())
                assert (view.pixels.int() - other.pixels.cpu().int()).abs().max() <= 1

"""What every registered matcher keeps to; those that read predictions and those that read candidates alone."""

from dataclasses import replace

import pytest
import torch

from ssodkit.assigners.matchers.base import Question
from ssodkit.detectors.sampling import match
from ssodkit.plugins import BuildContext, load_plugins, members
from ssodkit.structures.predictions import Predictions
from ssodkit.structures.progress import Progress
from ssodkit.structures.teaching import BACKGROUND, IGNORE, Assignment, Targets

load_plugins()
NAMES = sorted(members("matcher"))
PROGRESS = Progress(0, 1)
CLASSES = 3


def tensors(record) -> dict[str, torch.Tensor]:
    """Fields that have a row per candidate or target."""
    return {key: value for key, value in vars(record).items() if isinstance(value, torch.Tensor)}


def build(name: str):
    config = members("matcher")[name]()
    return config.build(BuildContext(num_classes=CLASSES, detector=config))


@pytest.fixture(params=NAMES)
def matcher(request):
    return build(request.param)


STAYS = [name for name in NAMES if not type(build(name)).asks_host]
"""Those that stay on the device, and hold no matrix of all pairs."""


@pytest.fixture
def scene(answering, taught):
    """Three images with 150 candidates and 5 targets each, which touch and overlap one another."""
    generator = torch.Generator().manual_seed(1)

    def rand(*shape):
        return torch.rand(3, *shape, generator=generator)

    centers = 8.0 * torch.randint(0, 16, (3, 150, 2), generator=generator).float()
    low = centers - 32.0 + 8.0 * rand(150, 2)
    predictions = answering(centers, torch.cat([low, low + 50.0 + 20.0 * rand(150, 2)], dim=-1), rand(150, CLASSES))
    low = 60.0 * rand(5, 2)
    targets = taught(
        torch.cat([low, low + 40.0 + 40.0 * rand(5, 2)], dim=-1), torch.randint(0, CLASSES, (3, 5), generator=generator)
    )
    return predictions, targets


def same(one: Assignment, other: Assignment) -> None:
    assert torch.equal(one.index, other.index)
    torch.testing.assert_close(one.quality, other.quality, rtol=0, atol=1e-6)


def test_matchers__are_found():
    assert {"adaptive", "max_iou", "one_to_many"} <= set(NAMES)


def test_matcher__finds_all_kinds_in_the_scene(matcher, scene):
    found = matcher(*scene, PROGRESS)
    assert found.positive.any(dim=1).all()
    assert found.background.any(dim=1).all()
    assert (found.weight == 1.0).all()
    assert found.sampled.tolist() == [0.0] * 3
    assert ((found.quality >= 0.0) & (found.quality <= 1.0)).all()


def test_matcher__a_row_does_not_depend_on_its_batch(matcher, scene):
    predictions, targets = scene
    together = matcher(predictions, targets, PROGRESS)
    for row in range(3):
        alone = slice(row, row + 1)
        same(together[alone], matcher(predictions[alone], targets[alone], PROGRESS))


def test_matcher__the_order_of_the_targets_does_not_matter(matcher, scene):
    predictions, targets = scene
    order = torch.tensor([3, 0, 4, 2, 1])
    found = matcher(predictions, targets, PROGRESS)
    again = matcher(
        predictions, replace(targets, boxes=targets.boxes[:, order], labels=targets.labels[:, order]), PROGRESS
    )
    back = torch.where(again.index >= 0, order[again.index.clamp(min=0)], again.index)
    same(found, replace(again, index=back))


def test_matcher__rows_that_are_not_valid_mean_nothing(matcher, scene):
    predictions, targets = scene
    padding = replace(
        targets, valid=~targets.valid, labels=torch.full_like(targets.labels, 99), boxes=targets.boxes * torch.nan
    )
    longer = Targets(
        **{key: torch.cat([getattr(targets, key), getattr(padding, key)], dim=1) for key in tensors(targets)}
    )
    same(matcher(predictions, targets, PROGRESS), matcher(predictions, longer, PROGRESS))


def test_matcher__candidates_that_are_not_valid_learn_nothing_and_take_nothing_from_others(matcher, scene):
    predictions, targets = scene
    candidates = predictions.candidates
    valid = torch.arange(150) % 3 > 0
    some = replace(predictions, candidates=replace(candidates, valid=valid.expand(3, -1)))
    found = matcher(some, targets, PROGRESS)
    assert (found.index[:, ~valid] == IGNORE).all()
    fewer = replace(
        predictions,
        candidates=replace(
            candidates,
            **{key: value[:, valid] for key, value in tensors(candidates).items()},
        ),
        class_logits=predictions.class_logits[:, valid],
        box_codes=predictions.box_codes[:, valid],
    )
    alone = matcher(fewer, targets, PROGRESS)
    assert torch.equal(found.index[:, valid], alone.index)
    torch.testing.assert_close(found.quality[:, valid], alone.quality, rtol=0, atol=1e-6)


@pytest.mark.parametrize("length", [0, 2])
def test_matcher__without_targets_all_is_background(matcher, scene, length: int):
    found = matcher(scene[0], Targets.empty(3, length=length), PROGRESS)
    assert (found.index == BACKGROUND).all()
    assert (found.quality == 0.0).all()


def test_matcher__one_image_without_targets(matcher, scene):
    predictions, targets = scene
    found = matcher(predictions, targets.where(torch.tensor([[True], [False], [True]])), PROGRESS)
    assert found.positive.any(dim=1).tolist() == [True, False, True]


def test_matcher__without_candidates_or_images_is_empty(matcher, scene, answering):
    predictions, targets = scene
    nothing = answering(torch.zeros(3, 0, 2), torch.zeros(3, 0, 4), torch.zeros(3, 0, CLASSES))
    assert matcher(nothing, targets, PROGRESS).index.shape == (3, 0)
    assert matcher(predictions[:0], targets[:0], PROGRESS).index.shape == (0, 150)


def test_matcher__fewer_candidates_than_a_target_takes(matcher, scene):
    predictions, targets = scene
    few = replace(
        predictions,
        candidates=replace(
            predictions.candidates, **{key: value[:, :4] for key, value in tensors(predictions.candidates).items()}
        ),
        class_logits=predictions.class_logits[:, :4],
        box_codes=predictions.box_codes[:, :4],
    )
    assert matcher(few, targets, PROGRESS).index.shape == (3, 4)


def test_matcher__certain_answers_leave_all_numbers_finite(matcher, scene):
    predictions, targets = scene
    certain = replace(predictions, class_logits=1000.0 * predictions.class_logits)
    found = matcher(certain, targets, PROGRESS)
    assert found.quality.isfinite().all()
    assert found.positive.any()


def test_matcher__half_precision_answers_are_compared_in_fp32(matcher, scene):
    predictions, targets = scene
    half = replace(
        predictions, class_logits=predictions.class_logits.bfloat16(), box_codes=predictions.box_codes.bfloat16()
    )
    full = replace(half, class_logits=half.class_logits.float(), box_codes=half.box_codes.float())
    same(matcher(full, targets, PROGRESS), matcher(half, targets, PROGRESS))
    assert matcher(half, targets, PROGRESS).quality.dtype == torch.float32


def test_matcher__candidates_of_targets_of_weight_zero_are_ignored(matcher, scene):
    predictions, targets = scene
    weight = torch.tensor([1.0, 0.0, 1.0, 0.0, 0.0]).expand(3, -1)
    (found,) = match([Question(matcher, predictions, replace(targets, weight=weight))], PROGRESS)
    taught = matcher(predictions, targets.where(weight > 0.0), PROGRESS)
    undecided = matcher(predictions, targets.where(weight == 0.0), PROGRESS).positive & taught.background
    assert undecided.any()
    assert torch.equal(found.index, taught.index.masked_fill(undecided, IGNORE))
    assert torch.equal(found.quality, taught.quality)


def test_matcher__what_lies_in_a_crowd_is_ignored(matcher, scene):
    crowd = Targets.empty(3, length=1)
    crowd = replace(crowd, boxes=crowd.boxes + torch.tensor([-99.0, -99.0, 999.0, 999.0]), weight=crowd.weight + 1.0)
    crowd = replace(crowd, valid=~crowd.valid, crowd=~crowd.crowd)
    (found,) = match([Question(matcher, scene[0], crowd)], PROGRESS)
    assert (found.index == IGNORE).all()


def test_matcher__asks_the_host_nothing_or_says_so_and_asks_once(matcher, scene, host_questions):
    with host_questions() as asked:
        matcher(*scene, PROGRESS)
    assert sum(asked.values()) == matcher.asks_host


@pytest.mark.parametrize("matcher", STAYS, indirect=True)
def test_matcher__holds_no_large_matrix_of_pairs(matcher, scene, largest_tensor):

    # Five images of 800 x 1333 with nine anchors in each cell, and 100 targets: 0.5 GiB for all pairs in fp32.
    def large(tensor: torch.Tensor, length: int) -> torch.Tensor:
        return torch.empty(5, length, *tensor.shape[2:], dtype=tensor.dtype, device="meta")

    predictions, targets = scene
    candidates = replace(
        predictions.candidates, **{key: large(value, 268_569) for key, value in tensors(predictions.candidates).items()}
    )
    asked: Predictions = replace(
        predictions,
        candidates=candidates,
        class_logits=large(predictions.class_logits, 268_569),
        box_codes=large(predictions.box_codes, 268_569),
    )
    taught = Targets(**{key: large(value, 100) for key, value in tensors(targets).items()})
    with largest_tensor() as memory:
        matcher(asked, taught, PROGRESS)
    assert 2**24 < memory.bytes <= 2**26


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("matcher", STAYS, indirect=True)
def test_matcher__on_a_gpu_waits_for_nothing_and_says_the_same(matcher, scene):
    predictions, targets = scene
    expected = matcher(predictions, targets, PROGRESS)
    on_gpu = predictions.to("cuda"), targets.to("cuda")
    matcher(*on_gpu, PROGRESS)  # the first call sets kernels up
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = matcher(*on_gpu, PROGRESS)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    same(expected, replace(found, index=found.index.cpu(), quality=found.quality.cpu()))

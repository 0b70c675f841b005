import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torchvision.ops import box_iou

from ssodkit.ops.matching import (
    best_coverage,
    best_overlaps,
    inside_any,
    iou_with_own,
    lowest_places,
    quality_by_rank,
    rank_keys,
)


def random_boxes(batch: int, count: int, seed: int, side: float = 0.3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(batch, count, 2, generator=generator)
    return torch.cat([low, low + side * torch.rand(batch, count, 2, generator=generator)], dim=-1)


def valid(boxes: torch.Tensor) -> torch.Tensor:
    return torch.ones(boxes.shape[:2], dtype=torch.bool)


class Numbers(TorchDispatchMode):
    """Counts the numbers that are made."""

    made = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        answer = func(*args, **(kwargs or {}))
        self.made += sum(leaf.numel() for leaf in tree_leaves(answer) if isinstance(leaf, torch.Tensor))
        return answer


def test_best_overlaps__equal_those_of_the_whole_matrix():
    candidates, targets = random_boxes(2, 50_000, 0), random_boxes(2, 120, 1)  # more than one chunk
    found = best_overlaps(candidates, valid(candidates), targets, valid(targets), minimum=0.0)
    for row in range(2):
        iou = box_iou(candidates[row], targets[row])
        assert torch.equal(found.iou[row], iou.amax(dim=1))
        assert torch.equal(found.target[row], iou.argmax(dim=1))
        assert torch.equal(found.target_iou[row], iou.amax(dim=0))
        is_best = iou == iou.amax(dim=0)
        places = torch.where(is_best, torch.arange(120), -1).amax(dim=1)
        assert torch.equal(found.best_of[row], places)


def test_best_overlaps__equals_are_all_best_and_the_last_target_of_several_counts():
    square = [0.0, 0.0, 10.0, 10.0]
    candidates = torch.tensor([[square, square, [0.0, 0.0, 1.0, 1.0]]])
    targets = torch.tensor([[square, square]])
    found = best_overlaps(candidates, valid(candidates), targets, valid(targets), minimum=0.0)
    assert found.best_of.tolist() == [[1, 1, -1]]
    assert found.target.tolist() == [[0, 0, 0]]


def test_best_overlaps__minimum_is_inclusive_and_none_finds_no_best():
    candidates = torch.tensor([[[0.0, 0.0, 5.0, 10.0]]])
    targets = torch.tensor([[[0.0, 0.0, 10.0, 10.0]]])  # IoU 0.5
    for minimum, best in ((0.5, 0), (0.51, -1), (None, -1)):
        found = best_overlaps(candidates, valid(candidates), targets, valid(targets), minimum)
        assert found.best_of.tolist() == [[best]], minimum


def test_best_overlaps__a_target_that_nothing_touches_has_no_best():
    candidates, targets = torch.tensor([[[0.0, 0.0, 1.0, 1.0]]]), torch.tensor([[[5.0, 5.0, 6.0, 6.0]]])
    found = best_overlaps(candidates, valid(candidates), targets, valid(targets), minimum=0.0)
    assert found.best_of.tolist() == [[-1]]
    assert found.target_iou.tolist() == [[0.0]]


def test_best_overlaps__what_is_not_valid_overlaps_nothing():
    candidates, targets = random_boxes(2, 30, 0), random_boxes(2, 4, 1)
    some, others = valid(candidates), valid(targets)
    some[0, 10:], others[1, 1:] = False, False
    found = best_overlaps(candidates, some, targets, others, minimum=0.0)
    first = best_overlaps(candidates[:1, :10], some[:1, :10], targets[:1], others[:1], minimum=0.0)
    assert torch.equal(found.iou[0], torch.cat([first.iou[0], torch.zeros(20)]))
    assert torch.equal(found.target_iou[:1], first.target_iou)
    assert (found.best_of[0, 10:] == -1).all()
    assert (found.target[1] == 0).all()


def test_best_overlaps__pairs_are_made_only_of_chunks_that_hold_a_target():
    """A teacher's rows are as long as the most it may answer, and mostly empty."""
    candidates, targets = random_boxes(2, 50_000, 0), random_boxes(2, 120, 1)
    some, others = valid(candidates), valid(targets)
    with Numbers() as whole:
        best_overlaps(candidates, some, targets, others, minimum=0.3)
        best_coverage(candidates, targets, others)
    others[:, 3:] = False
    with Numbers() as of_three:
        found = best_overlaps(candidates, some, targets, others, minimum=0.3)
        coverage = best_coverage(candidates, targets, others)
    assert of_three.made < whole.made / 10
    expected = best_overlaps(candidates, some, targets[:, :3], others[:, :3], minimum=0.3)
    assert torch.equal(found.iou, expected.iou)
    assert torch.equal(found.best_of, expected.best_of)
    assert torch.equal(found.target_iou[:, :3], expected.target_iou)
    assert not found.target_iou[:, 3:].any()
    assert torch.equal(coverage, best_coverage(candidates, targets[:, :3], others[:, :3]))


def test_best_overlaps__without_targets_or_candidates():
    boxes, nothing = random_boxes(2, 5, 0), torch.zeros(2, 0, 4)
    found = best_overlaps(boxes, valid(boxes), nothing, valid(nothing), minimum=0.3)
    assert found.iou.tolist() == [[0.0] * 5] * 2
    assert found.best_of.tolist() == [[-1] * 5] * 2
    found = best_overlaps(nothing, valid(nothing), boxes, valid(boxes), minimum=0.3)
    assert found.iou.shape == (2, 0)
    assert found.target_iou.tolist() == [[0.0] * 5] * 2


def test_best_overlaps__hold_no_large_matrix_of_pairs(largest_tensor):
    candidates, targets = torch.empty(5, 268_569, 4, device="meta"), torch.empty(5, 100, 4, device="meta")
    masks = (torch.empty(boxes.shape[:2], dtype=torch.bool, device="meta") for boxes in (candidates, targets))
    some, others = masks
    with largest_tensor() as memory:
        best_overlaps(candidates, some, targets, others, minimum=0.3)
        best_coverage(candidates, targets, others)
    assert 2**24 < memory.bytes <= 2**26


def test_best_coverage__is_a_share_of_the_candidate():
    candidates = torch.tensor([[[0.0, 0.0, 10.0, 10.0], [90.0, 90.0, 95.0, 95.0], [3.0, 3.0, 3.0, 3.0]]])
    regions = torch.tensor([[[5.0, 0.0, 100.0, 100.0], [0.0, 0.0, 10.0, 2.0], [0.0, 0.0, 10.0, 9.0]]])
    counted = torch.tensor([[True, True, False]])
    assert best_coverage(candidates, regions, counted).tolist() == [[0.5, 1.0, 0.0]]


def test_best_coverage__without_regions_is_zero():
    assert (
        best_coverage(random_boxes(2, 3, 0), torch.zeros(2, 0, 4), torch.zeros(2, 0, dtype=torch.bool)).tolist()
        == [[0.0] * 3] * 2
    )


def test_inside_any__means_strictly_inside():
    boxes = torch.tensor([[[0.0, 0.0, 10.0, 20.0], [30.0, 0.0, 40.0, 10.0], [5.0, 5.0, 5.0, 50.0]]])
    points = torch.tensor([[[5.0, 19.0], [35.0, 5.0], [0.0, 5.0], [5.0, 20.0], [20.0, 5.0], [5.0, 40.0]]])
    assert inside_any(points, boxes).tolist() == [[True, True, False, False, False, False]]
    assert inside_any(points, boxes[:, :0]).tolist() == [[False] * 6]
    assert inside_any(points[:, :0], boxes).shape == (1, 0)


def test_iou_with_own__is_one_number_per_candidate():
    candidates, targets = random_boxes(2, 30, 0), random_boxes(2, 4, 1)
    own = torch.arange(60).view(2, 30) % 4
    found = iou_with_own(candidates, targets, own)
    for row in range(2):
        assert torch.equal(found[row], box_iou(candidates[row], targets[row])[torch.arange(30), own[row]])


def test_lowest_places__of_equals_the_first():
    values = torch.tensor([[[3.0, 1.0, 2.0, 1.0, 0.0], [torch.inf] * 5]])
    assert lowest_places(values, 3).tolist() == [[[4, 1, 3], [0, 1, 2]]]
    assert lowest_places(values, 3, largest=True).tolist() == [[[0, 2, 1], [0, 1, 2]]]
    assert lowest_places(values, 9).shape == (1, 2, 5)
    assert lowest_places(values[..., :0], 3).shape == (1, 2, 0)


def test_rank_keys__are_ordered_as_numbers_and_end_in_the_place():
    values = torch.tensor([0.0, 1e-42, 1e-30, 0.5, 0.5, 1.0, 3e38, torch.inf])
    keys = rank_keys(values, torch.arange(8))
    assert (keys.diff() > 0).all()
    assert (keys & 0xFFFFFFFF).tolist() == list(range(8))
    down = rank_keys(values, torch.arange(8), largest=True)
    assert down.argsort().tolist() == [7, 6, 5, 3, 4, 2, 1, 0]
    assert (down & 0xFFFFFFFF).tolist() == list(range(8))


def test_quality_by_rank__of_a_target_is_that_of_its_own_candidates():
    target = torch.tensor([[0, 0, -1, 2]])
    measure, iou = torch.tensor([[0.2, 0.1, 9.0, 0.5]]), torch.tensor([[0.6, 0.8, 0.9, 0.3]])
    quality = quality_by_rank(target, measure, iou, 3)
    torch.testing.assert_close(quality, torch.tensor([[0.8, 0.4, 0.0, 0.3]]), rtol=0, atol=1e-6)
    assert quality_by_rank(target, 0.0 * measure, iou, 3).tolist() == [[0.0] * 4]
    assert quality_by_rank(target[:, :0], measure[:, :0], iou[:, :0], 0).shape == (1, 0)

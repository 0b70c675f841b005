import torch
from torchvision.ops import box_iou

from ssodkit.ops.matching import best_coverage, best_overlaps


def random_boxes(batch: int, count: int, seed: int, side: float = 0.3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(batch, count, 2, generator=generator)
    return torch.cat([low, low + side * torch.rand(batch, count, 2, generator=generator)], dim=-1)


def valid(boxes: torch.Tensor) -> torch.Tensor:
    return torch.ones(boxes.shape[:2], dtype=torch.bool)


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

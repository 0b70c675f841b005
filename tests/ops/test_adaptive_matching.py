"""The numbers are those of Consistent-Teacher's assignment, calculated by hand from its formulas."""

import pytest
import torch
from torchvision.ops import box_iou

from ssodkit.ops.adaptive_matching import (
    Takes,
    distance_costs,
    dynamic_counts,
    focal_corrections,
    focal_costs_of_background,
    overlap_costs,
    take_cheapest,
)

PROBS = torch.tensor(
    [[0.6, 0.1, 0.05], [0.7, 0.1, 0.05], [0.5, 0.2, 0.05], [0.3, 0.4, 0.05], [0.1, 0.8, 0.05], [0.1, 0.55, 0.05]]
)
CENTERS = torch.tensor([[16.0, 16.0], [24.0, 16.0], [24.0, 24.0], [32.0, 24.0], [40.0, 32.0], [48.0, 40.0]])
TARGETS = torch.tensor([[8.0, 8.0, 36.0, 36.0], [24.0, 20.0, 60.0, 56.0]])


def take(cost: list[list[float]], iou: list[list[float]], per_chunk: int = 9, at_most: int = 13) -> Takes:
    """Costs and IoUs of one image, a row per candidate and a column per target."""
    costs, ious = torch.tensor(cost).T[None], torch.tensor(iou).T[None]
    found = Takes.none(costs[:, 0])
    for first in range(0, costs.shape[1], per_chunk):
        part = slice(first, first + per_chunk)
        found = take_cheapest(found, costs[:, part], ious[:, part], torch.ones(1, len(cost)).bool(), first, at_most)
    return found


def assert_close(answer: torch.Tensor, expected: list[list[float]]) -> None:
    torch.testing.assert_close(answer.double(), torch.tensor(expected).double(), rtol=1e-6, atol=1e-6)


def test_focal_costs__background_and_correction_are_the_loss_of_the_right_class():
    own = PROBS[None, :, :2].transpose(1, 2)  # of the classes 0 and 1, those of the two targets
    cost = focal_costs_of_background(PROBS[None], 0.25, 2.0)[:, None] + focal_corrections(own, 0.25, 2.0)
    expected = [
        [0.021319, 0.008912, 0.050112, 0.208882, 1.238900, 0.647531],
        [0.713768, 0.908830, 0.387571, 0.106638, 0.003118, 0.031152],
    ]
    assert_close(cost[0], expected)


def test_focal_costs__of_certain_answers_are_finite():
    certain = torch.tensor([[[0.0, 1.0]]])
    assert focal_costs_of_background(certain, 0.25, 2.0).tolist() == [[75.0]]
    assert focal_corrections(certain, 0.25, 2.0).tolist() == [[[25.0, -75.0]]]


def test_focal_costs__at_one_percent():
    probs = torch.tensor([[[0.01]]])
    background = focal_costs_of_background(probs, 0.25, 2.0)
    assert background.item() == pytest.approx(7.54e-7, abs=1e-9)
    assert (background + focal_corrections(probs, 0.25, 2.0)[..., 0]).item() == pytest.approx(1.128382, abs=1e-6)


def test_overlap_costs__without_overlap_are_finite():
    cost = 2.0 * overlap_costs(torch.tensor([0.0, 1.0, 0.708061]))
    assert_close(cost[None], [[32.236191, 0.0, 0.690450]])


def test_distance_costs__grow_tenfold_with_every_cell():
    cost = distance_costs(CENTERS[None], torch.full((1, 6), 8.0), TARGETS[None], 0.001, 10.0)
    expected = [
        [0.011499, 0.006174, 0.002257, 0.018826, 0.374893, 8.971128],
        [18.086169, 3.574107, 0.708661, 0.141443, 0.006174, 0.006174],
    ]
    torch.testing.assert_close(cost[0], torch.tensor(expected), rtol=1e-5, atol=1e-6)


def test_costs__of_the_example_add_up():
    boxes = [[6, 5, 34, 33], [9, 8, 37, 36], [10, 9, 36, 37], [14, 10, 42, 40], [22, 20, 58, 52], [26, 22, 60, 56]]
    own = PROBS[None, :, :2].transpose(1, 2)
    focal = focal_costs_of_background(PROBS[None], 0.25, 2.0)[:, None] + focal_corrections(own, 0.25, 2.0)
    distance = distance_costs(CENTERS[None], torch.full((1, 6), 8.0), TARGETS[None], 0.001, 10.0)
    cost = focal + 2.0 * overlap_costs(box_iou(TARGETS, torch.tensor(boxes).float()))[None] + distance
    expected = [
        [0.723268, 0.158003, 0.338571, 1.446326, 5.681335, 14.726456],
        [24.216035, 8.877384, 5.473174, 3.440110, 0.455579, 0.265959],
    ]
    torch.testing.assert_close(cost[0], torch.tensor(expected), rtol=1e-5, atol=2e-6)


def test_distance_costs__overflow_beyond_38_cells():
    far = torch.tensor([[[38.0, 0.0], [39.0, 0.0]]])
    cost = distance_costs(far, torch.ones(1, 2), torch.tensor([[[-1.0, -1.0, 1.0, 1.0]]]), 0.001, 10.0)
    assert cost.isinf().tolist() == [[[False, True]]]


def test_dynamic_counts__are_the_sum_of_the_best_ious_rounded_down():
    iou = torch.tensor(
        [
            [0.708061, 0.931034, 0.866667, 0.543726, 0.130841, 0.077778],
            [0.066667, 0.111111, 0.112088, 0.202703, 0.800000, 0.891975],
            [0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        ]
    )
    assert iou.sum(dim=1)[:2].tolist() == pytest.approx([3.258107, 2.184544], abs=1e-5)
    assert dynamic_counts(iou[None], 13).tolist() == [[3, 2, 1]]
    assert dynamic_counts(iou[None], 2).tolist() == [[1, 1, 1]]  # 1.797701 and 1.691975


@pytest.mark.parametrize("per_chunk", [1, 2, 9])
def test_take_cheapest__of_several_takers_a_candidate_goes_to_the_cheapest(per_chunk: int):
    cost = [[0.3, 0.5], [0.6, 0.4], [0.9, 2.0], [3.0, 0.2]]
    iou = [[0.8, 0.6], [0.7, 0.75], [0.6, 0.2], [0.1, 0.9]]
    found = take(cost, iou, per_chunk)
    assert found.target.tolist() == [[0, 1, -1, 1]]
    assert found.count.tolist() == [[1, 2, 0, 1]]
    torch.testing.assert_close(found.iou, torch.tensor([[0.8, 0.75, 0.6, 0.9]]))


@pytest.mark.parametrize("per_chunk", [1, 2, 3])
def test_take_cheapest__it_may_go_to_a_target_that_had_not_taken_it(per_chunk: int):
    cost = [[0.5, 0.6, 0.4], [0.9, 0.9, 0.1], [0.7, 2.0, 3.0]]
    iou = [[0.7, 0.7, 0.3], [0.2, 0.2, 0.6], [0.6, 0.1, 0.05]]
    assert take(cost, iou, per_chunk).target.tolist() == [[2, 2, -1]]


def test_take_cheapest__what_costs_inf_is_never_taken():
    inf = torch.inf
    assert take([[inf, 1.0], [inf, inf]], [[0.9, 0.9], [0.9, 0.9]]).target.tolist() == [[1, -1]]


def test_take_cheapest__of_equals_the_first_candidate_is_taken_and_goes_to_the_first_target():
    found = take([[0.5, 0.5]] * 40, [[0.1, 0.1]] * 40)  # 13 x 0.1: one each, and both take the same
    assert found.target.tolist() == [[0] + [-1] * 39]


def test_take_cheapest__takes_at_most_as_many_as_there_are():
    assert take([[0.1], [0.2]], [[1.0], [1.0]]).target.tolist() == [[0, 0]]
    assert take([[0.3], [0.2], [0.1]], [[1.0], [1.0], [1.0]], at_most=2).target.tolist() == [[-1, 0, 0]]

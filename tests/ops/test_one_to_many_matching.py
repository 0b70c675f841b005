"""The numbers are those of Semi-DETR's first stage, calculated by hand from its formulas."""

import pytest
import torch

from ssodkit.ops.matching import quality_by_rank
from ssodkit.ops.one_to_many_matching import Claims, alignment, take_best

SCORE = torch.tensor(
    [[0.90, 0.05], [0.60, 0.10], [0.40, 0.20], [0.80, 0.02], [0.30, 0.70], [0.10, 0.50], [0.50, 0.90], [0.02, 0.03]]
)
IOU = torch.tensor(
    [[0.80, 0.10], [0.90, 0.15], [0.70, 0.30], [0.20, 0.00], [0.60, 0.75], [0.10, 0.85], [0.45, 0.60], [0.00, 0.00]]
)
SOFT = [0.665915, 0.900000, 0.132826, 0.0, 0.561566, 0.850000, 0.189271, 0.0]


def take(metric: torch.Tensor, iou: torch.Tensor, at_most: int, per_chunk: int = 9) -> Claims:
    """A row per candidate and a column per target."""
    metrics, ious = metric.T[None].contiguous(), iou.T[None].contiguous()
    found = Claims.none(metrics[:, 0])
    for first in range(0, metrics.shape[1], per_chunk):
        found = take_best(
            found, metrics[:, first : first + per_chunk], ious[:, first : first + per_chunk], first, at_most
        )
    return found


def test_alignment__of_the_example():
    metric = alignment(SCORE, IOU, 1.0, 6.0)
    first = [0.235930, 0.318865, 0.047060, 0.000051, 0.013997, 0.000000, 0.004152, 0.0]
    second = [0.000000, 0.000001, 0.000146, 0.0, 0.124585, 0.188575, 0.041990, 0.0]
    torch.testing.assert_close(metric, torch.tensor([first, second]).T, rtol=0, atol=6e-7)


@pytest.mark.parametrize("per_chunk", [1, 2])
@pytest.mark.parametrize("at_most", [3, 4])
def test_take_best__of_the_example(at_most: int, per_chunk: int):
    # The fourth best of both targets is the other's, which it overlaps more: nothing changes.
    found = take(alignment(SCORE, IOU, 1.0, 6.0), IOU, at_most, per_chunk)
    assert found.target.tolist() == [[0, 0, 0, -1, 1, 1, 1, -1]]
    torch.testing.assert_close(found.iou, IOU.amax(dim=1)[None])


def test_take_best__without_conflict_the_fourth_best_is_taken():
    metric = alignment(SCORE, IOU, 1.0, 6.0)
    assert take(metric[:, :1], IOU[:, :1], 4).target.tolist() == [[0, 0, 0, -1, 0, -1, -1, -1]]
    assert take(metric[:, 1:], IOU[:, 1:], 4).target.tolist() == [[-1, -1, 0, -1, 0, 0, 0, -1]]


def test_quality_by_rank__of_the_example():
    target = torch.tensor([[0, 0, 0, -1, 1, 1, 1, -1]])
    own = target.clamp(min=0).T
    metric, iou = (values.gather(1, own).T for values in (alignment(SCORE, IOU, 1.0, 6.0), IOU))
    soft = quality_by_rank(target, metric, iou, 2)
    torch.testing.assert_close(soft, torch.tensor([SOFT]), rtol=0, atol=1e-6)
    assert soft.sum().item() == pytest.approx(3.299578, abs=2e-6)
    # The class loss that the soft targets make: focal without balance, both classes, over their sum.
    wanted = torch.zeros_like(SCORE).scatter(1, own, soft.T)
    cross = torch.nn.functional.binary_cross_entropy(SCORE, wanted, reduction="none")
    total = ((wanted - SCORE).abs() ** 2 * cross).sum()
    assert total.item() == pytest.approx(2.434470, abs=2e-6)
    assert (2.0 * total / soft.sum()).item() == pytest.approx(1.475626, abs=2e-6)
    l1 = torch.tensor([0.10, 0.04, 0.12, 0.0, 0.20, 0.06, 0.25, 0.0])
    giou = torch.tensor([0.78, 0.89, 0.66, 0.0, 0.52, 0.84, 0.40, 0.0])
    assert (5.0 * (soft * l1).sum() / soft.sum()).item() == pytest.approx(0.498794, abs=2e-6)
    assert (2.0 * (soft * (1.0 - giou)).sum() / soft.sum()).item() == pytest.approx(0.490837, abs=2e-6)


def test_take_best__the_larger_iou_decides_not_the_larger_metric():
    metric, iou = torch.tensor([[0.9, 0.1]]), torch.tensor([[0.5, 0.6]])
    assert take(metric, iou, 13).target.tolist() == [[1]]


def test_take_best__a_target_that_does_not_take_it_has_no_say():
    # Candidate 1 overlaps target 1 more, but only target 0 takes it.
    metric, iou = torch.tensor([[0.1, 0.9], [0.9, 0.1]]), torch.tensor([[0.5, 0.9], [0.5, 0.8]])
    assert take(metric, iou, 1).target.tolist() == [[1, 0]]


def test_take_best__what_measures_zero_is_not_taken_and_few_candidates_are_enough():
    metric, iou = torch.tensor([[0.0], [0.2]]), torch.tensor([[0.4], [0.4]])
    assert take(metric, iou, 13).target.tolist() == [[-1, 0]]


def test_take_best__of_equals_the_first_candidate_is_taken_and_goes_to_the_first_target():
    metric, iou = torch.full((40, 2), 0.5), torch.full((40, 2), 0.5)
    assert take(metric, iou, 2).target.tolist() == [[0, 0] + [-1] * 38]

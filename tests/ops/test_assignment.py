import torch
from scipy.optimize import linear_sum_assignment
from torch._subclasses.fake_tensor import FakeTensorMode

from ssodkit.ops.assignment import least_cost


def costs(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_least_cost__equals_scipy_matrix_by_matrix():
    matrices = [costs(3, 20, 5), costs(2, 4, 9, seed=1), costs(1, 6, 6, seed=2)]
    found = least_cost(matrices, [torch.ones_like(matrix, dtype=torch.bool) for matrix in matrices])
    for matrix, targets in zip(matrices, found, strict=True):
        for cost, target in zip(matrix, targets, strict=True):
            expected = torch.full_like(target, -1)
            row, column = linear_sum_assignment(cost.numpy())
            expected[row] = torch.from_numpy(column)
            assert torch.equal(target, expected)


def test_least_cost__what_cannot_be_paired_is_left_out():
    matrix, rows, columns = costs(1, 8, 6), torch.tensor([0, 2, 3, 6]), torch.tensor([1, 4, 5])
    possible = torch.zeros(1, 8, 6, dtype=torch.bool)
    possible[:, rows[:, None], columns] = True
    (found,) = least_cost([matrix], [possible])
    (alone,) = least_cost([matrix[:, rows][:, :, columns]], [torch.ones(1, 4, 3, dtype=torch.bool)])
    expected = torch.full((1, 8), -1)
    expected[0, rows] = torch.where(alone[0] < 0, -1, columns[alone[0].clamp(min=0)])
    assert torch.equal(found, expected)


def test_least_cost__of_nothing_is_nothing():
    assert least_cost([], []) == []
    empty = [torch.zeros(shape) for shape in ((0, 5, 3), (2, 0, 3), (2, 5, 0))]
    found = least_cost(empty, [matrix > 0 for matrix in empty])
    assert [one.tolist() for one in found] == [[], [[], []], [[-1] * 5] * 2]


def test_least_cost__numbers_that_are_not_finite_are_the_worst_or_the_best():
    matrix = torch.tensor([[[torch.nan, 1.0], [3.0, torch.inf], [-torch.inf, 2.0]]])
    (found,) = least_cost([matrix], [torch.ones_like(matrix, dtype=torch.bool)])
    assert found.tolist() == [[1, -1, 0]]


def test_least_cost__is_one_operator_on_a_device_that_is_not_there():
    with FakeTensorMode():
        matrices = [torch.empty(2, 9, 4, device="cuda"), torch.empty(2, 7, 4, device="cuda")]
        found = least_cost(matrices, [matrix > 0 for matrix in matrices])
    assert [tuple(one.shape) for one in found] == [(2, 9), (2, 7)]
    assert all(one.device.type == "cuda" and one.dtype == torch.int64 for one in found)

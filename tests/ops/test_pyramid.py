import pytest
import torch
from torchvision.ops import deform_conv2d

from ssodkit.ops.pyramid import mix_levels, resize, sample_beside, with_neighbors


def one(rows: list[list[float]]) -> torch.Tensor:
    """One image, one channel."""
    return torch.tensor(rows, dtype=torch.float64)[None, None]


def test_resize__has_the_published_numbers():
    small = resize(one([[4.0 * row + column for column in range(4)] for row in range(4)]), (2, 2))
    assert small.tolist() == [[[[2.5, 4.5], [10.5, 12.5]]]]
    assert resize(one([[1.0, 2.0], [3.0, 4.0]]), (4, 4))[0, 0, 0].tolist() == [1.0, 1.25, 1.75, 2.0]


def test_mix_levels__has_the_published_numbers():
    levels, strides = [one([[1.0, 2.0], [3.0, 4.0]]), one([[1.5]])], (8, 16)
    fine, _ = mix_levels(levels, [torch.full_like(levels[0], 0.25), torch.zeros_like(levels[1])], strides)
    assert fine.tolist() == [[[[1.5, 2.25], [3.0, 3.75]]]]


def test_mix_levels__reads_the_finer_level_where_the_weight_is_negative():
    levels, strides = [one([[8.0, 8.0], [8.0, 8.0]]), one([[2.0]])], (8, 16)
    _, coarse = mix_levels(levels, [torch.zeros_like(levels[0]), torch.full_like(levels[1], -0.5)], strides)
    assert coarse.item() == 0.5 * 2.0 + 0.5 * 8.0 * 8.0 / 16.0


@pytest.mark.parametrize(("weights", "reads"), [((-0.4, 0.4), (0.0, 0.0)), ((5.0, -5.0), (1.0, -1.0))])
def test_mix_levels__clamps_weights_to_one_neighbor_and_to_those_that_exist(weights, reads):
    levels, strides = [one([[8.0, 4.0]]), one([[2.0]])], (8, 16)
    answers = mix_levels(levels, [torch.full_like(level, w) for level, w in zip(levels, weights, strict=True)], strides)
    fine, coarse = resize(levels[1], (1, 2)) * 2.0, resize(levels[0], (1, 1)) * 0.5
    for answer, level, other, share in zip(answers, levels, (fine, coarse), reads, strict=True):
        torch.testing.assert_close(answer, (1.0 - abs(share)) * level + abs(share) * other)


def test_mix_levels__of_a_single_level_is_that_level():
    (alone,) = mix_levels([one([[3.0, 5.0]])], [one([[0.7, -0.7]])], (8,))
    assert alone.tolist() == [[[[3.0, 5.0]]]]


def test_with_neighbors__stands_in_for_what_is_missing():
    fine, coarse = one([[1.0, 3.0], [5.0, 7.0]]), one([[9.0]])
    first, last = with_neighbors([fine, coarse])
    assert first[0, :, 0, 0].tolist() == [1.0, 1.0, 9.0]
    assert last[0, :, 0, 0].tolist() == [4.0, 9.0, 9.0]


@pytest.mark.parametrize(("row", "column", "expected"), [(0, 0, 2.437500), (1, 1, 1.406250)])
def test_sample_beside__has_the_published_numbers(row: int, column: int, expected: float):
    shifts = torch.tensor([0.5, 0.25], dtype=torch.float64)[None, :, None, None].expand(1, 2, 2, 2)
    sampled = sample_beside(one([[1.5, 2.25], [3.0, 3.75]]), shifts)[0, 0, row, column]
    assert round(float(sampled), 6) == expected


def test_sample_beside__is_a_deformable_convolution_with_weights_of_one():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(2, 4, 5, 7, generator=generator, dtype=torch.float64)
    shifts = 3.0 * torch.randn(2, 8, 5, 7, generator=generator, dtype=torch.float64)
    theirs = deform_conv2d(values, shifts, torch.ones(4, 1, 1, 1, dtype=torch.float64))
    torch.testing.assert_close(sample_beside(values, shifts), theirs)


def test_sample_beside__without_shifts_changes_nothing():
    values = 100.0 * torch.rand(1, 2, 100, 167, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(sample_beside(values, torch.zeros(1, 4, 100, 167)), values, rtol=1e-4, atol=1e-3)


def test_sample_beside__of_nothing_is_nothing():
    assert sample_beside(torch.zeros(0, 4, 3, 2), torch.zeros(0, 8, 3, 2)).shape == (0, 4, 3, 2)

import pytest
import torch
from scipy.ndimage import map_coordinates
from torchvision.ops import deform_conv2d

from ssodkit.ops.deformable import compass, sample_levels, sampling_places

SHAPES = [(3, 5), (2, 2), (1, 1)]


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def one_place(cells: list[list[float]], x: float, y: float) -> float:
    values = torch.tensor(cells)
    place = torch.tensor([x, y]).view(1, 1, 1, 1, 1, 2)
    shapes = [(values.shape[0], values.shape[1])]
    return sample_levels(values.reshape(1, -1, 1, 1), shapes, place, torch.ones(1, 1, 1, 1, 1)).item()


@pytest.mark.parametrize(
    ("x", "y", "value"),
    [(0.5, 0.5, 2.5), (0.25, 0.25, 1.0), (0.75, 0.25, 2.0), (0.6, 0.25, 1.7), (0.0, 0.0, 0.25), (1.0, 1.0, 1.0)],
)
def test_sample_levels__reads_between_cells_and_nothing_outside(x: float, y: float, value: float):
    assert one_place([[1.0, 2.0], [3.0, 4.0]], x, y) == pytest.approx(value, rel=1e-6)


def test_sample_levels__far_outside_there_is_nothing():
    assert [one_place([[1.0, 2.0]], x, 0.5) for x in (-0.5, 1.5, 1e6, -1e6)] == [0.0] * 4


def test_sample_levels__equals_a_loop_over_everything():
    values, weights = drawn(2, 20, 3, 4), drawn(2, 6, 3, 3, 2)
    places = drawn(2, 6, 3, 3, 2, 2, seed=1) * 1.6 - 0.3
    expected = torch.zeros(2, 6, 3, 4, dtype=torch.float64)
    maps = [cells.unflatten(1, shape).numpy() for cells, shape in zip(values.split([15, 4, 1], 1), SHAPES, strict=True)]
    for image, query, head, level, point in torch.cartesian_prod(*map(torch.arange, weights.shape)).tolist():
        x, y = places[image, query, head, level, point].tolist()
        at = [[y * SHAPES[level][0] - 0.5], [x * SHAPES[level][1] - 0.5]]
        for channel in range(4):
            cells = maps[level][image, :, :, head, channel]
            (read,) = map_coordinates(cells, at, order=1, mode="grid-constant", cval=0.0)
            expected[image, query, head, channel] += weights[image, query, head, level, point] * read
    answer = sample_levels(values, SHAPES, places, weights)
    assert (answer - expected.flatten(2)).abs().max() < 1e-12


def test_sample_levels__of_one_level_is_torchvisions_deformable_convolution():
    """Of depthwise 1x3 kernels full of ones: a query stands in each cell, its points where the kernel's taps are."""
    heads, width, rows, columns, points = 2, 3, 4, 5, 3
    values, weights = drawn(2, rows * columns, heads, width), drawn(2, rows * columns, heads, 1, points)
    shifts = drawn(2, rows * columns, heads, 1, points, 2, seed=1) * 6.0 - 3.0  # x, y, in cells
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    taps = torch.stack([column.reshape(-1, 1) + torch.arange(-1, 2), row.reshape(-1, 1).expand(-1, 3)], dim=-1)
    cells = torch.tensor([columns, rows])
    places = (taps[None, :, None, None] + 0.5 + shifts) / cells
    for_torchvision = shifts.flip(-1).permute(0, 2, 3, 4, 5, 1).reshape(2, -1, rows, columns)
    expected = deform_conv2d(
        values.permute(0, 2, 3, 1).reshape(2, heads * width, rows, columns),
        for_torchvision,
        torch.ones(heads * width, 1, 1, points, dtype=torch.float64),
        padding=(0, 1),
        mask=weights.permute(0, 2, 3, 4, 1).reshape(2, -1, rows, columns),
    )
    answer = sample_levels(values, [(rows, columns)], places, weights)
    assert (answer - expected.flatten(2).transpose(1, 2)).abs().max() < 1e-12


def test_sample_levels__gradients_are_those_of_small_differences():
    values, weights = drawn(1, 20, 2, 2), drawn(1, 2, 2, 3, 2)
    places = drawn(1, 2, 2, 3, 2, 2, seed=1) * 1.2 - 0.1
    inputs = [tensor.requires_grad_() for tensor in (values, places, weights)]
    assert torch.autograd.gradcheck(lambda *tensors: sample_levels(tensors[0], SHAPES, *tensors[1:]), inputs)


def test_sample_levels__is_fp32_of_whatever_it_is_given():
    values, weights = drawn(1, 20, 2, 2), drawn(1, 4, 2, 3, 2)
    places = drawn(1, 4, 2, 3, 2, 2, seed=1).float()
    rounded = values.bfloat16(), places, weights.bfloat16()
    exact = sample_levels(rounded[0].float(), SHAPES, places, rounded[2].float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        answer = sample_levels(rounded[0], SHAPES, places, rounded[2])
    assert torch.equal(answer, exact)
    assert answer.dtype == torch.float32


@pytest.mark.parametrize(("batch", "queries"), [(2, 0), (0, 3), (0, 0)])
def test_sample_levels__no_query_or_image_has_no_answer_and_a_gradient_of_zero(batch: int, queries: int):
    values = torch.ones(batch, 20, 2, 3, requires_grad=True)
    answer = sample_levels(values, SHAPES, torch.zeros(batch, queries, 2, 3, 4, 2), torch.ones(batch, queries, 2, 3, 4))
    assert answer.shape == (batch, queries, 6)
    answer.sum().backward()
    assert values.grad.abs().sum() == 0.0


def test_sampling_places__beside_a_box_are_in_its_sides_and_beside_a_point_in_cells():
    offset = torch.tensor([2.0, -1.0]).expand(1, 1, 1, 1, 4, 2)
    box = torch.tensor([0.5, 0.5, 0.4, 0.2]).view(1, 1, 1, 4)
    beside_box = sampling_places(box, offset, [(4, 8)])
    beside_point = sampling_places(box[..., :2], offset, [(4, 8)])
    torch.testing.assert_close(beside_box[0, 0, 0, 0], torch.tensor([[0.6, 0.475]] * 4))
    torch.testing.assert_close(beside_point[0, 0, 0, 0], torch.tensor([[0.75, 0.25]] * 4))


def test_sampling_places__each_level_has_its_reference_and_its_cells():
    references = torch.tensor([[[[0.5, 0.5], [0.25, 0.75]]]])
    places = sampling_places(references, torch.ones(1, 1, 1, 2, 1, 2), [(4, 8), (2, 4)])
    assert places[0, 0, 0, :, 0].tolist() == [[0.625, 0.75], [0.5, 1.25]]


@pytest.mark.parametrize("axes", [2, 4])
def test_sampling_places__are_fp32_of_whatever_they_are_given(axes: int):
    references, offsets = drawn(1, 4, 3, axes).bfloat16(), drawn(1, 4, 2, 3, 3, 2).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        places = sampling_places(references, offsets, SHAPES)
    assert places.dtype == torch.float32
    assert torch.equal(places, sampling_places(references.float(), offsets.float(), SHAPES))


def test_compass__eight_heads_look_along_the_edge_of_a_square_and_further_with_each_point():
    offsets = compass(8, 2, 4)
    first = [[1, 0], [1, 1], [0, 1], [-1, 1], [-1, 0], [-1, -1], [0, -1], [1, -1]]
    for level, point in ((0, 0), (0, 3), (1, 1), (1, 2)):
        expected = torch.tensor(first) * (point + 1.0)
        torch.testing.assert_close(offsets[:, level, point], expected, rtol=0.0, atol=1e-6)


def test_compass__reaches_the_edge_of_a_box_with_its_last_point():
    box = torch.tensor([0.5, 0.5, 0.4, 0.2]).view(1, 1, 1, 4)
    places = sampling_places(box, compass(4, 1, 4)[None, None], [(1, 1)])[0, 0, :, 0, -1]
    torch.testing.assert_close(places, torch.tensor([[0.7, 0.5], [0.5, 0.6], [0.3, 0.5], [0.5, 0.4]]))

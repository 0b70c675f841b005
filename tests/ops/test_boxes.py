import pytest
import torch
from torchvision.ops import box_iou, generalized_box_iou

from ssodkit.ops.boxes import (
    at_least_fp32,
    box_area,
    box_sides,
    clip_boxes,
    generalized_iou,
    has_area,
    pairwise_intersection,
    pairwise_iou,
    smoothed_iou,
)


def test_box_sides__are_width_and_height_twice_and_at_least_a_pixel():
    boxes = torch.tensor([[10.0, 20.0, 40.0, 60.0], [5.0, 5.0, 5.2, 9.0]])
    assert box_sides(boxes).tolist() == [[30.0, 40.0, 30.0, 40.0], [1.0, 4.0, 1.0, 4.0]]


def test_box_area__of_a_box_turned_inside_out_is_zero():
    assert box_area(torch.tensor([[0.0, 0.0, 3.0, 4.0], [3.0, 4.0, 0.0, 0.0]])).tolist() == [12.0, 0.0]


def test_clip_boxes__keeps_boxes_inside_their_own_image():
    boxes = torch.tensor([[[-5.0, -5.0, 200.0, 200.0]], [[-5.0, -5.0, 200.0, 200.0]]])
    sizes = torch.tensor([[60, 80], [10, 20]])  # height, width
    assert clip_boxes(boxes, sizes).tolist() == [[[0.0, 0.0, 80.0, 60.0]], [[0.0, 0.0, 20.0, 10.0]]]


@pytest.mark.parametrize(
    ("box", "answer"),
    [((1.0, 1.0, 2.0, 2.0), True), ((1.0, 1.0, 1.0, 2.0), False), ((2.0, 1.0, 1.0, 2.0), False)],
)
def test_has_area__needs_both_sides(box: tuple[float, ...], answer: bool):
    assert has_area(torch.tensor([box])).tolist() == [answer]


def test_has_area__of_nan_is_false():
    assert has_area(torch.tensor([[0.0, 0.0, torch.nan, 1.0]])).tolist() == [False]


def test_pairwise_iou__equals_torchvision():
    generator = torch.Generator().manual_seed(0)
    first, second = torch.rand(2, 40, 4, generator=generator), torch.rand(2, 30, 4, generator=generator)
    first[..., 2:] += first[..., :2]
    second[..., 2:] += second[..., :2]
    answer = pairwise_iou(first, second)
    assert answer.max() > 0.5
    for row in range(2):
        assert torch.equal(answer[row], box_iou(first[row], second[row]))


def test_pairwise_iou__has_the_published_numbers():
    anchors = [[0, 0, 32, 32], [16, 0, 48, 32], [32, 32, 64, 64], [8, 8, 40, 40], [100, 100, 132, 132]]
    targets = [[4, 4, 36, 36], [60, 60, 90, 90], [60, 60, 60, 90]]
    answer = pairwise_iou(torch.tensor(targets).double(), torch.tensor(anchors).double())
    expected = [[0.620253, 0.376344, 0.007874, 0.620253, 0.0], [0.0, 0.0, 0.008386, 0.0, 0.0], [0.0] * 5]
    torch.testing.assert_close(answer, torch.tensor(expected).double(), rtol=0, atol=5e-7)
    pair = torch.tensor([[10.0, 10.0, 50.0, 40.0], [20.0, 15.0, 60.0, 45.0]]).double()
    assert round(pairwise_iou(pair[:1], pair[1:]).item(), 6) == 0.454545


def test_pairwise_iou__of_empty_boxes_is_zero():
    assert pairwise_iou(torch.zeros(1, 2, 4), torch.zeros(1, 3, 4)).tolist() == [[[0.0] * 3] * 2]


def test_pairwise_iou__without_boxes_is_empty():
    assert pairwise_iou(torch.zeros(2, 0, 4), torch.zeros(2, 3, 4)).shape == (2, 0, 3)
    assert pairwise_iou(torch.zeros(2, 3, 4), torch.zeros(2, 0, 4)).shape == (2, 3, 0)


def test_pairwise_intersection__is_an_area():
    first, second = (
        torch.tensor([[0.0, 0.0, 10.0, 10.0]]),
        torch.tensor([[5.0, 6.0, 20.0, 20.0], [10.0, 0.0, 20.0, 9.0]]),
    )
    assert pairwise_intersection(first, second).tolist() == [[20.0, 0.0]]


def test_at_least_fp32__widens_and_never_narrows():
    assert at_least_fp32(torch.zeros(1, dtype=torch.bfloat16)).dtype == torch.float32
    assert at_least_fp32(torch.zeros(1, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((10.0, 10.0, 50.0, 40.0), (20.0, 15.0, 60.0, 45.0), 0.397403),
        ((0.0, 0.0, 10.0, 10.0), (20.0, 0.0, 30.0, 10.0), -0.333333),
    ],
)
def test_generalized_iou__has_the_published_numbers(first, second, expected: float):
    pair = torch.tensor([first, second], dtype=torch.float64)
    assert round(float(generalized_iou(pair[0], pair[1])), 6) == expected
    assert round(float(generalized_iou(pair[0] / 8.0, pair[1] / 8.0)), 6) == expected


def test_generalized_iou__equals_torchvision():
    generator = torch.Generator().manual_seed(0)
    low, sides = (
        50.0 * torch.rand(2, 40, 2, generator=generator),
        1.0 + 50.0 * torch.rand(2, 40, 2, generator=generator),
    )
    first, second = torch.cat([low, low + sides], dim=-1).double()
    torch.testing.assert_close(generalized_iou(first, second), generalized_box_iou(first, second).diagonal())


def test_generalized_iou__of_empty_boxes_is_finite_with_a_finite_gradient():
    empty = torch.zeros(1, 4, requires_grad=True)
    for other in (torch.zeros(1, 4), torch.tensor([[0.0, 0.0, 5.0, 5.0]])):
        answer = generalized_iou(empty, other)
        (gradient,) = torch.autograd.grad(answer.sum(), empty)
        assert answer.isfinite().all()
        assert gradient.isfinite().all()
    assert generalized_iou(torch.zeros(2, 0, 4), torch.zeros(2, 0, 4)).shape == (2, 0)


def test_generalized_iou__turns_a_box_back_that_is_inside_out():
    box = torch.tensor([[6.0, 2.0, 4.0, 8.0]], requires_grad=True)  # right of 4 lies left of left
    (gradient,) = torch.autograd.grad(generalized_iou(box, torch.tensor([[0.0, 0.0, 10.0, 10.0]])).sum(), box)
    assert gradient[0, 0] < 0.0
    assert gradient[0, 2] > 0.0


def test_smoothed_iou__has_the_published_numbers_in_strides_and_in_pixels():
    first = torch.tensor([-3.2, -2.5, 4.0, 5.0], dtype=torch.float64)  # the sides around a point, in strides
    second = torch.tensor([-3.0, -2.8, 4.1, 4.6], dtype=torch.float64)
    one = torch.ones((), dtype=torch.float64)
    assert round(float(smoothed_iou(first, second, 0.0 * one)), 6) == 0.874384
    for stride in (1.0, 8.0):
        pair, unit = (stride * first, stride * second), stride**2 * one
        assert abs(float(smoothed_iou(*pair, unit)) - 0.876557) < 1e-6
        assert abs(float(generalized_iou(*pair, unit)) - 0.874800) < 1e-6


def test_smoothed_iou__of_empty_boxes_is_finite():
    empty, unit = torch.zeros(1, 4, requires_grad=True), torch.ones(1)
    for measure in (smoothed_iou, generalized_iou):
        (gradient,) = torch.autograd.grad(measure(empty, torch.zeros(1, 4), unit).sum(), empty)
        assert gradient.isfinite().all()
    assert smoothed_iou(torch.zeros(2, 0, 4), torch.zeros(2, 0, 4), torch.ones(2, 0)).shape == (2, 0)

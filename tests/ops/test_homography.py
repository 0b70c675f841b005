"""Boxes carried by matrices, against numbers worked out by hand and those published for Soft Teacher and STAC."""

import math

import pytest
import torch

from ssodkit.ops.boxes import clip_boxes
from ssodkit.ops.homography import about, reflection, relate, rotation, scaling, shearing, translation, warp_boxes


def number(value: float) -> torch.Tensor:
    return torch.tensor([value], dtype=torch.float64)


def box(*sides: float) -> torch.Tensor:
    return torch.tensor([[sides]], dtype=torch.float64)


def assert_box(seen: torch.Tensor, *wanted: float) -> None:
    assert seen[0, 0].tolist() == pytest.approx(wanted, abs=1e-6)


def test_warp_boxes__a_flip_mirrors_x_and_keeps_y():
    assert_box(warp_boxes(box(10, 20, 30, 60), reflection(number(100.0))), 70, 20, 90, 60)


def test_warp_boxes__a_projective_matrix_divides_by_its_third_row():
    matrix = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.01, 0.0, 1.0]]], dtype=torch.float64)
    assert_box(warp_boxes(box(0, 0, 100, 10), matrix), 0, 0, 50, 10)


def test_warp_boxes__no_box_and_no_image_are_fine():
    assert warp_boxes(torch.zeros(2, 0, 4), torch.eye(3).repeat(2, 1, 1)).shape == (2, 0, 4)
    assert warp_boxes(torch.zeros(0, 3, 4), torch.zeros(0, 3, 3)).shape == (0, 3, 4)


def test_warp_boxes__stays_exact_under_autocast():
    boxes, matrix = torch.tensor([[[10.25, 20.0, 300.5, 60.0]]]), translation(torch.ones(1), torch.ones(1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        warped = warp_boxes(boxes, matrix)
    assert warped.tolist() == [[[11.25, 21.0, 301.5, 61.0]]]


def test_relate__soft_teacher_transport():
    """Original 100 x 50; weak: scale 1.2, flip at 120; strong: scale 0.8, shift by 8."""
    weak = reflection(number(120.0)) @ scaling(number(1.2), number(1.2))
    strong = translation(number(8.0), number(0.0)) @ scaling(number(0.8), number(0.8))
    matrix = relate(weak, strong)
    wanted = torch.tensor([[-0.666667, 0.0, 88.0], [0.0, 0.666667, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(matrix[0], wanted, atol=1e-6, rtol=0)
    assert_box(warp_boxes(box(30, 12, 90, 48), matrix), 28, 8, 68, 32)


def test_relate__mean_teacher_transport():
    """Original 640 x 480; weak: scale 0.5, flip at 320; strong: scale 0.8, shear along x by 20 degrees."""
    slope = math.tanh(-math.radians(20.0))
    assert (slope, -math.tan(math.radians(20.0))) == pytest.approx((-0.335547, -0.363970), abs=5e-7)
    weak = reflection(number(320.0)) @ scaling(number(0.5), number(0.5))
    strong = shearing(number(slope), number(0.0)) @ scaling(number(0.8), number(0.8))
    matrix = relate(weak, strong)
    wanted = torch.tensor([[-1.6, -0.536875, 512.0], [0.0, 1.6, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(matrix[0], wanted, atol=1e-6, rtol=0)
    carried = clip_boxes(warp_boxes(box(100, 60, 180, 150), matrix), torch.tensor([[384, 512]]))
    assert_box(carried, 143.468760, 96.0, 319.787504, 240.0)


def test_rotation__soft_teacher_turns_clockwise_about_the_middle_of_the_pixel_centers():
    matrix = about(rotation(number(30.0)), number(39.5), number(19.5))
    turned = clip_boxes(warp_boxes(box(28, 8, 68, 32), matrix), torch.tensor([[40, 80]]))
    assert_box(turned, 23.290708, 3.790708, 69.931724, 40.0)


def test_shearing__soft_teacher_slope_along_x():
    slope = -math.tanh(math.radians(30.0))
    assert slope == pytest.approx(-0.480473, abs=1e-6)
    assert_box(warp_boxes(box(28, 8, 68, 32), shearing(number(slope), number(0.0))), 12.624871, 8, 64.156218, 32)


def test_shearing__x_comes_first():
    matrix = shearing(number(0.5), number(2.0))[0]
    along_x = torch.tensor([[1.0, 0.5], [0.0, 1.0]], dtype=torch.float64)
    along_y = torch.tensor([[1.0, 0.0], [2.0, 1.0]], dtype=torch.float64)
    assert torch.equal(matrix[:2, :2], along_y @ along_x)


@pytest.mark.parametrize("degrees", [30.0, -30.0])
def test_rotation__stac_about_the_center(degrees):
    matrix = about(rotation(number(degrees)), number(100.0), number(50.0))
    assert_box(warp_boxes(box(80, 40, 120, 60), matrix), 77.679492, 31.339746, 122.320508, 68.660254)


def test_shearing__stac_about_the_center():
    slope = math.tan(math.radians(30.0))
    matrix = about(shearing(number(slope), number(0.0)), number(100.0), number(50.0))
    assert_box(warp_boxes(box(80, 40, 120, 60), matrix), 74.226497, 40, 125.773503, 60)


def test_rotation__stac_box_that_leaves_the_image():
    matrix = about(rotation(number(30.0)), number(100.0), number(50.0))
    turned = warp_boxes(box(10, 10, 50, 30), matrix)
    assert_box(turned, 32.057714, -29.641016, 76.698730, 7.679492)
    assert float(clip_boxes(turned, torch.tensor([[100, 200]]))[0, 0, 1]) == 0.0


def test_relate__there_and_back_is_the_identity():
    first = about(rotation(number(17.0)), number(30.0), number(20.0))
    second = shearing(number(0.3), number(-0.2)) @ scaling(number(1.7), number(0.6))
    torch.testing.assert_close((relate(first, second) @ relate(second, first))[0], torch.eye(3).double())

"""Shifts, rotation, shear and zoom: how far they go, about which point."""

import math

import pytest
import torch

KEYS = torch.arange(2000)
SIZES = torch.tensor([[40, 80]]).expand(2000, 2)


def draw(parse, **written):
    return parse(written).draw(KEYS, SIZES).homography


def image_of(matrix: torch.Tensor, x: float, y: float) -> torch.Tensor:
    return (matrix @ torch.tensor([x, y, 1.0], dtype=torch.float64))[:, :2]


def assert_spread(values: torch.Tensor, low: float, high: float) -> None:
    """Between the bounds, close to both, and as often in the lower half as in the upper."""
    reach = 0.01 * (high - low)
    assert low <= values.min() <= low + reach
    assert high - reach <= values.max() <= high
    assert 0.45 < (values < (low + high) / 2).float().mean() < 0.55


def test_shifts__reach_their_fraction_of_their_side(parse):
    x, y = draw(parse, type="shift_x"), draw(parse, type="shift_y", fraction=0.25)
    assert_spread(x[:, 0, 2], -8.0, 8.0)
    assert_spread(y[:, 1, 2], -10.0, 10.0)
    assert not x[:, 1, 2].any()
    assert not y[:, 0, 2].any()


def test_rotate__soft_teacher_keeps_the_middle_of_the_pixel_centers(parse):
    matrix = draw(parse, type="rotate")
    assert_spread(torch.atan2(matrix[:, 1, 0], matrix[:, 0, 0]).rad2deg(), -30.0, 30.0)
    torch.testing.assert_close(image_of(matrix, 39.5, 19.5), torch.tensor([[39.5, 19.5]]).double().expand(2000, 2))


def test_rotate__stac_keeps_the_center(parse):
    matrix = draw(parse, type="rotate", rule="stac", degrees=10)
    assert_spread(torch.atan2(matrix[:, 1, 0], matrix[:, 0, 0]).rad2deg(), -10.0, 10.0)
    torch.testing.assert_close(image_of(matrix, 40, 20), torch.tensor([[40.0, 20.0]]).double().expand(2000, 2))


def test_shear__soft_teacher_has_an_angle_for_each_axis_and_keeps_the_corner(parse):
    matrix = draw(parse, type="shear")
    most = math.tanh(math.radians(30.0))
    assert_spread(matrix[:, 0, 1], -most, most)
    assert_spread(matrix[:, 1, 0], -most, most)
    assert abs(torch.corrcoef(torch.stack([matrix[:, 0, 1], matrix[:, 1, 0]]))[0, 1]) < 0.1
    assert not image_of(matrix, 0, 0).any()


def test_shear__stac_has_one_angle_and_keeps_the_center(parse):
    matrix = draw(parse, type="shear", rule="stac")
    most = math.tan(math.radians(30.0))
    assert_spread(matrix[:, 0, 1], -most, most)
    assert torch.equal(matrix[:, 0, 1], matrix[:, 1, 0])
    torch.testing.assert_close(image_of(matrix, 40, 20), torch.tensor([[40.0, 20.0]]).double().expand(2000, 2))


def test_zoom__scales_both_axes_about_the_center(parse):
    matrix = draw(parse, type="zoom", factor=[0.75, 1.3])
    assert_spread(matrix[:, 0, 0], 0.75, 1.3)
    assert torch.equal(matrix[:, 0, 0], matrix[:, 1, 1])
    torch.testing.assert_close(image_of(matrix, 40, 20), torch.tensor([[40.0, 20.0]]).double().expand(2000, 2))


@pytest.mark.parametrize("name", ["shift_x", "shift_y", "rotate", "shear", "zoom"])
def test_affine__images_keep_their_sizes(parse, name):
    assert torch.equal(parse({"type": name}).draw(KEYS, SIZES).sizes, SIZES)

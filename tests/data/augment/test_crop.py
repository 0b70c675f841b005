import pytest
import torch
from pydantic import ValidationError

SIZES = torch.tensor([[40, 60], [60, 40], [8, 90]])


def test_crop__is_a_window_of_the_image_with_every_side_and_place_of_its_range(parse):
    move = parse({"type": "crop", "sides": [10, 13]}).draw(torch.arange(3000), SIZES.repeat(1000, 1))
    corner = -move.homography[:, :2, 2].flip(-1)  # top, left
    assert (move.homography[:, :2, :2] == torch.eye(2, dtype=torch.float64)).all()
    assert ((corner >= 0) & (corner + move.sizes <= SIZES.repeat(1000, 1))).all()
    assert set(move.sizes[::3].flatten().tolist()) == {10, 11, 12, 13}
    assert set(move.sizes[2::3, 0].tolist()) == {8}
    assert set(corner[2::3, 0].tolist()) == {0.0}
    assert set(corner[::3, 0].tolist()) >= set(range(28))
    assert corner[::3, 1].max() == 50


def test_crop__needs_sides_in_order(parse):
    with pytest.raises(ValidationError, match="600 is above 384"):
        parse({"type": "crop", "sides": [600, 384]})

"""Flips: how often, and where a box goes."""

import pytest
import torch

from ssodkit.ops.homography import warp_boxes


@pytest.mark.parametrize(("probability", "low", "high"), [(0.0, 0, 0), (1.0, 2000, 2000), (0.5, 900, 1100)])
def test_flip__mirrors_as_often_as_its_probability_says(parse, probability, low, high):
    move = parse({"type": "flip", "probability": probability}).draw(torch.arange(2000), torch.full((2000, 2), 50))
    assert low <= int((move.homography[:, 0, 0] < 0).sum()) <= high


def test_flip__x_becomes_width_minus_x(parse):
    move = parse({"type": "flip", "probability": 1.0}).draw(torch.zeros(1).long(), torch.tensor([[40, 80]]))
    box = torch.tensor([[[10.0, 20.0, 30.0, 35.0]]], dtype=torch.float64)
    assert warp_boxes(box, move.homography).tolist() == [[[50.0, 20.0, 70.0, 35.0]]]


def test_flip__upside_down_y_becomes_height_minus_y(parse):
    flip = parse({"type": "flip", "probability": 1.0, "direction": "vertical"})
    move = flip.draw(torch.zeros(1).long(), torch.tensor([[40, 80]]))
    box = torch.tensor([[[10.0, 20.0, 30.0, 35.0]]], dtype=torch.float64)
    assert warp_boxes(box, move.homography).tolist() == [[[10.0, 5.0, 30.0, 20.0]]]

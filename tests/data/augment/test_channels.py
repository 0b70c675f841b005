"""Gains and orders of the channels, as drawn."""

from itertools import permutations

import torch

SIZES = torch.full((1200, 2), 50)


def test_channel_permutation__all_six_orders_are_equally_likely(parse):
    (orders,) = parse({"type": "channel_permutation"}).draw(torch.arange(1200), SIZES)
    listed = [tuple(order) for order in orders.tolist()]
    assert set(listed) == set(permutations(range(3)))
    assert min(listed.count(order) for order in permutations(range(3))) > 150


def test_gain__each_channel_has_its_own_factor(parse):
    (factors,) = parse({"type": "gain", "factor": [0.8, 1.2]}).draw(torch.arange(1200), SIZES)
    assert factors.shape == (1200, 3)
    assert 0.8 <= factors.min() < 0.81
    assert 1.19 < factors.max() <= 1.2
    assert torch.corrcoef(factors.T).fill_diagonal_(0.0).abs().max() < 0.1


def test_hsv__factors_reach_their_gains_and_are_drawn_apart(parse):
    (factors,) = parse({"type": "hsv", "hue": 0.015, "saturation": 0.7, "value": 0.4}).draw(torch.arange(1200), SIZES)
    drawn = (factors - 1.0) / torch.tensor([0.015, 0.7, 0.4])
    assert ((drawn.amin(dim=0) < -0.99) & (drawn.amin(dim=0) >= -1.0 - 1e-6)).all()
    assert ((drawn.amax(dim=0) > 0.99) & (drawn.amax(dim=0) <= 1.0 + 1e-6)).all()
    assert torch.corrcoef(factors.T).fill_diagonal_(0.0).abs().max() < 0.1


def test_gray__has_three_equal_channels(parse):
    images = torch.tensor([10, 100, 200], dtype=torch.uint8).view(1, 3, 1, 1)
    seen = parse({"type": "gray"}).apply(images, torch.ones(1, 1, 1, 1, dtype=torch.bool), ())
    assert seen.flatten().tolist() == [84, 84, 84]  # 0.299 x 10 + 0.587 x 100 + 0.114 x 200 = 84.49

"""Noise has the spread that was drawn, on every pixel anew."""

import pytest
import torch

SIZES = torch.full((4, 2), 100)


def noise_of(parse, sigma: float) -> torch.Tensor:
    images = torch.full((4, 3, 100, 100), 128, dtype=torch.uint8)
    noise = parse({"type": "noise", "sigma": [sigma, sigma]})
    parameters = noise.draw(torch.arange(4), SIZES)
    return noise.apply(images, torch.ones(4, 1, 100, 100, dtype=torch.bool), parameters).float() - 128.0


def test_noise__has_no_bias_and_its_spread(parse):
    noise = noise_of(parse, 9.0)
    assert abs(noise.mean()) < 0.1
    assert noise.std() == pytest.approx((81.0 + 1 / 12) ** 0.5, rel=0.01)  # and that of rounding


def test_noise__neighbors_channels_and_images_are_unrelated(parse):
    noise = noise_of(parse, 9.0)
    pairs = [
        (noise[..., 1:], noise[..., :-1]),
        (noise[..., 1:, :], noise[..., :-1, :]),
        (noise[:, 1:], noise[:, :-1]),
        (noise[1:], noise[:-1]),
    ]
    for first, second in pairs:
        assert abs(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1]) < 0.02


def test_blur__draws_from_its_range(parse):
    (sigma,) = parse({"type": "blur", "sigma": [0.3, 1.0]}).draw(torch.arange(500), torch.full((500, 2), 50))
    assert 0.3 <= sigma.min() < 0.32
    assert 0.98 < sigma.max() <= 1.0

"""How strong the published color operations are: the rules from level to parameter."""

import pytest
import torch

from ssodkit.data.augment.color import draw_levels, enhance_factors, posterize_bits, solarize_thresholds

LEVELS = torch.arange(1, 10)
SIZES = torch.full((900, 2), 50)


def test_draw_levels__are_1_to_9_alike():
    counts = torch.bincount(draw_levels(torch.arange(9000)), minlength=10)
    assert counts[0] == 0
    assert len(counts) == 10
    assert counts[1:].min() > 880


def test_posterize_bits__published_numbers():
    assert posterize_bits(LEVELS).tolist() == [4, 4, 3, 3, 2, 2, 2, 1, 1]


def test_solarize_thresholds__of_soft_teacher_rise_and_of_stac_fall():
    rising = [25, 51, 76, 102, 128, 153, 179, 204, 230]
    assert solarize_thresholds(LEVELS, "soft_teacher").tolist() == rising
    assert solarize_thresholds(LEVELS, "stac").tolist() == [256 - threshold for threshold in rising]
    assert solarize_thresholds(torch.tensor([10]), "soft_teacher").tolist() == [255]


def test_enhance_factors__published_numbers():
    wanted = [0.28, 0.46, 0.64, 0.82, 1.0, 1.18, 1.36, 1.54, 1.72]
    assert enhance_factors(LEVELS).tolist() == pytest.approx(wanted)


@pytest.mark.parametrize("name", ["color", "contrast", "brightness", "sharpness"])
def test_enhance__factors_are_published_levels_or_lie_in_a_range(parse, name):
    (published,) = parse({"type": name}).draw(torch.arange(900), SIZES)
    assert set(published.tolist()) == set(enhance_factors(LEVELS).tolist())
    (drawn,) = parse({"type": name, "factor": [0.8, 1.2]}).draw(torch.arange(900), SIZES)
    assert 0.8 <= drawn.min() < 0.81
    assert 1.19 < drawn.max() <= 1.2


def test_posterize_and_solarize__draw_every_level(parse):
    (bits,) = parse({"type": "posterize"}).draw(torch.arange(900), SIZES)
    (thresholds,) = parse({"type": "solarize", "rule": "stac"}).draw(torch.arange(900), SIZES)
    assert set(bits.tolist()) == {1, 2, 3, 4}
    assert set(thresholds.tolist()) == set(solarize_thresholds(LEVELS, "stac").tolist())

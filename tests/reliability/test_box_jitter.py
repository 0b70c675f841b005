import math

import pytest
import torch

from ssodkit.reliability.box_jitter import BoxJitterConfig, shake, spread_in_candidate_sides, spread_in_mean_sides

CANDIDATE = [100.0, 50.0, 200.0, 130.0]
STEADY = [[100, 50, 200, 130], [101, 50.5, 201, 131], [99, 49.5, 199.5, 129], [102, 51, 202, 132]]
LOOSE = [[100, 50, 200, 130], [104, 52, 205, 134], [96, 49, 196, 127], [106, 47, 207, 131]]
LONG_CANDIDATE = [0.0, 0.0, 200.0, 20.0]
LONG = [[0, 0, 200, 20], [2, 0.2, 202, 20.4], [-2, -0.2, 198, 19.8], [1, 0.4, 201, 20.2]]


def one_box(refined):
    return torch.tensor(refined, dtype=torch.float64)[None, :, None]  # batch draws boxes 4


def test_shake__moves_each_coordinate_by_its_own_draw():
    boxes, noise = torch.tensor([[CANDIDATE]]), torch.tensor([[[[1.0, -1.0, 0.5, 2.0]]]])
    torch.testing.assert_close(shake(boxes, noise, 0.06), torch.tensor([[[[106.0, 45.2, 203.0, 139.6]]]]))


def test_shake__a_box_thinner_than_a_pixel_is_shaken_as_one_of_a_pixel():
    boxes, noise = torch.tensor([[[5.0, 5.0, 5.0, 25.0]]]), torch.ones(1, 1, 1, 4)
    torch.testing.assert_close(shake(boxes, noise, 0.5), torch.tensor([[[[5.5, 15.0, 5.5, 35.0]]]]))


@pytest.mark.parametrize(
    ("refined", "spread"), [(STEADY, 0.012024), (LOOSE, 0.038721), (LONG, 0.010725)], ids=["A", "B", "C"]
)
def test_spread_in_mean_sides__is_the_codes(refined, spread):
    assert spread_in_mean_sides(one_box(refined)).item() == pytest.approx(spread, abs=5e-7)


@pytest.mark.parametrize(
    ("candidate", "refined", "spread"),
    [(CANDIDATE, STEADY, 0.012045), (CANDIDATE, LOOSE, 0.039916), (LONG_CANDIDATE, LONG, 0.008936)],
    ids=["A", "B", "C"],
)
def test_spread_in_candidate_sides__is_the_papers(candidate, refined, spread):
    boxes = torch.tensor([[candidate]], dtype=torch.float64)
    assert spread_in_candidate_sides(one_box(refined), boxes).item() == pytest.approx(spread, abs=5e-7)


def test_spread__its_deviation_divides_by_one_less_than_the_draws():
    torch.manual_seed(0)
    refined = torch.tensor(CANDIDATE, dtype=torch.float64) + torch.randn(1, 10, 1, 4, dtype=torch.float64)
    sides = (refined.mean(1)[..., 2:] - refined.mean(1)[..., :2]).repeat(1, 1, 2)
    biased = (((refined - refined.mean(1, keepdim=True)) ** 2).mean(1).sqrt() / sides).mean().item()
    assert biased / spread_in_mean_sides(refined).item() == pytest.approx(0.948683, abs=5e-7)
    assert math.sqrt(9 / 10) == pytest.approx(0.948683, abs=5e-7)


def test_spread__of_equal_answers_is_0_also_for_boxes_without_size():
    assert spread_in_mean_sides(torch.zeros(1, 10, 1, 4)).item() == 0.0
    assert spread_in_candidate_sides(torch.zeros(1, 10, 1, 4), torch.zeros(1, 1, 4)).item() == 0.0


def test_spread__of_no_box_is_empty():
    assert spread_in_mean_sides(torch.zeros(2, 10, 0, 4)).shape == (2, 0)


def test_box_jitter__the_defaults_are_the_papers():
    config = BoxJitterConfig()
    assert (config.draws, config.scale, config.asks.above) == (10, 0.06, 0.5)
    assert config.reads == {"confidence"}
    assert config.writes == "box_jitter"

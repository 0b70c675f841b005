"""The numbers are those that Soft Teacher's class loss should have, by its released code and by its paper."""

import torch
from lesson import normalize

from ssodkit.plugins import load_plugins, members
from ssodkit.structures.teaching import BACKGROUND, IGNORE, Assignment

LOSSES = torch.tensor([[0.3, 0.7, 0.2, 1.0, 2.0, 0.05]], dtype=torch.float64)
WEIGHTS = torch.tensor([[1.0, 1.0, 0.9, 0.5, 0.1, 0.99]], dtype=torch.float64)
INDEX = torch.tensor([[0, 1] + [BACKGROUND] * 4])


def value(name: str, losses: torch.Tensor, weights: torch.Tensor, index: torch.Tensor, quota: int = 0) -> float:
    """The term, or the sum of its parts, with a floor of 1 under each denominator."""
    drawn = ((index != IGNORE) & (weights >= 0.0)).sum(dim=1).to(losses.dtype)
    assignment = Assignment(index, weights, torch.zeros_like(losses), drawn)
    parts = normalize(name, losses, weights, assignment, quota)
    return sum(float(total / denominator.clamp(min=1.0)) for total, denominator in parts.values())


def test_weights__is_the_released_class_loss():
    assert round(value("weights", LOSSES, WEIGHTS, INDEX), 6) == 0.429733


def test_two_means__is_the_printed_class_loss():
    assert round(value("two_means", LOSSES, WEIGHTS, INDEX), 6) == 0.873293


def test_two_means__are_two_terms():
    assignment = Assignment(INDEX, WEIGHTS, torch.zeros_like(LOSSES), torch.tensor([6.0], dtype=torch.float64))
    parts = normalize("two_means", LOSSES, WEIGHTS, assignment)
    values = {name: round(float(total / denominator), 6) for name, (total, denominator) in parts.items()}
    assert values == {"/foreground": 0.5, "/background": 0.373293}


def test_weights__equals_sampled_where_all_weights_are_one():
    ones = torch.ones_like(LOSSES)
    assert round(value("weights", LOSSES, ones, INDEX), 6) == 0.708333
    assert round(value("sampled", LOSSES, ones, INDEX), 6) == 0.708333


def test_weights__never_divides_by_less_than_the_floor():
    losses, reliability = torch.tensor([[2.0, 3.0]]).double(), torch.tensor([[0.2, 0.1]]).double()
    assert round(value("weights", losses, reliability, torch.full((1, 2), BACKGROUND)), 6) == 0.7


def test_sampled_of_each__counts_at_least_one_of_each_kind_per_image():
    losses = torch.ones(3, 4, dtype=torch.float64)
    index = torch.tensor([[0, 0, 0, BACKGROUND], [BACKGROUND] * 4, [IGNORE] * 4])
    weights = (index != IGNORE).double()
    # 3 + 1, then 1 + 4, then 1 + 1
    assert value("sampled_of_each", losses, weights, index) == 8.0 / 11.0


def test_quota__counts_what_could_have_been_drawn():
    losses = torch.ones(2, 4)
    index = torch.full((2, 4), BACKGROUND)
    assert value("quota", losses, torch.ones(2, 4), index, quota=256) == 8.0 / 512.0


def test_positives__counts_positives_that_were_drawn():
    losses = torch.full((1, 4), 3.0)
    index, weights = torch.tensor([[0, 1, 1, BACKGROUND]]), torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    assert value("positives", losses, weights, index) == 3.0


def test_positives_per_image__counts_at_least_one_per_image():
    index = torch.tensor([[0, 0, 1, BACKGROUND], [BACKGROUND] * 4])
    weights = torch.ones(2, 4, dtype=torch.float64)
    assert value("positives_per_image", torch.ones(2, 4).double(), weights, index) == 8.0 / 4.0
    assert value("positives", torch.ones(2, 4).double(), weights * (index >= 0), index) == 3.0 / 3.0


def test_image_means__divides_each_image_by_its_own_positives():
    index = torch.tensor([[0, 0, 1, BACKGROUND], [BACKGROUND] * 4, [0, IGNORE, IGNORE, IGNORE]])
    weights = (index != IGNORE).double()
    losses = torch.tensor([[1.0] * 4, [2.0] * 4, [5.0] * 4], dtype=torch.float64)
    assert value("image_means", losses, weights, index) == (4.0 / 3.0 + 8.0 + 5.0) / 3.0


def test_quality__sums_the_measure_of_the_positives_that_were_drawn():
    index = torch.tensor([[0, 0, 1, BACKGROUND]])
    weights = torch.tensor([[1.0, 1.0, 0.0, 1.0]])
    one = Assignment(index, weights, torch.tensor([[0.9, 0.8, 0.7, 0.3]]), torch.zeros(1))
    total, denominator = normalize("quality", torch.ones(1, 4), weights, one)[""]
    torch.testing.assert_close(denominator, torch.tensor(1.7))
    assert total == 3.0


def test_normalizers__of_nothing_are_zero_with_a_gradient():
    load_plugins()
    for name in members("normalizer"):
        losses = torch.zeros(2, 0, requires_grad=True)
        empty = Assignment(torch.zeros(2, 0, dtype=torch.int64), torch.zeros(2, 0), torch.zeros(2, 0), torch.zeros(2))
        for total, denominator in normalize(name, losses, torch.zeros(2, 0), empty, 256).values():
            assert total.requires_grad, name
            assert total.item() == 0.0, name
            assert denominator >= 0.0, name

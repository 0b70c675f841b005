from dataclasses import replace

import torch
from lesson import answers_of, assigned, lesson_of, normalize

from ssodkit.detectors.criteria.l1 import L1Config
from ssodkit.structures.teaching import IGNORE


def losses_of(
    boxes: torch.Tensor, codes: torch.Tensor, labels: torch.Tensor, goals: torch.Tensor, beta: float = 0.0
) -> torch.Tensor:
    answers = answers_of(boxes.new_zeros(*boxes.shape[:2], 3), "softmax", boxes, codes)
    return L1Config(beta=beta)(answers, lesson_of(labels, 2, goals), torch.ones(labels.shape))


def test_l1__has_the_published_numbers():
    boxes = torch.tensor([[[10.0, 20.0, 50.0, 100.0]]]).double().repeat(1, 512, 1)
    target = torch.tensor([[[12.0, 18.0, 60.0, 110.0]]]).double().expand(1, 512, 4)
    losses = losses_of(boxes, torch.zeros(1, 512, 1, 4), torch.zeros(1, 512, dtype=torch.int64), target)
    assert round(float(losses[0, 0]), 6) == 3.610417
    index = torch.tensor([[0] + [IGNORE] * 511])
    weights = (index >= 0).double()
    one = replace(assigned(index, weights, weights), sampled=torch.tensor([512.0]).double())
    total, denominator = normalize("sampled", losses, weights, one, 512)[""]
    assert round(float(total / denominator), 6) == 0.007052


def test_l1__asks_the_regressor_of_the_class():
    boxes = torch.tensor([[[0.0, 0.0, 10.0, 10.0]]]).repeat(1, 2, 1)
    codes = torch.arange(16.0).view(1, 2, 2, 4)
    losses = losses_of(boxes, codes, torch.tensor([[1, 0]]), boxes)  # wanted codes are 0
    assert losses.tolist() == [[4.0 + 5.0 + 6.0 + 7.0, 8.0 + 9.0 + 10.0 + 11.0]]


def test_l1__beta_makes_small_differences_quadratic():
    boxes = torch.tensor([[[0.0, 0.0, 10.0, 10.0]]])
    codes = torch.tensor([[[[0.1, 0.0, 1.0, 0.0]]]])
    loss = losses_of(boxes, codes, torch.tensor([[0]]), boxes, beta=0.5)
    torch.testing.assert_close(loss, torch.tensor([[0.5 * 0.1**2 / 0.5 + 1.0 - 0.25]]))


def test_l1__of_nothing_is_empty():
    nothing = torch.zeros(2, 0, 4)
    labels = torch.zeros(2, 0, dtype=torch.int64)
    assert losses_of(nothing, torch.zeros(2, 0, 1, 4), labels, nothing).shape == (2, 0)

import torch
from lesson import answers_of, lesson_of

from ssodkit.detectors.criteria.binary import BinaryConfig


def test_binary__sums_over_the_classes_and_background_has_none():
    logits = torch.tensor([[[2.0, -1.0], [2.0, -1.0]]])
    losses = BinaryConfig()(answers_of(logits), lesson_of(torch.tensor([[1, 2]]), 2), torch.ones(1, 2))
    quiet = torch.nn.functional.softplus(logits[0, 0])  # -log(1 - p)
    loud = torch.nn.functional.softplus(-logits[0, 0])  # -log p
    torch.testing.assert_close(losses, torch.stack([quiet[0] + loud[1], quiet[0] + quiet[1]])[None])


def test_binary__soft_targets_pull_less():
    logits = torch.zeros(1, 1, 1, requires_grad=True)
    BinaryConfig()(answers_of(logits), lesson_of(torch.tensor([[0]]), 1), torch.tensor([[0.7]])).sum().backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.tensor([[[0.5 - 0.7]]]))


def test_binary__of_nothing_is_empty():
    lesson = lesson_of(torch.zeros(2, 0, dtype=torch.int64), 3)
    assert BinaryConfig()(answers_of(torch.zeros(2, 0, 3)), lesson, torch.zeros(2, 0)).shape == (2, 0)

import torch
from lesson import answers_of, lesson_of
from torch.nn.functional import cross_entropy

from ssodkit.detectors.criteria.softmax import SoftmaxConfig

LOGITS = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([[0, 1, 2, 3, 0], [3, 3, 2, 1, 0]])
"""3 is background."""


def losses(config: SoftmaxConfig, labels: torch.Tensor, strength: torch.Tensor) -> torch.Tensor:
    return config(answers_of(LOGITS, "softmax"), lesson_of(labels, 3), strength)


def test_softmax__is_cross_entropy_with_background_as_last_column():
    expected = cross_entropy(LOGITS.transpose(1, 2), LABELS, reduction="none")
    torch.testing.assert_close(losses(SoftmaxConfig(), LABELS, torch.ones(2, 5)), expected)


def test_softmax__a_soft_target_says_background_with_the_rest():
    soft = losses(SoftmaxConfig(), LABELS, torch.full((2, 5), 0.8))
    hard, background = (losses(SoftmaxConfig(), labels, torch.ones(2, 5)) for labels in (LABELS, LABELS * 0 + 3))
    torch.testing.assert_close(soft, 0.8 * hard + 0.2 * background)


def test_softmax__focus_looks_away_from_easy_candidates():
    probs = LOGITS.softmax(dim=-1).gather(-1, LABELS[..., None])[..., 0]
    expected = (1.0 - probs) ** 1.5 * losses(SoftmaxConfig(), LABELS, torch.ones(2, 5))
    torch.testing.assert_close(losses(SoftmaxConfig(focus=1.5), LABELS, torch.ones(2, 5)), expected)


def test_softmax__of_nothing_is_empty():
    answers, lesson = answers_of(torch.zeros(2, 0, 2), "softmax"), lesson_of(torch.zeros(2, 0, dtype=torch.int64), 1)
    assert SoftmaxConfig()(answers, lesson, torch.zeros(2, 0)).shape == (2, 0)

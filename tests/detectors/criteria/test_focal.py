import torch
from lesson import answers_of, assigned, lesson_of, normalize

from ssodkit.detectors.criteria.focal import FocalConfig
from ssodkit.structures.teaching import BACKGROUND, IGNORE, Assignment


def assignment(index: list[int], qualities: list[float]) -> Assignment:
    return assigned(torch.tensor([index]), torch.tensor([qualities], dtype=torch.float64))


def test_focal__of_four_anchors_has_the_published_numbers():
    logits = torch.tensor([[[1.5, -2.0], [-2.0, -2.0], [-2.0, 1.0], [-3.0, -3.0]]], dtype=torch.float64)
    losses = FocalConfig()(answers_of(logits), lesson_of(torch.tensor([[0, 2, 2, 2]]), 2), torch.ones(1, 4).double())
    weights = torch.tensor([[1.0, 1.0, 0.0, 1.0]]).double()
    one = assignment([0, BACKGROUND, IGNORE, BACKGROUND], [0.0] * 4)
    total, denominator = normalize("positives_per_image", losses, weights, one)[""]
    assert round(float(total), 6) == 0.005898
    assert round(float(total / 4.0), 6) == 0.001474  # as if other images had three more positives
    assert denominator == 1.0


def test_focal__with_the_sum_of_ious_is_consistent_teachers_class_loss():
    probs = [
        [0.60, 0.10, 0.05],
        [0.70, 0.10, 0.05],
        [0.50, 0.20, 0.05],
        [0.30, 0.40, 0.05],
        [0.10, 0.80, 0.05],
        [0.10, 0.55, 0.05],
        [0.02, 0.02, 0.02],
    ]
    ious = [0.708061, 0.931034, 0.866667, 0.0, 0.8, 0.891975, 0.0]
    labels = torch.tensor([[0, 0, 0, 3, 1, 1, 3]])
    answers = answers_of(torch.tensor([probs], dtype=torch.float64).logit())
    losses = FocalConfig()(answers, lesson_of(labels, 3), torch.ones(1, 7).double())
    one = assignment([0, 0, 0, BACKGROUND, 1, 1, BACKGROUND], ious)
    total, denominator = normalize("quality", losses, torch.ones(1, 7).double(), one)[""]
    assert round(float(total), 6) == 0.200102
    assert round(float(denominator), 6) == 4.197737
    assert round(float(total / denominator), 6) == 0.047669


def test_focal__of_soft_targets_without_balance_is_semi_detrs_class_loss():
    probs = [[0.9, 0.05], [0.6, 0.1], [0.4, 0.2], [0.8, 0.02], [0.3, 0.7], [0.1, 0.5], [0.5, 0.9], [0.02, 0.03]]
    match = [[0.9 * 0.8**6, 0.6 * 0.9**6, 0.4 * 0.7**6, 0.0], [0.7 * 0.75**6, 0.5 * 0.85**6, 0.9 * 0.6**6, 0.0]]
    best = torch.tensor([[0.9], [0.85]], dtype=torch.float64)
    soft = torch.tensor(match, dtype=torch.float64)
    soft = (soft / (soft.amax(dim=1, keepdim=True) + 1e-7) * best).view(1, 8)
    labels = torch.tensor([[0, 0, 0, 2, 1, 1, 1, 2]])
    answers = answers_of(torch.tensor([probs], dtype=torch.float64).logit())
    losses = FocalConfig(balance=None)(answers, lesson_of(labels, 2), soft)
    assert abs(float(losses.sum()) - 2.434470) < 1e-6


def test_focal__of_nothing_is_empty():
    lesson = lesson_of(torch.zeros(2, 0, dtype=torch.int64), 3)
    assert FocalConfig()(answers_of(torch.zeros(2, 0, 3)), lesson, torch.zeros(2, 0)).shape == (2, 0)

"""Semi-DETR's numbers, worked out from its equations, and what the step does with them."""

import pytest
import torch
from lesson import answers_of

from ssodkit.detectors.criteria.focal import FocalConfig
from ssodkit.detectors.normalizers.measured import QualityConfig as QualityNormalizer
from ssodkit.structures.lessons import TargetLesson
from ssodkit.structures.teaching import Assignment, Targets

SCORE = [[0.9, 0.05], [0.6, 0.1], [0.4, 0.2], [0.8, 0.02], [0.3, 0.7], [0.1, 0.5], [0.5, 0.9], [0.02, 0.03]]
TARGET = [0, 0, 0, -1, 1, 1, 1, -1]
SOFT = [0.665915, 0.9, 0.132826, 0.0, 0.561566, 0.85, 0.189271, 0.0]


def many() -> TargetLesson:
    """What the eight queries of the example learn, one to many."""
    targets = Targets.empty(1, length=2)
    targets.labels.copy_(torch.tensor([[0, 1]]))
    quality = torch.tensor([SOFT], dtype=torch.float64)
    assignment = Assignment.matched(torch.tensor([TARGET]), quality, torch.ones(1, 8, dtype=torch.bool))
    return TargetLesson(assignment, 2, targets)


def test_one_to_many__loses_as_much_as_the_example():
    lesson, answers = many(), answers_of(torch.tensor([SCORE], dtype=torch.float64).logit())
    positive, quality = lesson.assignment.positive, lesson.assignment.quality
    strength = torch.where(positive, quality, 1.0)
    of_class = FocalConfig(balance=None, focus=2.0)(answers, lesson, strength)
    assert of_class.sum().item() == pytest.approx(2.434470, abs=5e-6)
    l1 = torch.tensor([[0.10, 0.04, 0.12, 0.0, 0.20, 0.06, 0.25, 0.0]]).double()
    giou = torch.tensor([[0.78, 0.89, 0.66, 0.0, 0.52, 0.84, 0.40, 0.0]]).double()
    for weight, losses, weights, expected in (
        (2.0, of_class, torch.ones_like(quality), 1.475626),
        (5.0, l1, quality * positive, 0.498794),
        (2.0, 1.0 - giou, quality * positive, 0.490837),
    ):
        total, denominator = QualityNormalizer()(losses, weights, lesson, answers, 0)[""]
        assert denominator.item() == pytest.approx(3.299578, abs=5e-6)
        assert (weight * total / denominator).item() == pytest.approx(expected, abs=5e-6)

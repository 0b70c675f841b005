"""Distances between box codes; numbers of Humble Teacher's equations, worked out by hand."""

import pytest
import torch
from lesson import answers_of

from ssodkit.assigners.regions.everything import EverythingConfig
from ssodkit.detectors.criteria.codes import CodesConfig
from ssodkit.structures.lessons import AnswerLesson
from ssodkit.structures.predictions import Predictions

THEIRS = [[0.10, -0.20, 0.05, 0.30], [0.0, 0.1, -0.2, 0.0], [0.4, 0.0, 0.0, -0.3]]
MINE = [[0.0, -0.10, 0.05, 0.10], [0.0, 0.1, 0.1, 0.4], [0.4, 0.0, 0.0, -0.3]]


def answers(codes: torch.Tensor) -> Predictions:
    return answers_of(torch.zeros(*codes.shape[:2], 2), codes=codes)


def distances(mine: torch.Tensor, theirs: torch.Tensor, **fields) -> torch.Tensor:
    others = answers(theirs)
    lesson = AnswerLesson(EverythingConfig()(others), 2, others)
    return CodesConfig(**fields)(answers(mine), lesson, torch.ones(mine.shape[:2]))


def rows(codes: list[list[float]]) -> torch.Tensor:
    return torch.tensor(codes, dtype=torch.float64)[None, :, None]


def test_codes__norm_and_square_have_the_published_numbers():
    norm, squared = (distances(rows(MINE), rows(THEIRS), distance=one) for one in ("norm", "squared"))
    torch.testing.assert_close(norm, torch.tensor([[0.244949, 0.5, 0.0]]).double(), rtol=0, atol=1e-6)
    assert (norm.mean().item(), norm.sum().item()) == pytest.approx((0.248316, 0.744949), abs=1e-6)
    assert squared.mean().item() == pytest.approx(0.103333, abs=1e-6)
    assert CodesConfig().distance == "norm"


def test_codes__all_regressors_of_a_candidate_are_one_vector():
    mine, theirs = rows(MINE), rows(THEIRS)
    both = distances(mine.expand(-1, -1, 2, -1), theirs.expand(-1, -1, 2, -1))
    torch.testing.assert_close(both, 2.0**0.5 * distances(mine, theirs))


@pytest.mark.parametrize("distance", ["norm", "squared"])
def test_codes__of_the_same_are_zero_with_a_gradient_of_zero(distance: str):
    mine = rows(THEIRS).requires_grad_()
    losses = distances(mine, mine.detach(), distance=distance)
    losses.sum().backward()
    assert not losses.any()
    assert mine.grad is not None
    assert not mine.grad.any()


def test_codes__of_nothing_are_empty():
    assert distances(torch.zeros(2, 0, 1, 4), torch.zeros(2, 0, 1, 4)).shape == (2, 0)

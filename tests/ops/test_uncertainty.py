"""Unbiased Teacher v2's numbers, worked out from its equations, with torch's likelihood as the other oracle."""

import math

import pytest
import torch
from torch.nn.functional import gaussian_nll_loss

from ssodkit.ops.uncertainty import are_surer, certainty, expected_bin, gaussian_nll

THEIRS = torch.tensor([[-3.0, -2.5, -1.5, -2.0], [-2.2, -1.0, -3.0, -1.4]], dtype=torch.float64)
MINE = torch.tensor([[-1.0, -2.4, -0.5, -1.0], [-2.0, -0.4, -1.2, -0.2]], dtype=torch.float64)


def test_expected_bin__has_the_published_numbers():
    peaked = torch.zeros(17, dtype=torch.float64)
    peaked[3], peaked[4] = 5.0, 4.0
    answer = expected_bin(torch.stack([torch.zeros(17).double(), peaked]))
    torch.testing.assert_close(answer, torch.tensor([8.0, 3.635738]).double(), rtol=0.0, atol=5e-7)


def test_gaussian_nll__has_the_published_number_and_is_torchs():
    residuals = torch.tensor([3.2 - 3.0, 2.5 - 2.8, 4.0 - 4.1, 5.0 - 4.6], dtype=torch.float64)
    uncertainty = torch.tensor([0.0, -1.0, 0.5, 1.0], dtype=torch.float64)
    answer = gaussian_nll(residuals, uncertainty)
    assert answer.item() == pytest.approx(1.746752, abs=5e-7)
    variance = uncertainty.sigmoid().square()
    oracle = gaussian_nll_loss(residuals, torch.zeros(4).double(), variance, full=True, eps=1e-12, reduction="sum")
    torch.testing.assert_close(answer, oracle)


def test_gaussian_nll__is_finite_with_a_finite_gradient_where_half_precision_has_no_sigma():
    uncertainty = torch.tensor([[-20.0, -20.0, 20.0, 20.0]], dtype=torch.float16, requires_grad=True)
    answer = gaussian_nll(torch.zeros(1, 4, dtype=torch.float16), uncertainty)
    (gradient,) = torch.autograd.grad(answer.sum(), uncertainty)
    assert answer.dtype == torch.float32
    assert answer.item() == pytest.approx(-40.0 + 2.0 * math.log(2.0 * math.pi), abs=1e-3)
    assert gradient.tolist() == [[1.0, 1.0, 0.0, 0.0]]


def test_certainty__has_the_published_numbers():
    theirs = torch.tensor([[0.952574, 0.924142, 0.817574, 0.880797], [0.900250, 0.731059, 0.952574, 0.802184]])
    mine = torch.tensor([[0.731059, 0.916827, 0.622459, 0.731059], [0.880797, 0.598688, 0.768525, 0.549834]])
    torch.testing.assert_close(certainty(THEIRS), theirs.double(), rtol=0.0, atol=1e-6)
    torch.testing.assert_close(certainty(MINE), mine.double(), rtol=0.0, atol=1e-6)
    assert certainty(torch.tensor(-1.386294)).item() == pytest.approx(0.8, abs=1e-6)


@pytest.mark.parametrize(("above", "mask"), [(0.8, [[1, 0, 1, 1], [0, 0, 1, 1]]), (0.5, [[1, 0, 1, 1], [0, 1, 1, 1]])])
def test_are_surer__side_by_side_above_the_number_and_the_margin(above, mask):
    assert are_surer(certainty(THEIRS), certainty(MINE), above, 0.1).int().tolist() == mask


def test_uncertainty__of_nothing_is_nothing():
    nothing = torch.zeros(2, 0, 4)
    assert gaussian_nll(nothing, nothing).shape == (2, 0)
    assert expected_bin(torch.zeros(2, 0, 4, 17)).shape == (2, 0, 4)
    assert are_surer(nothing, nothing, 0.8, 0.1).shape == (2, 0, 4)


def test_gaussian_nll__is_finite_however_sure_a_network_is():
    uncertainty = torch.tensor([[-1e4, -50.0, 0.0, 1e4]], requires_grad=True)
    loss = gaussian_nll(torch.zeros(1, 4), uncertainty)
    (gradient,) = torch.autograd.grad(loss.sum(), uncertainty)
    assert loss.isfinite().all()
    assert gradient.isfinite().all()

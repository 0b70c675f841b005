"""CSD's published numbers, and what scipy says."""

import torch
from scipy.spatial.distance import jensenshannon

from ssodkit.ops.divergence import half_jeffreys, jensen_shannon

P = torch.tensor([[0.2, 0.7, 0.1], [0.8, 0.15, 0.05], [0.3, 0.3, 0.4]], dtype=torch.float64)
Q = torch.tensor([[0.25, 0.55, 0.2], [0.3, 0.6, 0.1], [0.6, 0.1, 0.3]], dtype=torch.float64)


def near(actual: torch.Tensor, expected: list[float]) -> None:
    torch.testing.assert_close(actual, torch.tensor(expected).double(), rtol=0.0, atol=1e-6)


def test_jensen_shannon__has_the_published_numbers():
    near(jensen_shannon(P, Q), [0.014398, 0.135484, 0.055231])
    scipy = [float(jensenshannon(p, q)) ** 2 for p, q in zip(P.tolist(), Q.tolist(), strict=True)]
    near(jensen_shannon(P, Q), scipy)
    near(jensen_shannon(Q, P), scipy)


def test_half_jeffreys__has_the_published_numbers():
    near(half_jeffreys(P, Q), [0.058323, 0.574452, 0.228217])
    plain = 0.5 * ((Q - P) * (Q / P).log()).sum(dim=-1)
    near(half_jeffreys(P, Q), plain.tolist())


def test_divergences__of_certain_and_of_equal_answers_are_finite_with_finite_gradients():
    sure = torch.tensor([[1e4, -1e4], [0.3, 0.1], [-1e4, 1e4]], requires_grad=True)
    other = torch.tensor([[-1e4, 1e4], [0.3, 0.1], [-1e4, 1e4]])
    for divergence in (jensen_shannon, half_jeffreys):
        apart = divergence(sure.softmax(dim=-1), other.softmax(dim=-1))
        assert apart.isfinite().all()
        assert apart[0] > 0.69
        torch.testing.assert_close(apart[1:], torch.zeros(2))
        (gradient,) = torch.autograd.grad(apart.sum(), sure)
        assert gradient.isfinite().all()
        torch.testing.assert_close(gradient[1:], torch.zeros(2, 2))
        assert divergence(P[:0], Q[:0]).shape == (0,)

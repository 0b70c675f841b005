import math

import pytest
import torch
from torch.nn import functional
from torchvision.ops import sigmoid_focal_loss

from ssodkit.ops.losses import sigmoid_cross_entropy, sigmoid_focal, smooth_l1, softmax_cross_entropy


def test_sigmoid_cross_entropy__takes_soft_targets():
    logits, targets = torch.tensor([0.0, 2.0]), torch.tensor([0.3, 1.0])
    expected = -(targets * logits.sigmoid().log() + (1.0 - targets) * (1.0 - logits.sigmoid()).log())
    torch.testing.assert_close(sigmoid_cross_entropy(logits, targets), expected)


@pytest.mark.parametrize(
    ("logit", "target", "expected"),
    [(-2.0, 1.0, 0.412520), (-2.0, 0.0, 0.001353), (1.5, 1.0, 0.001676), (1.5, 0.0, 0.852954)],
)
def test_sigmoid_focal__has_the_published_numbers(logit: float, target: float, expected: float):
    loss = sigmoid_focal(torch.tensor([logit]).double(), torch.tensor([target]), focus=2.0, balance=0.25)
    assert round(float(loss), 6) == expected


def test_sigmoid_focal__at_the_initial_probability_has_the_published_numbers():
    logits = torch.full((2,), math.log(0.01 / 0.99)).double()
    background, object_ = sigmoid_focal(logits, torch.tensor([0.0, 1.0]), focus=2.0, balance=0.25).tolist()
    assert f"{background:.2e}" == "7.54e-07"
    assert round(object_, 6) == 1.128382


@pytest.mark.parametrize("soft", [False, True])
def test_sigmoid_focal__equals_torchvision_with_hard_targets_and_not_with_soft_ones(soft: bool):
    generator = torch.Generator().manual_seed(0)
    logits = 3.0 * torch.randn(200, generator=generator, dtype=torch.float64)
    targets = torch.rand(200, generator=generator, dtype=torch.float64)
    targets = targets if soft else targets.round()
    same = torch.allclose(
        sigmoid_focal(logits, targets, 2.0, 0.25), sigmoid_focal_loss(logits, targets), rtol=1e-10, atol=1e-12
    )
    assert same != soft


def test_sigmoid_focal__of_soft_targets_is_the_distance_squared_times_cross_entropy():
    probs = torch.tensor([0.9, 0.6, 0.4], dtype=torch.float64)
    targets = torch.tensor([0.665915, 0.9, 0.132826], dtype=torch.float64)
    expected = (targets - probs) ** 2 * functional.binary_cross_entropy(probs, targets, reduction="none")
    torch.testing.assert_close(sigmoid_focal(probs.logit(), targets, 2.0, None), expected)


@pytest.mark.parametrize("focus", [0.0, 0.5, 2.0])
def test_sigmoid_focal__has_a_finite_gradient_when_sure(focus: float):
    logits = torch.tensor([200.0, -200.0, 200.0], requires_grad=True)
    sigmoid_focal(logits, torch.tensor([1.0, 0.0, 0.0]), focus, 0.25).sum().backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.tensor([0.0, 0.0, 0.75]))


def test_softmax_cross_entropy__without_focus_is_cross_entropy():
    logits = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[0, 1, 2, 3, 0], [3, 3, 2, 1, 0]])
    expected = functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
    torch.testing.assert_close(softmax_cross_entropy(logits, functional.one_hot(labels, 4).float()), expected)


def test_softmax_cross_entropy__focus_weighs_by_what_is_missing():
    logits = torch.tensor([0.9, 0.1]).log()[None]  # probabilities 0.9 and 0.1
    loss = softmax_cross_entropy(logits.expand(2, 2), torch.eye(2), focus=1.5)
    expected = torch.tensor([-(0.1**1.5) * math.log(0.9), -(0.9**1.5) * math.log(0.1)])
    torch.testing.assert_close(loss, expected)


def test_softmax_cross_entropy__has_unbiased_teachers_numbers():
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 2.0], [1.0, 1.0, 1.0], [-1.0, 0.0, 3.0]]).double()
    labels = functional.one_hot(torch.tensor([0, 2, 1, 0])).double()
    cross = softmax_cross_entropy(logits, labels)
    focal = softmax_cross_entropy(logits, labels, focus=1.5)
    assert [round(value, 6) for value in cross.tolist()] == [0.239545, 0.407606, 1.098612, 4.065884]
    assert [round(value, 6) for value in (-cross).exp().tolist()] == [0.786986, 0.665241, 0.333333, 0.017148]
    assert [round(value, 6) for value in focal.tolist()] == [0.023550, 0.078948, 0.598009, 3.961752]
    assert (round(focal.mean().item(), 6), round(cross.mean().item(), 6)) == (1.165565, 1.452912)


def test_softmax_cross_entropy__of_soft_targets_is_their_mean():
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    first, second = torch.eye(4)[0].expand(6, 4), torch.eye(4)[3].expand(6, 4)
    for focus in (0.0, 1.5):
        apart = 0.3 * softmax_cross_entropy(logits, first, focus) + 0.7 * softmax_cross_entropy(logits, second, focus)
        torch.testing.assert_close(softmax_cross_entropy(logits, 0.3 * first + 0.7 * second, focus), apart)


@pytest.mark.parametrize("focus", [0.5, 1.5])
@pytest.mark.parametrize("target", [0, 1])
def test_softmax_cross_entropy__with_focus_has_a_finite_gradient_when_sure(focus: float, target: int):
    logits = torch.tensor([[200.0, 0.0]], requires_grad=True)
    softmax_cross_entropy(logits, torch.eye(2)[target][None], focus).sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("beta", [0.0, 1.0 / 9.0, 1.0])
def test_smooth_l1__equals_torch(beta: float):
    difference = torch.linspace(-2.0, 2.0, 41)
    expected = functional.smooth_l1_loss(difference, torch.zeros(41), beta=beta, reduction="none")
    torch.testing.assert_close(smooth_l1(difference, beta), expected)


def test_losses__are_fp32_where_logits_are_not():
    half = torch.zeros(3, 2, dtype=torch.bfloat16)
    assert sigmoid_cross_entropy(half, half).dtype == torch.float32
    assert sigmoid_focal(half, half, 2.0, 0.25).dtype == torch.float32
    assert softmax_cross_entropy(half, half).dtype == torch.float32
    assert smooth_l1(half, 0.0).dtype == torch.float32


def test_losses__of_nothing_are_empty():
    assert sigmoid_cross_entropy(torch.zeros(2, 0), torch.zeros(2, 0)).shape == (2, 0)
    assert sigmoid_focal(torch.zeros(2, 0), torch.zeros(2, 0), 2.0, None).shape == (2, 0)
    assert softmax_cross_entropy(torch.zeros(2, 0, 3), torch.zeros(2, 0, 3)).shape == (2, 0)
    assert smooth_l1(torch.zeros(2, 0, 4), 0.0).shape == (2, 0, 4)

import pytest
import torch

from ssodkit.ops.sines import logit, sine_code

NEAR = {"rtol": 0.0, "atol": 1e-6}


def test_sine_code__of_a_box_has_the_published_numbers():
    x, y, width, height = 0.5, 0.25, 0.1, 0.2
    code = sine_code(torch.tensor([y, x, width, height]), 128, 10_000.0)
    assert code.shape == (512,)
    assert code.norm().item() == pytest.approx(16.0, abs=1e-5)
    torch.testing.assert_close(code[0:4], torch.tensor([1.0, 0.0, 0.977918, 0.208991]), **NEAR)
    torch.testing.assert_close(code[128:132], torch.tensor([0.0, -1.0, 0.408751, -0.912646]), **NEAR)
    torch.testing.assert_close(code[256:260], torch.tensor([0.587785, 0.809017, 0.517649, 0.855593]), **NEAR)
    torch.testing.assert_close(code[384:388], torch.tensor([0.951057, 0.309017, 0.885794, 0.464078]), **NEAR)


def test_sine_code__of_a_cell_has_the_published_numbers():
    code = sine_code(torch.tensor([[0.5, 0.5]]), 128, 20.0)
    expected = torch.tensor([0.0, -1.0, 0.143170, -0.989698, 0.277085, -0.960846])
    assert code.shape == (1, 256)
    for axis in (0, 128):
        torch.testing.assert_close(code[0, axis : axis + 6], expected, **NEAR)


def test_sine_code__is_fp32_or_finer_and_has_gradients():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = torch.tensor([0.3], dtype=torch.bfloat16)
        assert torch.equal(sine_code(rounded, 8, 20.0), sine_code(rounded.float(), 8, 20.0))
    positions = torch.tensor([[0.3, 0.6]], dtype=torch.float64, requires_grad=True)
    assert sine_code(positions, 8, 20.0).dtype == torch.float64
    assert torch.autograd.gradcheck(lambda seen: sine_code(seen, 8, 20.0), positions)


def test_sine_code__of_nothing_is_nothing():
    assert sine_code(torch.zeros(2, 0, 4), 8, 20.0).shape == (2, 0, 32)


@pytest.mark.parametrize(("clamp", "lowest"), [(1e-3, -6.907755), (1e-5, -11.512925)])
def test_logit__ends_where_the_clamp_says(clamp: float, lowest: float):
    ends = logit(torch.tensor([0.0, 1.0, -0.5, 1.5], dtype=torch.float64), clamp)
    expected = torch.tensor([lowest, -lowest, lowest, -lowest], dtype=torch.float64)
    torch.testing.assert_close(ends, expected, **NEAR)


def test_logit__is_the_inverse_of_the_sigmoid_between_the_ends():
    logits = torch.linspace(-6.0, 6.0, 25, dtype=torch.float64)
    torch.testing.assert_close(logit(logits.sigmoid(), 1e-3), logits, rtol=1e-12, atol=1e-12)


def test_logit__is_fp32_of_whatever_it_is_given():
    rounded = torch.tensor([0.3, 0.9], dtype=torch.bfloat16)
    assert torch.equal(logit(rounded, 1e-3), logit(rounded.float(), 1e-3))
    assert logit(torch.zeros(2, 0), 1e-3).shape == (2, 0)

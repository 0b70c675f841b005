import copy
import math

import pytest
import torch
from torch import nn

from ssodkit.nn.ema import move_average

OK, NOT_OK = torch.tensor(True), torch.tensor(False)


def scalar(value: float) -> nn.Linear:
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, value)
    return layer


def small_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))


def test_move_average__is_the_printed_formula():
    average, source = scalar(1.0), scalar(2.0)
    move_average(average, source, 0.75, OK)
    assert average.weight.item() == 1.25
    assert source.weight.item() == 2.0


def test_move_average__late_phase_of_soft_teacher_and_all_of_humble_teacher():
    average, source, seen = scalar(1.0).double(), scalar(2.0).double(), []
    for _ in range(1000):
        move_average(average, source, 0.999, OK)
        seen.append(average.weight.item())
    assert seen[:3] == pytest.approx([1.001, 1.001999, 1.002997], abs=5e-7)
    assert 2.0 - seen[-1] == pytest.approx(0.367695, abs=5e-7)  # what is left of the start


def test_move_average__three_steps_of_unbiased_teacher():
    average, source, seen = scalar(1.0).double(), scalar(1.0).double(), []
    for value in (1.1, 1.2, 1.3):
        nn.init.constant_(source.weight, value)
        move_average(average, source, 0.9996, OK)
        seen.append(average.weight.item())
    assert seen == pytest.approx([1.00004, 1.000119984, 1.000239936], abs=5e-10)


@pytest.mark.parametrize(("momentum", "half_life"), [(0.9996, 1732.5), (0.999, 692.8)])
def test_move_average__of_unbiased_teacher_forgets_half_of_what_it_was(momentum: float, half_life: float):
    average, source = scalar(1.0).double(), scalar(0.0).double()
    for _ in range(math.floor(half_life)):
        move_average(average, source, momentum, OK)
    before = average.weight.item()
    move_average(average, source, momentum, OK)
    assert before > 0.5 > average.weight.item()
    assert math.log(0.5) / math.log(average.weight.item() / before) == pytest.approx(half_life, abs=0.05)


def test_move_average__momentum_0_copies():
    average, source = small_network(), small_network()
    nn.init.normal_(source[0].weight)
    source.train()(torch.rand(8, 3, 6, 6) * 5.0)
    move_average(average, source, 0.0, OK)
    torch.testing.assert_close(average.state_dict(), source.state_dict())  # statistics of batch norms, too


def test_move_average__is_lerp_in_any_layout():
    average = small_network().to(memory_format=torch.channels_last)
    source = copy.deepcopy(average)
    nn.init.normal_(source[0].weight)
    wanted = torch.lerp(average[0].weight, source[0].weight, 0.25)
    move_average(average, source, 0.75, OK)
    torch.testing.assert_close(average[0].weight, wanted)


def test_move_average__networks_of_different_layout_are_refused():
    average = small_network().to(memory_format=torch.channels_last)
    with pytest.raises(AssertionError):
        move_average(average, small_network(), 0.5, OK)


def test_move_average__does_not_touch_its_source():
    average, source = small_network(), small_network()
    nn.init.normal_(source[0].weight)
    before = copy.deepcopy(source.state_dict())
    move_average(average, source, 0.5, OK)
    assert all(torch.equal(before[name], tensor) for name, tensor in source.state_dict().items())


def test_move_average__floating_point_buffers_follow_and_integers_are_copied():
    average, source = small_network(), small_network()
    source.train()(torch.rand(8, 3, 6, 6) * 5.0)
    wanted = 0.9 * average[1].running_mean + 0.1 * source[1].running_mean
    assert not torch.equal(wanted, average[1].running_mean)
    move_average(average, source, 0.9, OK)
    torch.testing.assert_close(average[1].running_mean, wanted)
    assert average[1].num_batches_tracked.item() == 1


def test_move_average__of_a_step_that_was_not_finite_changes_no_bit():
    average, source = small_network(), small_network()
    for tensor in source.parameters():
        nn.init.constant_(tensor, torch.nan)
    source[1].running_var.fill_(torch.inf)
    source[1].num_batches_tracked.fill_(7)
    before = copy.deepcopy(average.state_dict())
    for momentum in (0.0, 0.9, 0.1):
        move_average(average, source, momentum, NOT_OK)
    after = average.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_move_average__leaves_no_graph():
    average, source = small_network(), small_network()
    move_average(average, source, 0.5, OK)
    assert all(tensor.grad_fn is None for tensor in average.parameters())


def test_move_average__of_nothing_is_nothing():
    move_average(nn.Identity(), nn.Identity(), 0.5, OK)

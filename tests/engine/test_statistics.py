import copy

import pytest
import torch
from torch import nn

from ssodkit.engine.distributed import Processes
from ssodkit.engine.statistics import Statistics

CPU = Processes(torch.device("cpu"))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, momentum=0.03), nn.GroupNorm(2, 4))


@pytest.mark.parametrize("poison", [torch.nan, torch.inf])
def test_statistics__of_a_step_that_is_not_made_are_taken_back(poison):
    module = network()
    module(torch.randn(2, 3, 4, 4))
    expected = copy.deepcopy(module.state_dict())
    statistics = Statistics(module, CPU)
    before = statistics.keep()
    images = torch.randn(2, 3, 4, 4)
    images[0, 0, 0, 0] = poison
    module(images)
    assert not torch.isfinite(module[0].running_mean).all()
    statistics.settle(before, torch.tensor(False))
    for name, value in module.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_statistics__of_a_step_that_is_made_stay(host_questions):
    module, other = network(), network()
    images = torch.randn(2, 3, 4, 4)
    other(images)
    statistics = Statistics(module, CPU)
    before, updated = statistics.keep(), torch.tensor(True)
    module(images)
    with host_questions() as asked:
        statistics.settle(before, updated)
    assert not asked
    for name, value in module.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_statistics__of_frozen_layers_are_not_looked_at():
    assert Statistics(network().eval(), CPU).keep() is None
    assert Statistics(nn.Conv2d(3, 4, 1), CPU).keep() is None

import pytest
import torch
from torch import nn

from ssodkit.engine.optimizer import LossScale, build_optimizer, gradient_norm, set_learning_rate
from ssodkit.recipe.model import AdamWConfig, SgdConfig


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(2, 4))
        self.head = nn.Linear(4, 2)
        self.frozen = nn.Linear(4, 2).requires_grad_(False)


def sizes(optimizer):
    return {
        (group["weight_decay"], group["lr_factor"]): sum(p.numel() for p in group["params"])
        for group in optimizer.param_groups
    }


def test_build_optimizer__one_group_where_all_decay_and_none_for_frozen_parameters():
    assert sizes(build_optimizer(Network(), SgdConfig(weight_decay=0.01))) == {(0.01, 1.0): 12 + 4 + 8 + 8 + 2}


def test_build_optimizer__biases_and_normalization_are_spared():
    optimizer = build_optimizer(Network(), SgdConfig(weight_decay=0.01, decay="weights"))
    assert sizes(optimizer) == {(0.01, 1.0): 12 + 8, (0.0, 1.0): 4 + 8 + 2}


def test_build_optimizer__the_backbone_has_its_own_rate():
    optimizer = build_optimizer(Network(), AdamWConfig(weight_decay=0.01, backbone_lr=0.1))
    assert sizes(optimizer) == {(0.01, 0.1): 12, (0.0, 0.1): 12, (0.01, 1.0): 8, (0.0, 1.0): 2}
    set_learning_rate(optimizer, 0.5)
    assert sorted(group["lr"] for group in optimizer.param_groups) == [0.05, 0.05, 0.5, 0.5]


def test_build_optimizer__biases_that_are_not_normalizations_have_their_own_rate():
    config = SgdConfig(weight_decay=0.01, decay="weights", bias_lr=2.0, backbone_lr=0.1)
    optimizer = build_optimizer(Network(), config)
    assert sizes(optimizer) == {(0.01, 0.1): 12, (0.0, 0.2): 4, (0.0, 0.1): 8, (0.01, 1.0): 8, (0.0, 2.0): 2}


@pytest.mark.parametrize("config", [SgdConfig(nesterov=True), AdamWConfig()], ids=lambda config: config.type)
def test_build_optimizer__a_skipped_first_step_leaves_no_trace(config):
    torch.manual_seed(0)
    skipping, plain = Network(), Network()
    plain.load_state_dict(skipping.state_dict())
    gradients = [torch.randn(2, 4) for _ in range(3)]
    for network, skips in ((skipping, True), (plain, False)):
        optimizer = build_optimizer(network, config)
        set_learning_rate(optimizer, 0.1)
        for step in range(0 if skips else 1, 4):
            network.head.weight.grad = torch.full((2, 4), torch.nan) if step == 0 else gradients[step - 1].clone()
            optimizer.found_inf = torch.tensor(float(step == 0))
            optimizer.step()
    assert torch.equal(skipping.head.weight, plain.head.weight)


def test_gradient_norm__is_the_norm_of_all_gradients_together():
    layer = nn.Linear(1, 1)
    layer.weight.grad, layer.bias.grad = torch.tensor([[3.0]]), torch.tensor([4.0])
    assert gradient_norm(layer.parameters()).item() == 5.0


@pytest.mark.parametrize("poison", [torch.nan, torch.inf])
def test_gradient_norm__is_not_finite_if_one_gradient_is_not(poison):
    layer = nn.Linear(1, 1)
    layer.weight.grad, layer.bias.grad = torch.tensor([[3.0]]), torch.tensor([poison])
    assert not gradient_norm(layer.parameters()).isfinite()


def test_loss_scale__follows_the_rule_of_torch():
    torch.manual_seed(0)
    theirs = torch.amp.GradScaler("cpu", growth_interval=5)
    ours = LossScale(torch.device("cpu"), enabled=True)
    ours.growth_interval = 5
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.0)
    scales = []
    for overflow in (torch.rand(60) < 0.1).tolist():
        theirs.scale(parameter.sum() * (torch.inf if overflow else 1.0)).backward()
        theirs.step(optimizer)
        theirs.update()
        optimizer.zero_grad()
        ours.update(torch.tensor(overflow))
        assert ours.value.item() == theirs.get_scale()
        scales.append(ours.value.item())
    assert len(set(scales)) > 2


def test_loss_scale__is_1_where_it_is_not_enabled():
    scale = LossScale(torch.device("cpu"), enabled=False)
    scale.update(torch.tensor(True))
    assert scale.value.item() == 1.0


def test_loss_scale__goes_on_from_its_state():
    scale = LossScale(torch.device("cpu"), enabled=True)
    for overflow in (True, False, False):
        scale.update(torch.tensor(overflow))
    other = LossScale(torch.device("cpu"), enabled=True)
    other.load_state_dict(scale.state_dict())
    assert other.state_dict() == {"value": torch.tensor(32768.0), "clean_steps": torch.tensor(2)}

import pytest
import torch

from ssodkit.engine.build import build_method, place

CPU = torch.device("cpu")


def test_build_method__weights_come_from_the_recipes_seed_alone(tiny_recipe):
    torch.manual_seed(1)
    first = build_method(tiny_recipe(), 10)
    drawn = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), drawn)  # nobody else's numbers were used up
    same, other = build_method(tiny_recipe(), 10), build_method(tiny_recipe("seed=1"), 10)
    weight = "student.backbone.stem.weight"
    assert torch.equal(first.state_dict()[weight], same.state_dict()[weight])
    assert not torch.equal(first.state_dict()[weight], other.state_dict()[weight])


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")  # torch 2.11's own
def test_place__compiles_backbone_and_neck_and_nothing_else(tiny_recipe):
    plain = build_method(tiny_recipe(), 10)
    recipe = tiny_recipe("engine.compile=true")
    method = place(build_method(recipe, 10), recipe, CPU)
    for network in method.networks().values():
        compiled = [name for name, module in network.named_modules() if module._compiled_call_impl is not None]
        assert compiled == ["backbone", "neck"]
    assert list(method.state_dict()) == list(plain.state_dict())


def test_place__lays_out_channels_last(tiny_recipe):
    recipe = tiny_recipe("engine.channels_last=true")
    method = place(build_method(recipe, 10), recipe, CPU)
    for network in method.networks().values():
        assert network.backbone.stem.weight.is_contiguous(memory_format=torch.channels_last)

from collections import OrderedDict

import pytest
import torch
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from ssodkit.nn.fpn import Fpn, FpnConfig


def test_fpn__equals_torchvision():
    ours = Fpn(FpnConfig(channels=6, extra_levels=1), in_channels=(3, 4, 5), strides=(4, 8, 16))
    theirs = FeaturePyramidNetwork([3, 4, 5], 6, extra_blocks=LastLevelMaxPool())
    for level in range(3):
        ours.lateral[level].load_state_dict(theirs.inner_blocks[level][0].state_dict())
        ours.output[level].load_state_dict(theirs.layer_blocks[level][0].state_dict())
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, width, side, side, generator=generator) for width, side in ((3, 20), (4, 10), (5, 5))]
    expected = theirs(OrderedDict(enumerate(maps)))
    answer = ours(maps)
    assert [level.shape[-1] for level in answer] == [20, 10, 5, 3]
    for level, other in zip(answer, expected.values(), strict=True):
        torch.testing.assert_close(level, other)


@pytest.mark.parametrize(("extra_from", "width"), [("output", 6), ("input", 5)])
def test_fpn__extra_convolutions_equal_torchvisions(extra_from: str, width: int):
    config = FpnConfig(channels=6, extra_levels=2, extra_from=extra_from, extra_relu=True)
    ours = Fpn(config, in_channels=(4, 5), strides=(8, 16))
    theirs = LastLevelP6P7(width, 6)
    ours.extra[0].load_state_dict(theirs.p6.state_dict())
    ours.extra[1].load_state_dict(theirs.p7.state_dict())
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, channels, side, side, generator=generator) for channels, side in ((4, 12), (5, 6))]
    answer = ours(maps)
    expected, _ = theirs(list(answer[:2]), maps, ["0", "1"])
    assert ours.strides == (8, 16, 32, 64)
    assert [level.shape[-1] for level in answer] == [12, 6, 3, 2]
    for level, other in zip(answer, expected, strict=True):
        torch.testing.assert_close(level, other)


def test_fpn__without_relu_the_last_level_sees_negative_cells():
    config = FpnConfig(channels=1, extra_levels=2, extra_from="output", extra_relu=False)
    fpn = Fpn(config, (1,), (8,))
    for convolution in (*fpn.lateral, *fpn.output, *fpn.extra):
        torch.nn.init.ones_(convolution.weight)
    assert fpn([-torch.ones(1, 1, 4, 4)])[2].item() < 0.0


@pytest.mark.parametrize(("init", "bound"), [("fan_in", (3.0 / 300) ** 0.5), ("xavier", (6.0 / 400) ** 0.5)])
def test_fpn__begins_with_the_chosen_variance(init: str, bound: float):
    torch.manual_seed(0)
    weight = Fpn(FpnConfig(channels=100, extra_levels=0, init=init), (300,), (8,)).lateral[0].weight
    assert 0.99 * bound < weight.abs().max() <= bound


def test_fpn__takes_maps_whose_sides_are_odd():
    answer = Fpn(FpnConfig(channels=2, extra_levels=0), (1, 1), (4, 8))(
        [torch.ones(1, 1, 7, 5), torch.ones(1, 1, 4, 3)]
    )
    assert [tuple(level.shape) for level in answer] == [(1, 2, 7, 5), (1, 2, 4, 3)]


def test_fpn__strides_cover_the_extra_levels():
    assert Fpn(FpnConfig(channels=2, extra_levels=2), (1, 1), (4, 8)).strides == (4, 8, 16, 32)

from collections import OrderedDict

import torch
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

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


def test_fpn__takes_maps_whose_sides_are_odd():
    answer = Fpn(FpnConfig(channels=2, extra_levels=0), (1, 1), (4, 8))(
        [torch.ones(1, 1, 7, 5), torch.ones(1, 1, 4, 3)]
    )
    assert [tuple(level.shape) for level in answer] == [(1, 2, 7, 5), (1, 2, 4, 3)]


def test_fpn__strides_cover_the_extra_levels():
    assert Fpn(FpnConfig(channels=2, extra_levels=2), (1, 1), (4, 8)).strides == (4, 8, 16, 32)

import pytest
import torch
from pydantic import ValidationError

from ssodkit.detectors.backbones.small import Small, SmallConfig


def test_small__has_the_maps_it_says():
    backbone = Small(SmallConfig(stem=8, channels=(8, 16, 24), blocks=2))
    maps = backbone(torch.zeros(2, 3, 64, 32))
    assert backbone.strides == (4, 8, 16)
    for level, stride, width in zip(maps, backbone.strides, backbone.channels, strict=True):
        assert level.shape == (2, width, 64 // stride, 32 // stride)


def test_small__may_begin_with_a_coarser_map():
    whole, coarse = (Small(SmallConfig(stem=8, channels=(8, 16, 24), finest=finest)) for finest in (4, 8))
    coarse.load_state_dict(whole.state_dict())
    images = torch.randn(1, 3, 64, 32)
    assert (coarse.strides, coarse.channels) == ((8, 16), (16, 24))
    for map, expected in zip(coarse(images), whole(images)[1:], strict=True):
        assert torch.equal(map, expected)
    with pytest.raises(ValidationError, match="`finest` is one of the strides 4, 8, not 16"):
        SmallConfig(channels=(8, 16), finest=16)


def test_small__every_weight_learns():
    backbone = Small(SmallConfig(stem=8, channels=(8, 16)))
    sum(level.square().sum() for level in backbone(torch.randn(1, 3, 32, 32))).backward()
    for name, parameter in backbone.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0.0, name


def test_small__a_row_does_not_depend_on_its_batch():
    backbone, images = Small(SmallConfig()), torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for together, alone in zip(backbone(images), backbone(images[1:2]), strict=True):
        torch.testing.assert_close(together[1:2], alone, rtol=1e-5, atol=1e-5)


def test_small__needs_no_weights_and_freezes_nothing():
    assert not SmallConfig().is_pretrained
    assert not SmallConfig().freezes


def test_small__refuses_channels_that_are_no_whole_groups():
    with pytest.raises(ValidationError, match="20 channels are no multiple of a group of 8"):
        SmallConfig(channels=(16, 20))

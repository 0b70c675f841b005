import pytest
import torch
from pydantic import ValidationError
from torch.nn.functional import conv2d, group_norm

from ssodkit.nn.projection import Projection, ProjectionConfig


def test_projection__has_the_published_number_of_parameters():
    projection = Projection(ProjectionConfig(), (512, 1024, 2048), (8, 16, 32))
    assert sum(parameter.numel() for parameter in projection.parameters()) == 5_639_168
    assert projection.strides == (8, 16, 32, 64)


def test_projection__extra_levels_read_the_backbones_last_map_then_each_other():
    projection = Projection(ProjectionConfig(channels=4, extra_levels=2, groups=2), (3, 5), (8, 16)).double()
    generator = torch.Generator().manual_seed(0)
    maps = [
        torch.randn(2, width, side, side, generator=generator, dtype=torch.float64) for width, side in ((3, 12), (5, 6))
    ]
    answer = projection(maps)
    weights = {name: parameter for name, parameter in projection.named_parameters() if parameter.dim() == 4}
    assert [tuple(weight.shape[1:]) for weight in weights.values()] == [(3, 1, 1), (5, 1, 1), (5, 3, 3), (4, 3, 3)]
    sources = [(maps[0], 1, 0), (maps[1], 1, 0), (maps[1], 2, 1), (answer[2], 2, 1)]
    for level, weight, (source, stride, padding) in zip(answer, weights.values(), sources, strict=True):
        torch.testing.assert_close(level, group_norm(conv2d(source, weight, None, stride, padding), 2))


def test_projection__begins_xavier_uniform():
    torch.manual_seed(0)
    projection = Projection(ProjectionConfig(channels=64, groups=8), (128,), (32,))
    bounds = {(1, 1): (6.0 / (128 + 64)) ** 0.5, (3, 3): (6.0 / (9 * (128 + 64))) ** 0.5}
    for convolution in (module for module in projection.modules() if isinstance(module, torch.nn.Conv2d)):
        bound = bounds[convolution.kernel_size]
        assert 0.99 * bound < convolution.weight.abs().max() <= bound
        assert not convolution.bias.any()


def test_projection__an_image_of_800_x_1333_has_22223_tokens():
    projection = Projection(ProjectionConfig(channels=1, groups=1), (1, 1, 1), (8, 16, 32))
    levels = projection([torch.zeros(1, 1, *shape) for shape in ((100, 167), (50, 84), (25, 42))])
    assert tuple(levels[3].shape[-2:]) == (13, 21)
    assert sum(level[0, 0].numel() for level in levels) == 22_223


def test_projection__without_extra_levels_has_one_for_each_map():
    projection = Projection(ProjectionConfig(channels=2, groups=1, extra_levels=0), (1, 1), (4, 8))
    answer = projection([torch.ones(1, 1, 7, 5), torch.ones(1, 1, 4, 3)])
    assert projection.strides == (4, 8)
    assert [tuple(level.shape) for level in answer] == [(1, 2, 7, 5), (1, 2, 4, 3)]


def test_projection__groups_that_do_not_divide_the_channels_are_refused():
    with pytest.raises(ValidationError, match="`groups` is 32, which must divide the 48 `channels`"):
        ProjectionConfig(channels=48)

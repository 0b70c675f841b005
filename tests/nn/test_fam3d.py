import pytest
import torch

from ssodkit.nn.fam3d import Fam3d


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def maps(channels: int, sides: tuple[int, ...] = (8, 4, 2)) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(channels)
    return [torch.randn(2, channels, side, side, generator=generator) for side in sides]


def layers(channels: int) -> list[list[torch.Tensor]]:
    """Two layers of unequal width for every level."""
    return [[level[:, :2], level[:, 2:]] for level in maps(channels)]


def test_fam3d__has_the_published_number_of_parameters():
    module = Fam3d(2048, 64, shifts_levels=True)
    assert module.level_weights is not None
    assert [count(part) for part in (module.reduce, module.level_weights, module.shifts)] == [131_136, 6_916, 13_832]
    assert count(module) == 131_136 + 6_916 + 13_832


def test_fam2d__predicts_shifts_from_its_own_level_and_mixes_none():
    module = Fam3d(2048, 64, shifts_levels=False)
    assert module.level_weights is None
    assert count(module.shifts) == 64 * 8 * 9 + 8
    boxes = maps(4)
    changed = [boxes[0], boxes[1] + 1.0, boxes[2]]
    small = Fam3d(6, 3, shifts_levels=False)
    first, second = small(layers(6), boxes, (8, 16, 32)), small(layers(6), changed, (8, 16, 32))
    assert torch.equal(first[0], second[0])
    assert not torch.equal(first[1], second[1])


def test_fam3d__reads_the_layers_side_by_side():
    module = Fam3d(6, 3, shifts_levels=True)
    apart, joined = (
        module(layers(6), maps(4), (8, 16, 32)),
        module([[level] for level in maps(6)], maps(4), (8, 16, 32)),
    )
    for one, other in zip(apart, joined, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shifts_levels", [True, False])
def test_fam3d__begins_near_the_boxes_it_is_given(shifts_levels: bool):
    torch.manual_seed(0)
    boxes = maps(4)
    with torch.no_grad():
        aligned = Fam3d(6, 3, shifts_levels)(layers(6), boxes, (8, 16, 32))
    for before, after in zip(boxes, aligned, strict=True):
        torch.testing.assert_close(after, before, rtol=0.0, atol=0.01)
        assert not torch.equal(after, before)


def test_fam3d__learns_shifts_level_weights_and_boxes():
    torch.manual_seed(0)
    module, features = Fam3d(6, 3, shifts_levels=True), layers(6)
    boxes = [level.requires_grad_() for level in maps(4)]
    sum(level.square().sum() for level in module(features, boxes, (8, 16, 32))).backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0.0, name
    assert all(level.grad.abs().max() > 0.0 for level in boxes)


def test_fam3d__samples_the_mixed_map_in_pixels_as_published():
    """B is [[1, 2], [3, 4]] at stride 8 and 1.5 above; the weight is 0.25 and the shift (0.5, 0.25) everywhere."""
    module = Fam3d(1, 1, shifts_levels=True).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
        module.level_weights.bias.fill_(0.25)
        module.shifts.bias.copy_(torch.tensor([0.5, 0.25] * 4))
    boxes = [torch.tensor([[1.0, 2.0], [3.0, 4.0]]).double().expand(1, 4, 2, 2), torch.full((1, 4, 1, 1), 1.5).double()]
    fine, coarse = module([[torch.zeros_like(level[:, :1])] for level in boxes], boxes, (8, 16))
    assert (8.0 * fine[0, :, 0, 0]).tolist() == [19.5] * 4
    assert fine[0, :, 1, 1].tolist() == [1.40625] * 4
    assert coarse[0, :, 0, 0].tolist() == [1.5 * 0.5 * 0.75] * 4  # its weight is clamped to 0

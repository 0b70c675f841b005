from collections import OrderedDict

import pytest
import torch
from torchvision.ops import MultiScaleRoIAlign

from ssodkit.nn.roi_head import RoiHead, RoiHeadConfig, region_levels

STRIDES = (4, 8, 16, 32, 64)


def pyramid(batch: int = 2, channels: int = 3, side: int = 128) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(batch, channels, side // stride, side // stride, generator=generator) for stride in STRIDES]


def regions(batch: int = 2, count: int = 40) -> torch.Tensor:
    """From 4 to 800 pixels wide, so that every level is asked."""
    generator = torch.Generator().manual_seed(1)
    low = 100.0 * torch.rand(batch, count, 2, generator=generator)
    return torch.cat([low, low + 4.0 * 200.0 ** torch.rand(batch, count, 1, generator=generator)], dim=-1)


def make(**fields) -> RoiHead:
    torch.manual_seed(0)
    config = RoiHeadConfig(**{"cells": 2, "width": 32, "samples": 2, **fields})
    head = RoiHead(config, channels=3, strides=STRIDES, columns=4, boxes=3)
    torch.nn.init.normal_(head.regress.weight)
    return head


@pytest.mark.parametrize("side_and_level", [(32.0, 0), (111.9, 0), (112.0, 1), (224.0, 2), (448.0, 3), (1000.0, 3)])
def test_region_levels__are_the_published_ones(side_and_level: tuple[float, int]):
    side, level = side_and_level
    box = torch.tensor([[5.0, 5.0, 5.0 + side, 5.0 + side]])
    assert region_levels(box, 56.0, 4).tolist() == [level]


def test_region_levels__of_empty_boxes_and_nan_are_the_finest():
    assert region_levels(torch.tensor([[0.0] * 4, [torch.nan] * 4]), 56.0, 4).tolist() == [0, 0]
    assert region_levels(torch.zeros(2, 0, 4), 56.0, 4).shape == (2, 0)


def test_region_levels__of_one_level_are_that():
    assert region_levels(torch.tensor([[0.0, 0.0, 1000.0, 1000.0]]), 56.0, 1).tolist() == [0]


def test_roi_head__pools_what_torchvision_pools():
    head, maps, boxes = make(aligned=False), pyramid(), regions()
    pooled, places = head._pool(maps, boxes, torch.ones(2, 40, dtype=torch.bool))
    theirs = MultiScaleRoIAlign(["0", "1", "2", "3"], output_size=2, sampling_ratio=2)
    named = OrderedDict((str(level), features) for level, features in enumerate(maps))
    expected = theirs(named, list(boxes), [(128, 128)] * 2)
    assert len(region_levels(boxes, 56.0, 4).unique()) == 4
    torch.testing.assert_close(pooled, expected[places], rtol=0, atol=1e-6)


def test_roi_head__a_region_is_answered_where_it_stands():
    head, maps, boxes = make(), pyramid(), regions()
    valid = torch.rand(2, 40, generator=torch.Generator().manual_seed(2)) > 0.4
    said = head(maps, boxes, valid)
    logits, codes = said.logits, said.codes
    for row, place in ((0, 3), (1, 17), (1, 39)):
        alone = torch.tensor([[True]])
        one = head([level[row : row + 1] for level in maps], boxes[row : row + 1, place : place + 1], alone)
        expected = (one.logits[0, 0], one.codes[0, 0]) if valid[row, place] else (torch.zeros(4), torch.zeros(3, 4))
        torch.testing.assert_close(logits[row, place], expected[0])
        torch.testing.assert_close(codes[row, place], expected[1])
    assert (logits[~valid] == 0.0).all()
    assert (logits[valid] != 0.0).float().mean() > 0.5  # samples of some large regions lie outside the map


@pytest.mark.parametrize("box", [(5.0, 5.0, 5.0, 9.0), (9.0, 9.0, 5.0, 5.0), (torch.nan,) * 4])
def test_roi_head__a_region_without_area_answers_zero(box: tuple[float, ...]):
    head = make(samples=0, uncertainty=True)
    torch.nn.init.ones_(head.doubt.bias)
    said = head(pyramid(), torch.tensor([[box], [box]]), torch.ones(2, 1, dtype=torch.bool))
    assert (said.logits == 0.0).all()
    assert (said.codes == 0.0).all()
    assert (said.extra["uncertainty"] == 0.0).all()


def test_roi_head__without_regions_every_weight_has_a_gradient_of_zero():
    head, maps = make(uncertainty=True), [level.requires_grad_() for level in pyramid()]
    said = head(maps, regions(), torch.zeros(2, 40, dtype=torch.bool))
    (said.logits.sum() + said.codes.sum() + said.extra["uncertainty"].sum()).backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
        assert (parameter.grad == 0.0).all(), name
    assert all(level.grad is not None for level in maps[:4])


def test_roi_head__takes_no_region_at_all():
    said = make(uncertainty=True)(pyramid(), torch.zeros(2, 0, 4), torch.zeros(2, 0, dtype=torch.bool))
    assert said.logits.shape == (2, 0, 4)
    assert said.codes.shape == (2, 0, 3, 4)
    assert said.extra["uncertainty"].shape == (2, 0, 4)


def test_roi_head__reads_the_finest_levels_alone():
    head, maps, boxes = make(levels=1), pyramid(), regions()
    valid = torch.ones(2, 40, dtype=torch.bool)
    silenced = [maps[0], *(torch.zeros_like(level) for level in maps[1:])]
    assert torch.equal(head(maps, boxes, valid).logits, head(silenced, boxes, valid).logits)


def test_roi_head__statistics_of_no_region_are_not_taken():
    head, maps, boxes = make(convolutions=1).train(), pyramid(), regions()
    said = head(maps, boxes, torch.zeros(2, 40, dtype=torch.bool))
    (said.logits.sum() + said.codes.sum()).backward()
    assert torch.equal(head.norms[0].running_mean, torch.zeros(3))
    assert all(torch.equal(each.grad, torch.zeros_like(each)) for each in head.norms.parameters())  # not None
    head(maps, boxes, torch.ones(2, 40, dtype=torch.bool))
    assert head.norms[0].running_mean.abs().min() > 0.0
    head.eval()(maps, boxes, torch.zeros(2, 40, dtype=torch.bool))

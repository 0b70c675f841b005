"""Patches and squares: how many, how large, where; with STAC's published probabilities."""

import math

import pytest
import torch

from ssodkit.data.augment.erase import inside_patches

KEYS = torch.arange(20000)
SIZES = torch.tensor([[800, 1000]]).expand(20000, 2)
STAC = {"type": "cutout", "squares": [1, 5], "side": [0.0, 0.2], "sides": "both"}


def draw(parse, written: dict) -> tuple[torch.Tensor, torch.Tensor]:
    """Patches, and their widths and heights."""
    (patches,) = parse(written).draw(KEYS, SIZES)
    return patches, patches[..., 2:] - patches[..., :2]


def draw_first(parse, written: dict) -> tuple[torch.Tensor, torch.Tensor]:
    """The patches alone, and their widths and heights."""
    patches = parse(written).draw(KEYS, SIZES)[0]
    return patches, (patches[..., 2:] - patches[..., :2]).float()


def test_erase__one_to_four_patches_of_up_to_a_fifth_of_each_side(parse):
    _, sides = draw(parse, {"type": "erase"})
    numbers = (sides[..., 0] > 0).sum(dim=1)
    assert numbers.max() == 4
    assert sides[..., 0].max() in (198, 199)
    assert sides[..., 1].max() in (158, 159)
    ratio = sides[..., 0] / 1000.0
    assert ((sides[..., 1] / 800.0 - ratio).abs() <= 1 / 800).all()
    assert numbers.float().mean() == pytest.approx(2.5, abs=0.05)
    assert ratio[ratio > 0].mean() == pytest.approx(0.1, abs=0.002)


def test_erase__patches_lie_inside_and_reach_all_corners(parse):
    patches, _ = draw(parse, {"type": "erase", "ratio": [0.2, 0.2], "patches": [1, 1]})
    assert patches.amin(dim=(0, 1)).tolist() == [0, 0, 200, 160]
    assert patches.amax(dim=(0, 1)).tolist() == [800, 640, 1000, 800]


def test_cutout__stac_shows_no_hole_as_often_as_published(parse):
    _, sides = draw(parse, STAC)
    assert set(sides.flatten().tolist()) == {0, 160}
    holes = (sides[..., 0] > 0).sum(dim=1).float()
    assert (holes == 0).float().mean() == pytest.approx(0.19375, abs=0.01)
    assert holes.mean() == pytest.approx(1.5, abs=0.03)


def test_cutout__centers_lie_evenly_over_the_image(parse):
    patches, _ = draw(parse, {**STAC, "side": [0.2, 0.2], "squares": [1, 1]})
    centers = (patches[:, 0, :2] + patches[:, 0, 2:]) / 2
    assert centers.amin(dim=0).tolist() == [0, 0]
    assert centers.amax(dim=0).tolist() == [1000, 800]
    assert centers.mean(dim=0).tolist() == pytest.approx([500, 400], abs=8)


def test_cutout__each_square_is_there_with_its_probability_and_between_its_sides(parse):
    written = {"type": "cutout", "squares": [3, 3], "probability": 0.5, "side": [3, 17], "unit": "pixel"}
    _, sides = draw(parse, {**written, "sides": "between"})
    assert set(sides.flatten().tolist()) == {0, *range(3, 18)}
    assert (sides[..., 0] > 0).float().mean() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("name", ["erase", "cutout"])
def test_patches__are_painted_with_the_fill_and_nothing_else_changes(parse, name):
    transform = parse({"type": name, "fill": 99})
    images = torch.full((50, 3, 60, 70), 7, dtype=torch.uint8)
    parameters = transform.draw(torch.arange(50), torch.tensor([[60, 70]]).expand(50, 2))
    seen = transform.apply(images, torch.ones(50, 1, 60, 70, dtype=torch.bool), parameters)
    inside = inside_patches(parameters[0], 60, 70).expand_as(seen)
    assert (seen[inside] == 99).all()
    assert (seen[~inside] == 7).all()
    assert 0 < inside.sum() < inside.numel() / 2


def test_inside_patches__overlap_hang_over_and_may_be_empty():
    patches = torch.tensor([[[-2, 1, 2, 3], [1, 2, 4, 9], [2, 2, 2, 2]]])
    wanted = [[0, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 1, 0], [0, 1, 1, 1, 0]]
    assert inside_patches(patches, 4, 5)[0, 0].int().tolist() == wanted
    assert not inside_patches(torch.zeros(2, 0, 4, dtype=torch.int64), 4, 5).any()


UNBIASED_TEACHER = {"type": "random_erasing", "area": [0.05, 0.2], "ratio": [0.3, 3.3]}


def test_random_erasing__area_and_ratio_lie_in_their_ranges_and_the_patch_inside(parse):
    patches, sides = draw_first(parse, UNBIASED_TEACHER)
    area = sides.prod(dim=-1)[:, 0] / (800 * 1000)
    logarithm = (sides[:, 0, 1] / sides[:, 0, 0]).log()
    assert 0.0495 < area.min() < 0.055
    assert 0.195 < area.max() < 0.2005
    assert area.mean() == pytest.approx(0.125, abs=0.002)
    assert logarithm.exp().min() == pytest.approx(0.3, abs=0.01)
    assert logarithm.exp().max() == pytest.approx(3.3, abs=0.05)
    assert logarithm.mean() == pytest.approx((math.log(0.3) + math.log(3.3)) / 2, abs=0.02)
    assert patches.amin() == 0
    assert (patches[..., 2] <= 1000).all()
    assert (patches[..., 3] <= 800).all()


def test_random_erasing__of_shapes_that_never_fit_nothing_is_erased(parse):
    _, sides = draw_first(parse, {"type": "random_erasing", "area": [0.9, 0.9], "ratio": [8.0, 8.0]})
    assert not sides.any()


def test_random_erasing__paints_noise_of_all_levels_in_the_patch_alone(parse):
    transform = parse(UNBIASED_TEACHER)
    images = torch.full((50, 3, 60, 70), 7, dtype=torch.uint8)
    parameters = transform.draw(torch.arange(50), torch.tensor([[60, 70]]).expand(50, 2))
    seen = transform.apply(images, torch.ones(50, 1, 60, 70, dtype=torch.bool), parameters)
    inside = inside_patches(parameters[0], 60, 70).expand_as(seen)
    assert (seen[~inside] == 7).all()
    counts = torch.bincount(seen[inside].long(), minlength=256)
    assert counts.min() > 0.5 * counts.float().mean()
    assert counts.max() < 1.6 * counts.float().mean()
    wider = torch.nn.functional.pad(images, (0, 9, 0, 5))
    padded = transform.apply(wider, torch.ones(50, 1, 65, 79, dtype=torch.bool), parameters)
    assert torch.equal(padded[..., :60, :70], seen)


@pytest.mark.parametrize("area", [[-0.1, 0.2], [0.5, 1.1]])
def test_random_erasing__an_area_is_a_share(parse, area):
    with pytest.raises(ValueError, match=r"area\.[01]\n  Input should be (greater|less) than or equal to [01]"):
        parse({**UNBIASED_TEACHER, "area": area})

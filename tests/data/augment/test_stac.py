"""The strong view of STAC, as the shipped recipe lists it: how often what happens, and in which order."""

import pytest
import torch

from ssodkit.data.augment.base import draw_view
from ssodkit.recipe.check import load_recipe
from ssodkit.structures.teaching import Targets

COUNT = 3000
SIZES = torch.tensor([[480, 640]]).expand(COUNT, 2)


@pytest.fixture(scope="module")
def drawn():
    """The view of images with a box in the middle, and of each image its steps: types, and `fill`."""
    targets = Targets.empty(COUNT, length=1)
    targets.boxes[:] = torch.tensor([200.0, 150.0, 440.0, 330.0])
    targets.valid[:] = True
    view = load_recipe("coco/stac").views.unlabeled["strong"]
    drawn = draw_view(view.transforms, SIZES, torch.arange(COUNT), targets)
    steps = [[] for _ in range(COUNT)]
    for step in drawn.steps:
        for row in step.rows.tolist():
            steps[row].append(step.transform.type if step.transform else "fill")
    return drawn, steps


def test_stac__resizes_and_never_flips(drawn):
    view, _ = drawn
    short = view.sizes.amin(dim=1)
    assert (short.min(), short.max()) == (500, 800)
    assert (torch.linalg.det(view.homography) > 0).all()
    assert (view.homography[:, 0, 0] > 0).all()


def test_stac__half_of_the_images_move_as_a_whole_and_half_within_a_box(drawn):
    view, steps = drawn
    inside = torch.tensor(["box_level" in names for names in steps])
    whole = torch.tensor(["fill" in names for names in steps])
    assert torch.equal(inside, ~whole)
    assert inside.float().mean() == pytest.approx(0.5, abs=0.03)
    scale = (view.sizes.double() / SIZES).flip(1)
    linear, shift = view.homography[:, :2, :2] / scale[:, None], view.homography[:, :2, 2]
    assert (linear[inside] - torch.eye(2)).abs().max() < 1e-12
    assert view.nearest[whole].float().mean() == pytest.approx(0.5, abs=0.04)
    assert not view.nearest[inside].any()
    is_shift = whole & ((linear - torch.eye(2)).flatten(1).abs().amax(dim=1) < 1e-12)
    assert is_shift.sum() / whole.sum() == pytest.approx(0.5, abs=0.04)
    share = (shift.abs() / view.sizes.flip(1))[is_shift].amax(dim=0)
    assert share.tolist() == pytest.approx([0.1, 0.1], abs=0.003)


def test_stac__color_before_or_behind_geometry_and_cutout_always_last(drawn):
    _, steps = drawn
    assert all(names[-1] == "cutout" and len(names) == 3 for names in steps)
    first = [names[0] in ("fill", "box_level") for names in steps]
    assert sum(first) / COUNT == pytest.approx(0.5, abs=0.03)
    colors = [name for names in steps for name in names[:2] if name not in ("fill", "box_level")]
    assert len(set(colors)) == 9
    assert min(colors.count(name) for name in set(colors)) / COUNT == pytest.approx(1 / 9, abs=0.02)


def test_stac__an_image_whose_box_would_leave_it_is_left_as_it_is():
    targets = Targets.empty(COUNT, length=1)
    targets.boxes[:] = torch.tensor([0.0, 200.0, 8.0, 220.0])
    targets.valid[:] = True
    view = load_recipe("coco/stac").views.unlabeled["strong"]
    drawn = draw_view(view.transforms, SIZES, torch.arange(COUNT), targets)
    assert drawn.moved_targets(torch.arange(COUNT)).valid.all()
    touched = torch.cat([step.rows for step in drawn.steps]).unique()
    assert 0.75 * COUNT < len(touched) < 0.98 * COUNT

"""The views of Unbiased Teacher, as the shipped recipes list them: one geometry, other pixels as often as published."""

import pytest
import torch

from ssodkit.data.augment.base import draw_view
from ssodkit.ops.random import derive_keys
from ssodkit.recipe.check import load_recipe

COUNT = 4000
SIZES = torch.tensor([[480, 640]]).expand(COUNT, 2)


@pytest.fixture(scope="module")
def drawn():
    """The strong view of unlabeled images, and how many of them each of its pixel operations changes."""
    view = load_recipe("coco/unbiased_teacher").views.unlabeled["strong"]
    drawn = draw_view(view.transforms, SIZES, derive_keys(torch.arange(COUNT), view.draws_as))
    return drawn, [(step.transform.type, len(step.rows) / COUNT) for step in drawn.steps if step.transform]


@pytest.mark.parametrize("name", ["unbiased_teacher", "coco/unbiased_teacher", "voc/unbiased_teacher"])
@pytest.mark.parametrize("stream", ["labeled", "unlabeled"])
def test_unbiased_teacher__both_views_have_one_geometry_and_the_same_boxes(make_raw, name, stream):
    raw, views = make_raw(60), getattr(load_recipe(name).views, stream)
    weak, strong = (
        draw_view(view.transforms, raw.sizes, derive_keys(raw.keys, view.draws_as or own), raw.targets)
        for own, view in views.items()
    )
    assert list(views) == ["weak", "strong"]
    assert torch.equal(weak.homography, strong.homography)
    assert torch.equal(weak.sizes, strong.sizes)
    assert len(weak.homography.unique(dim=0)) > 20  # drawn for each image
    here, there = (view.moved_targets(torch.arange(60)) for view in (weak, strong))
    assert torch.equal(here.boxes, there.boxes)
    assert torch.equal(here.valid, there.valid)
    assert here.valid.any()
    assert len(strong.steps) > len(weak.steps)


@pytest.mark.parametrize(
    ("name", "shorts"), [("coco", [640, 672, 704, 736, 768, 800]), ("voc", list(range(480, 801, 32)))]
)
def test_unbiased_teacher__draws_one_of_the_published_sides_and_flips_half(name, shorts):
    views = load_recipe(f"{name}/unbiased_teacher").views
    weak = draw_view(views.unlabeled["weak"].transforms, SIZES, torch.arange(COUNT))
    assert weak.sizes[:, 0].unique().tolist() == shorts
    assert (weak.homography[:, 0, 0] < 0).float().mean() == pytest.approx(0.5, abs=0.03)
    assert not weak.steps
    assert views.labeled == views.unlabeled  # labeled images teach weak and strong


def test_unbiased_teacher__changes_pixels_as_often_as_published(drawn):
    _, shares = drawn
    jitter = {"brightness", "contrast", "color", "hue"}
    for kind in jitter:
        assert sum(share for name, share in shares if name == kind) == pytest.approx(0.8, abs=0.03), kind
    others = [(name, share) for name, share in shares if name not in jitter]
    assert [name for name, _ in others] == ["gray", "blur", *["random_erasing"] * 3]
    assert [share for _, share in others] == pytest.approx([0.2, 0.5, 0.7, 0.5, 0.3], abs=0.03)


def test_unbiased_teacher__erases_the_published_areas_and_shapes(drawn):
    view, _ = drawn
    erasings = [step for step in view.steps if step.transform and step.transform.type == "random_erasing"]
    published = [((0.05, 0.2), (0.3, 3.3)), ((0.02, 0.2), (0.1, 6.0)), ((0.02, 0.2), (0.05, 8.0))]
    assert [(step.transform.area, step.transform.ratio) for step in erasings] == published
    ranges = {step.transform.type: step.transform for step in view.steps if step.transform}
    assert [ranges[name].factor for name in ("brightness", "contrast", "color")] == [(0.6, 1.4)] * 3
    assert (ranges["hue"].turn, ranges["blur"].sigma) == (0.1, (0.1, 2.0))

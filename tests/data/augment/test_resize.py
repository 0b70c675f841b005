"""Sizes and scales after a resize, with the published numbers."""

import pytest
import torch

from ssodkit.data.augment.resize import resize_scale, resized

LANDSCAPE = torch.tensor([[480, 640]])


@pytest.mark.parametrize(
    ("short", "scale", "size"),
    [(400, 0.833333, [400, 533]), (800, 1.666667, [800, 1067]), (1200, 2.082813, [1000, 1333])],
)
def test_resize_scale__published_numbers_for_640_by_480(short, scale, size):
    seen = resize_scale(LANDSCAPE, torch.tensor([short]), 1333)
    assert float(seen) == pytest.approx(scale, abs=1e-6)
    assert resized(LANDSCAPE, seen).tolist() == [size]


def test_resize__a_portrait_is_a_landscape_on_its_side(parse):
    resize = parse({"type": "resize", "short": 800, "long": 1000})
    sizes = torch.tensor([[480, 640], [640, 480]])
    assert resize.draw(torch.zeros(2, dtype=torch.int64), sizes).sizes.tolist() == [[750, 1000], [1000, 750]]


def test_resize__the_edge_of_the_view_is_the_edge_of_the_image(parse):
    move = parse({"type": "resize", "short": 400}).draw(torch.zeros(1, dtype=torch.int64), LANDSCAPE)
    corner = move.homography[0] @ torch.tensor([640.0, 480.0, 1.0], dtype=torch.float64)
    assert corner.tolist() == pytest.approx([533.0, 400.0, 1.0])


def test_resize__draws_every_short_side_of_its_range_and_no_other(parse):
    sizes = torch.tensor([[100, 100]]).expand(500, 2)
    drawn = parse({"type": "resize", "short": [60, 64]}).draw(torch.arange(500), sizes).sizes
    assert set(drawn.flatten().tolist()) == {60, 61, 62, 63, 64}
    chosen = parse({"type": "resize", "short_choices": [60, 90, 50]}).draw(torch.arange(500), sizes).sizes
    assert set(chosen.flatten().tolist()) == {50, 60, 90}


def test_resize__a_sliver_keeps_one_pixel(parse):
    sizes = torch.tensor([[1, 4000]])
    assert parse({"type": "resize", "short": 800, "long": 100}).draw(torch.zeros(1).long(), sizes).sizes.tolist() == [
        [1, 100]
    ]


@pytest.mark.parametrize("fields", [{}, {"short": 400, "short_choices": [400]}, {"short": 0}, {"short": [500, 400]}])
def test_resize__needs_one_rule(parse, fields):
    with pytest.raises(ValueError, match=r"short|side|range"):
        parse({"type": "resize", **fields})

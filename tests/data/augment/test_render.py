"""Fill, padding and the order of operations on the pixels of a view."""

import pytest
import torch

from ssodkit.data.augment.render import shows_outside
from ssodkit.ops.homography import rotation, scaling, translation

RIGHT = {"type": "shift_x", "fraction": 0.2}
INVERT = {"type": "invert"}


@pytest.fixture
def bright(make_raw):
    """Images of three sizes, all of them gray level 200."""
    raw = make_raw(12)
    for row, (height, width) in enumerate(raw.sizes.tolist()):
        raw.pixels[row, :, :height, :width] = 200
    return raw


def levels(stream, row: int) -> set[int]:
    view = stream.views["view"]
    height, width = view.sizes[row].tolist()
    return set(view.pixels[row, :, :height, :width].flatten().tolist())


def test_render__color_before_geometry_leaves_the_fill_alone(bright, look):
    stream = look(bright, INVERT, RIGHT, fill=125)
    for row in range(12):
        assert levels(stream, row) == {55, 125}


def test_render__color_after_geometry_sees_the_fill(bright, look):
    stream = look(bright, RIGHT, INVERT, fill=125)
    for row in range(12):
        assert levels(stream, row) == {55, 130}


def test_render__statistics_before_geometry_know_nothing_of_fill_or_padding(bright, look):
    bright.pixels[:, :, 10:30, 20:60] = 150
    before = look(bright, {"type": "auto_contrast"}, RIGHT, fill=125)
    after = look(bright, RIGHT, {"type": "auto_contrast"}, fill=125)
    for row in range(12):
        assert levels(before, row) >= {0, 255, 125}  # of the image 150 and 200, and the fill
        assert levels(after, row) >= {0, 85, 255}  # of the fill 125, and the image 150 and 200


def test_render__the_fill_is_laid_once_between_two_motions(bright, look):
    turn = {"type": "rotate", "degrees": 20}
    stream = look(bright, RIGHT, turn, INVERT, fill=125)
    for row in range(12):
        assert levels(stream, row) == {55, 130}


def test_render__a_resize_shows_nothing_but_the_image(bright, look):
    stream = look(bright, INVERT, {"type": "resize", "short": [33, 201]}, {"type": "flip"}, fill=125)
    for row in range(12):
        assert levels(stream, row) == {55}


def test_render__a_smoothing_after_geometry_mixes_no_padding_in(bright, look):
    stream = look(bright, {"type": "blur"}, {"type": "sharpness"}, fill=125)
    for row in range(12):
        assert levels(stream, row) == {200}


def test_render__padding_is_black_and_reaches_multiples(bright, look):
    view = look(bright, INVERT, {"type": "noise"}).views["view"]
    assert view.pixels.shape == (12, 3, 160, 160)  # of 130 x 150
    for row, (height, width) in enumerate(view.sizes.tolist()):
        assert not view.pixels[row, :, height:].any()
        assert not view.pixels[row, :, :, width:].any()


def test_render__a_view_without_transforms_is_the_image(make_raw, look):
    raw = make_raw(3, noise=True)
    view = look(raw).views["view"]
    assert torch.equal(view.pixels[:, :, :130, :150], raw.pixels)
    assert view.pixels.data_ptr() != raw.pixels.data_ptr()


def test_render__an_operation_after_a_resize_gets_the_sizes_of_the_view(bright, look):
    """Erasing half of each side of the view, wherever the resize stands."""
    erase = {"type": "erase", "patches": [1, 1], "ratio": [0.5, 0.5], "fill": 0}
    resize = {"type": "resize", "short": 140}
    for transforms in ([resize, erase], [erase, resize]):
        view = look(bright, *transforms).views["view"]
        for row, (height, width) in enumerate(view.sizes.tolist()):
            erased = (view.pixels[row, 0, :height, :width] == 0).sum()
            assert int(erased) == (height // 2) * (width // 2)


def test_shows_outside__is_exact_at_the_edges():
    sizes = torch.tensor([[40, 60]])
    one = torch.ones(1, dtype=torch.float64)
    assert not shows_outside(sizes, scaling(one * 2, one * 2), torch.tensor([[80, 120]]))
    assert shows_outside(sizes, scaling(one * 2, one * 2), torch.tensor([[80, 121]]))
    assert shows_outside(sizes, translation(one * 0.6, one * 0), sizes)
    assert not shows_outside(sizes, translation(one * 0.4, one * 0), sizes)  # the centers of all pixels are inside
    assert shows_outside(sizes, rotation(one * 3), sizes)
    assert not shows_outside(sizes[:0], torch.zeros(0, 3, 3).double(), sizes[:0]).any()

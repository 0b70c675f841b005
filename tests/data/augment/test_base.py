"""What every registered transform owes: these tests run for each by its being registered."""

import random
from collections.abc import Sequence

import pytest
import torch

from ssodkit.data.augment.base import GeometryConfig, PixelConfig, TransformConfig, draw_view, places
from ssodkit.data.raw import RawBatch
from ssodkit.ops.homography import warp_boxes
from ssodkit.ops.random import split_keys
from ssodkit.plugins import load_plugins, members
from ssodkit.structures.geometry import Stream

load_plugins()
OWN = {
    name: config for name, config in members(TransformConfig.slot).items() if config.__module__.startswith("ssodkit.")
}
FIELDS = {
    "resize": {"short": [50, 110], "long": 140},
    "crop": {"sides": [100, 150]},
    "scale_jitter": {"side": 120, "factor": [0.5, 1.5]},
    "one_of": {"transforms": [{"type": "rotate"}, {"type": "flip"}, {"type": "blur"}]},
    "in_random_order": {"transforms": [{"type": "equalize"}, {"type": "shear"}, {"type": "contrast"}]},
    "keep_boxes": {"transforms": [{"type": "shift_x", "fraction": 1.0}, {"type": "gray"}]},
    "sometimes": {"probability": 0.5, "then": [{"type": "zoom"}, {"type": "invert"}], "otherwise": [{"type": "noise"}]},
}
"""What cannot be left out."""
ALL = [{"type": name, **FIELDS.get(name, {})} for name in OWN]
GEOMETRY = [written for written in ALL if issubclass(OWN[written["type"]], GeometryConfig)]
PIXELS = [written for written in ALL if issubclass(OWN[written["type"]], PixelConfig)]
STAC = [{"type": "rotate", "rule": "stac"}, {"type": "shear", "rule": "stac"}]


def name_of(written: dict) -> str:
    return "-".join(str(value) for value in written.values())[:40]


def chain(seed: int) -> list[dict]:
    drawn = random.Random(seed)
    return [drawn.choice(GEOMETRY + STAC) for _ in range(drawn.randint(2, 4))]


def extent(lit: torch.Tensor) -> list[int]:
    """Left, top, right, bottom of what is lit."""
    (top, left), (bottom, right) = lit.nonzero().amin(dim=0).tolist(), lit.nonzero().amax(dim=0).tolist()
    return [left, top, right + 1, bottom + 1]


def contains(outer: Sequence[float], inner: Sequence[float]) -> bool:
    """Whether a box holds another, to a pixel."""
    starts = all(outside <= inside + 1 for outside, inside in zip(outer[:2], inner[:2], strict=True))
    return starts and all(outside >= inside - 1 for outside, inside in zip(outer[2:], inner[2:], strict=True))


def assert_boxes_surround_rectangles(raw: RawBatch, stream: Stream, at_least: int) -> None:
    """The rectangle ends at its box, to a pixel: more than half of its light is inside, all of it reaches every side.

    A turned rectangle cut off by the view's edge may end before its box, which is the hull of its corners.
    """
    view, targets = stream.views["view"], stream.targets["view"]
    whole = warp_boxes(raw.targets.boxes, view.homography)
    is_cut = (whole != targets.boxes).any(dim=-1)[:, 0]
    is_turned = (view.homography[:, 0, 1] != 0) | (view.homography[:, 1, 0] != 0)
    compared = 0
    for row in range(len(view.sizes)):
        left, top, right, bottom = targets.boxes[row, 0].tolist()
        if not targets.valid[row, 0] or min(right - left, bottom - top) < 5:
            continue
        inner, outer = extent(view.pixels[row, 0] >= 128), extent(view.pixels[row, 0] > 0)
        message = f"row {row}: {inner} {outer} against {targets.boxes[row, 0].tolist()}"
        assert contains([left, top, right, bottom], inner), message
        if not (is_cut[row] and is_turned[row]):
            assert contains(outer, [left, top, right, bottom]), message
            compared += 1
    assert compared >= at_least


def assert_pixels_show_their_points(raw: RawBatch, stream: Stream) -> None:
    """Of a ramp (red is the column, green the row) each pixel shows the number of the point that it came from."""
    view = stream.views["view"]
    y, x = torch.meshgrid(*(torch.arange(side) + 0.5 for side in view.pixels.shape[2:]), indexing="ij")
    points = torch.stack([x, y, torch.ones_like(x)]).flatten(1).double()
    source = torch.linalg.inv(view.homography.double()) @ points  # batch 3 pixels
    inside = (points[None, :2] < view.sizes.flip(1)[:, :, None]).all(dim=1)
    step = torch.linalg.inv(view.homography.double())[:, :2, :2].norm(dim=2).amax(dim=1).clamp(min=1.0)[:, None]
    for axis in (0, 1):
        inside &= (source[:, axis] > step) & (source[:, axis] < raw.sizes[:, 1 - axis, None] - step)
    assert inside.sum() > 0.2 * view.sizes.prod(dim=1).sum()
    difference = view.pixels.flatten(2)[:, :2].double() - (source[:, :2] - 0.5)
    assert difference.abs().amax(dim=1)[inside].max() <= 0.6  # half a gray level, and the ripple of Pillow's filter


def test_registry__every_transform_moves_or_changes_pixels_or_chooses():
    assert len(OWN) == 35
    assert (len(GEOMETRY), len(PIXELS)) == (9, 20)
    chosen = set(OWN) - {written["type"] for written in GEOMETRY + PIXELS}
    assert chosen == {"one_of", "in_random_order", "sometimes", "keep_boxes", "nearest", "box_level"}


@pytest.mark.parametrize("written", GEOMETRY + STAC, ids=name_of)
def test_geometry__the_warped_rectangle_is_where_the_warped_box_is(written, make_raw, look):
    raw = make_raw(60)
    assert_boxes_surround_rectangles(raw, look(raw, written), at_least=40)


@pytest.mark.parametrize("written", GEOMETRY + STAC, ids=name_of)
def test_geometry__each_pixel_shows_the_point_that_its_homography_says(written, make_ramps, look):
    raw = make_ramps(12)
    assert_pixels_show_their_points(raw, look(raw, written))


@pytest.mark.parametrize("seed", range(12))
def test_geometry__rectangle_and_box_agree_after_random_chains(seed, make_raw, look):
    raw = make_raw(30, seed)
    assert_boxes_surround_rectangles(raw, look(raw, *chain(seed)), at_least=8)


@pytest.mark.parametrize("seed", range(12))
def test_geometry__each_pixel_shows_its_point_after_random_chains(seed, make_ramps, look):
    raw = make_ramps(12, seed)
    assert_pixels_show_their_points(raw, look(raw, *chain(seed)))


@pytest.mark.parametrize("short", [24, 35, 60, 140, 280])
def test_geometry__rectangle_and_box_agree_when_much_is_reduced_or_enlarged(short, make_raw, look):
    raw = make_raw(12)
    resize, flip = {"type": "resize", "short": short}, {"type": "flip"}
    assert_boxes_surround_rectangles(raw, look(raw, flip, resize), at_least=12)
    assert_boxes_surround_rectangles(raw, look(raw, resize, {"type": "rotate"}), at_least=6)


@pytest.mark.parametrize("written", GEOMETRY + STAC, ids=name_of)
def test_geometry__draws_affine_matrices_in_float64(written, make_raw, parse):
    raw = make_raw(4)
    move = parse(written).draw(raw.keys, raw.sizes)
    assert move.homography.dtype == torch.float64
    assert move.homography[:, 2].tolist() == [[0.0, 0.0, 1.0]] * 4
    assert (move.sizes >= 1).all()


@pytest.mark.parametrize("written", PIXELS, ids=name_of)
def test_pixels__nothing_moves(written, make_raw, look):
    raw = make_raw(6)
    stream = look(raw, written)
    view = stream.views["view"]
    assert torch.equal(view.homography, torch.eye(3).expand(6, 3, 3))
    assert torch.equal(view.sizes, raw.sizes)
    assert torch.equal(stream.targets["view"].boxes, raw.targets.boxes)


@pytest.mark.parametrize("written", [w for w in PIXELS if w["type"] != "identity"], ids=name_of)
def test_pixels__something_changes_and_the_given_images_do_not(written, make_raw, look):
    raw = make_raw(12, noise=True)
    before = raw.pixels.clone()
    view = look(raw, written).views["view"]
    assert torch.equal(raw.pixels, before)
    assert not torch.equal(view.pixels[:, :, :130, :150], before)


@pytest.mark.parametrize("written", PIXELS, ids=name_of)
def test_pixels__what_lies_outside_the_masks_does_not_matter(written, make_raw, parse):
    raw = make_raw(6, noise=True)
    masks = torch.zeros(6, 1, *raw.pixels.shape[2:], dtype=torch.bool)
    masks[:, :, 3:60, 5:70] = True
    transform = parse(written)
    parameters = transform.draw(raw.keys, raw.sizes)
    assert all(len(part) == 6 for part in parameters)
    black = transform.apply(raw.pixels * masks, masks, parameters)
    noisy = transform.apply(raw.pixels, masks, parameters)
    assert noisy.dtype == torch.uint8
    assert torch.equal(black * masks, noisy * masks)


@pytest.mark.parametrize("written", ALL, ids=name_of)
def test_transform__a_row_does_not_depend_on_its_batch(written, make_raw, look):
    raw = make_raw(9, noise=True)
    together = look(raw, written, fill=125)
    for row in (0, 4, 8):
        height, width = raw.sizes[row].tolist()
        alone = raw[row : row + 1]
        alone = look(type(raw)(alone.pixels[:, :, :height, :width], alone.sizes, alone.image_ids, alone.keys,
                               alone.targets), written, fill=125)  # fmt: skip
        one, many = alone.views["view"], together.views["view"]
        new_height, new_width = one.sizes[0].tolist()
        assert torch.equal(one.pixels[0, :, :new_height, :new_width], many.pixels[row, :, :new_height, :new_width])
        assert not many.pixels[row, :, new_height:].any()
        assert not many.pixels[row, :, :, new_width:].any()
        for field in ("sizes", "homography", "keys", "image_ids"):
            assert torch.equal(getattr(one, field)[0], getattr(many, field)[row]), field
        assert torch.equal(alone.targets["view"].boxes[0], together.targets["view"].boxes[row])


@pytest.mark.parametrize("written", ALL, ids=name_of)
def test_transform__the_same_keys_give_the_same_view(written, make_raw, look):
    first, again = (look(make_raw(6, noise=True), written).views["view"] for _ in range(2))
    assert torch.equal(first.pixels, again.pixels)
    assert torch.equal(first.homography, again.homography)


@pytest.mark.parametrize("written", ALL, ids=name_of)
def test_transform__no_image_and_no_target_are_fine(written, make_raw, look):
    raw = make_raw(3, noise=True)
    nothing = look(raw[:0], written)
    assert nothing.views["view"].pixels.shape == (0, 3, 0, 0)
    unlabeled = type(raw)(raw.pixels, raw.sizes, raw.image_ids, raw.keys, type(raw.targets).empty(3))
    assert look(unlabeled, written).targets["view"].boxes.shape == (3, 0, 4)


def test_transform__draws_leave_the_keys_alone(make_raw, look):
    raw = make_raw(6)
    before = raw.keys.clone(), raw.sizes.clone()
    look(raw, *ALL)
    assert torch.equal(raw.keys, before[0])
    assert torch.equal(raw.sizes, before[1])


def test_places__name_a_transform_by_its_type_and_its_turn(parse):
    written = ["flip", "invert", "flip", "rotate", "flip"]
    assert places([parse({"type": name}) for name in written]) == ["flip/0", "invert/0", "flip/1", "rotate/0", "flip/2"]


def test_places__two_transforms_of_one_type_draw_apart(parse):
    sizes, flip = torch.full((400, 2), 50), parse({"type": "flip"})
    once, twice = (draw_view([flip] * count, sizes, torch.arange(400)).homography[:, 0, 0] for count in (1, 2))
    assert 150 < (once < 0).sum() < 250
    assert 150 < (twice < 0).sum() < 250  # an odd number of flips; equal draws would make it none


@pytest.mark.parametrize("field", [{"factor": [1.3, 0.7]}, {"factor": [0.0, 1.0]}, {"factors": [0.5, 1.0]}])
def test_ranges__what_is_no_range_is_refused(parse, field):
    with pytest.raises(ValueError, match="factor"):
        parse({"type": "zoom", **field})


def test_keys__are_plain_integers_of_any_sign(parse, make_raw):
    keys = split_keys(make_raw(1).keys, 64, "signs")[0]
    assert (keys < 0).any()
    sizes = torch.tensor([[40, 50]]).expand(64, 2)
    assert len(parse({"type": "flip"}).draw(keys, sizes).homography) == 64

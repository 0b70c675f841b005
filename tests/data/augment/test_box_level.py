"""What happens inside one box, and that nothing happens outside of it."""

import pytest
import torch

from ssodkit.data.augment.box_level import choose_crops
from ssodkit.ops.homography import rotation, translation
from ssodkit.ops.resample import warp_within
from ssodkit.structures.teaching import Targets

MOVED = {"type": "box_level"}


def with_boxes(raw, *boxes):
    """The same images, all of them with these boxes."""
    targets = Targets.empty(len(raw.keys), length=len(boxes))
    targets.boxes[:] = torch.tensor(boxes)
    targets.valid[:] = True
    return type(raw)(raw.pixels, raw.sizes, raw.image_ids, raw.keys, targets)


def test_box_level__changes_one_box_and_leaves_the_boxes_where_they_are(make_raw, look):
    first, second = (5.6, 8.0, 30.2, 33.9), (40.0, 12.0, 60.0, 50.0)
    raw = with_boxes(make_raw(90, noise=True), first, second)
    stream = look(raw, MOVED)
    assert torch.equal(stream.targets["view"].boxes, raw.targets.boxes)
    changed = (stream.views["view"].pixels[:, :, :130, :150] != raw.pixels).any(dim=1)
    in_first, in_second = changed[:, 8:33, 5:30].flatten(1).any(dim=1), changed[:, 12:50, 40:60].flatten(1).any(dim=1)
    assert not (in_first & in_second).any()
    assert (in_first | in_second).sum() >= 70  # read at the nearest place, less than half a pixel changes nothing
    assert 25 <= in_first.sum() <= 55
    changed[:, 8:33, 5:30] = False
    changed[:, 12:50, 40:60] = False
    assert not changed.any()


def test_box_level__draws_four_motions_within_their_ranges_about_the_middle_of_the_crop(parse):
    keys = torch.arange(4000)
    boxes = torch.tensor([[[20.0, 10.0, 120.0, 60.0]]]).expand(4000, 1, 4)
    crops, inverse, nearest = parse(MOVED).draw(keys, boxes, torch.ones(4000, 1, dtype=torch.bool))
    assert crops[0].tolist() == [20, 10, 120, 60]
    assert nearest.float().mean() == pytest.approx(0.5, abs=0.03)
    linear, shift = inverse[:, :2, :2].double(), inverse[:, :2, 2]
    is_shift = (linear == torch.eye(2)).flatten(1).all(dim=1)
    along_x, along_y = is_shift & (shift[:, 1] == 0), is_shift & (shift[:, 0] == 0)
    is_turned = ~is_shift & (linear[:, 0, 0] == linear[:, 1, 1])
    is_sheared = ~is_shift & ~is_turned
    for chosen in (along_x, along_y, is_turned, is_sheared):
        assert chosen.float().mean() == pytest.approx(0.25, abs=0.03)
    assert shift[along_x, 0].abs().max() == pytest.approx(5.0, abs=0.05)
    assert shift[along_y, 1].abs().max() == pytest.approx(2.5, abs=0.03)
    angles = torch.rad2deg(torch.atan2(linear[is_turned, 0, 1], linear[is_turned, 0, 0]))
    assert angles.abs().max() == pytest.approx(10.0, abs=0.1)
    slopes = torch.linalg.inv(linear[is_sheared])
    assert torch.rad2deg(torch.atan(slopes[:, 0, 1])).abs().max() == pytest.approx(10.0, abs=0.1)
    torch.testing.assert_close(slopes[:, 0, 1], slopes[:, 1, 0])  # one slope along both axes
    middle = torch.tensor([70.0, 35.0, 1.0])
    torch.testing.assert_close(inverse[~is_shift] @ middle, middle.expand((~is_shift).sum(), 3), atol=1e-3, rtol=0)


def test_choose_crops__every_valid_box_is_as_likely_and_is_cut_to_whole_pixels():
    boxes = torch.tensor([[[9.0, 9.0, 9.9, 9.9], [1.2, 2.9, 7.999, 8.0], [0.0, 0.0, 3.5, 3.5]]]).expand(3000, 3, 4)
    valid = torch.tensor([[False, True, True]]).expand(3000, 3)
    crops = choose_crops(torch.arange(3000), boxes, valid)
    first = (crops == torch.tensor([1, 2, 7, 8])).all(dim=1)
    assert first.float().mean() == pytest.approx(0.5, abs=0.03)
    assert crops[~first].unique(dim=0).tolist() == [[0, 0, 3, 3]]


def test_choose_crops__no_box_and_a_box_under_a_pixel_are_empty_crops():
    one = torch.tensor([[[3.2, 3.2, 3.9, 3.9]]])
    assert choose_crops(torch.arange(1), one, torch.tensor([[True]])).tolist() == [[3, 3, 3, 3]]
    assert choose_crops(torch.arange(1), one, torch.tensor([[False]])).tolist() == [[0, 0, 0, 0]]
    assert (
        choose_crops(torch.arange(2), torch.zeros(2, 0, 4), torch.zeros(2, 0, dtype=torch.bool)).tolist()
        == [[0] * 4] * 2
    )


def test_box_level__a_box_under_a_pixel_and_an_image_without_boxes_stay_as_they_are(make_raw, look):
    raw = make_raw(12, noise=True)
    small = look(with_boxes(raw, (3.2, 3.2, 3.9, 3.9)), MOVED).views["view"].pixels
    none = (
        look(type(raw)(raw.pixels, raw.sizes, raw.image_ids, raw.keys, Targets.empty(12)), MOVED).views["view"].pixels
    )
    assert torch.equal(small[:, :, :130, :150], raw.pixels)
    assert torch.equal(none, small)


def test_box_level__finds_its_box_behind_a_resize_and_inside_a_combinator(make_raw, look):
    raw = with_boxes(make_raw(30, noise=True), (30.0, 20.0, 60.0, 50.0))
    resize = {"type": "resize", "short": 140}
    plain = look(raw, resize).views["view"].pixels
    stream = look(raw, {"type": "one_of", "transforms": [MOVED]}, resize)
    moved = 0
    for row, box in enumerate(stream.targets["view"].boxes[:, 0].floor().int().tolist()):
        left, top, right, bottom = box
        changed = (stream.views["view"].pixels[row] != plain[row]).any(dim=0)
        moved += int(changed[top:bottom, left:right].any())
        changed[top:bottom, left:right] = False
        assert not changed.any()
    assert moved >= 22


def test_warp_within__a_shift_shows_neighbors_and_the_fill_where_nothing_is():
    image = torch.arange(36, dtype=torch.uint8).view(1, 1, 6, 6).expand(1, 3, 6, 6)
    inverse = torch.linalg.inv(translation(torch.tensor([2.0]), torch.tensor([0.0]))).float()
    seen = warp_within(image, torch.tensor([[1, 2, 5, 4]]), inverse, torch.tensor([False]), 99)[0, 0]
    assert seen[2].tolist() == [12, 99, 99, 13, 14, 17]
    assert seen[3].tolist() == [18, 99, 99, 19, 20, 23]
    assert torch.equal(seen[[0, 1, 4, 5]], image[0, 0, [0, 1, 4, 5]])


@pytest.mark.parametrize(("nearest", "wanted"), [(False, [0, 5, 15, 25]), (True, [0, 10, 20, 30])])
def test_warp_within__half_a_pixel_mixes_two_or_takes_the_nearest(nearest, wanted):
    image = torch.tensor([0, 10, 20, 30], dtype=torch.uint8).view(1, 1, 1, 4).expand(1, 3, 1, 4)
    inverse = torch.linalg.inv(translation(torch.tensor([0.5]), torch.tensor([0.0]))).float()
    seen = warp_within(image, torch.tensor([[0, 0, 4, 1]]), inverse, torch.tensor([nearest]), 99)
    assert seen[0, 0, 0].tolist() == wanted


def test_warp_within__a_quarter_turn_of_a_square_is_exact():
    image = torch.arange(16, dtype=torch.uint8).view(1, 1, 4, 4).expand(1, 3, 4, 4)
    turn = translation(torch.tensor([2.0]), torch.tensor([2.0])) @ rotation(torch.tensor([90.0]))
    turn = turn @ translation(torch.tensor([-2.0]), torch.tensor([-2.0]))
    seen = warp_within(image, torch.tensor([[0, 0, 4, 4]]), torch.linalg.inv(turn), torch.tensor([False]), 99)
    assert torch.equal(seen[0, 0], torch.rot90(image[0, 0], -1))

"""Which point learns from which box, by the published rules; every count was worked out by hand."""

import pytest
import torch
from lesson import answers_of

from ssodkit.assigners.matchers.points import PointsConfig
from ssodkit.plugins import BuildContext
from ssodkit.structures.predictions import Candidates, Predictions
from ssodkit.structures.progress import Progress
from ssodkit.structures.teaching import BACKGROUND, Assignment, Targets

STRIDES = (8, 16, 32, 64, 128)
FIRST, SECOND = (40.0, 30.0, 200.0, 150.0), (90.0, 70.0, 150.0, 130.0)


def points(side: int, levels: int = 5) -> Predictions:
    """Squares of side stride around the points of a square image, level by level, row by row."""
    boxes, level, stride = [], [], []
    for place, step in enumerate(STRIDES[:levels]):
        middles = torch.arange(0, side, step, dtype=torch.float64) + step / 2
        middle = torch.cartesian_prod(middles, middles).flip(-1)
        boxes.append(torch.cat([middle - step / 2, middle + step / 2], dim=-1))
        level += [place] * len(middle)
        stride += [float(step)] * len(middle)
    all_boxes = torch.cat(boxes)[None]
    answers = answers_of(all_boxes.new_zeros(1, len(level), 8), boxes=all_boxes)
    valid = torch.ones(1, len(level), dtype=torch.bool)
    candidates = Candidates(all_boxes, valid, torch.tensor([level]), torch.tensor([stride]).double())
    return Predictions(candidates, answers.class_logits, "sigmoid", answers.box_codes, answers.coder)


def targets(*boxes: tuple[float, ...]) -> Targets:
    ones = torch.ones(1, len(boxes), dtype=torch.bool)
    labels = torch.arange(len(boxes))[None]
    return Targets(torch.tensor([boxes]).double(), labels, ones, ones.double(), ~ones)


def match(asked: Predictions, taught: Targets, radius: float | None) -> Assignment:
    level = asked.candidates.level
    assert level is not None
    config = PointsConfig(ranges=(64.0, 128.0, 256.0, 512.0)[: int(level.max())], radius=radius)
    return config.build(BuildContext(num_classes=8, detector=config))(asked, taught, Progress(0, 1))


def counts(asked: Predictions, found: Assignment) -> list[list[int]]:
    """Per level, how many points learn from each target."""
    level = asked.candidates.level
    assert level is not None
    return [
        [int(((found.index == target) & (level == place)).sum()) for target in range(int(found.index.max()) + 1)]
        for place in range(int(level.max()) + 1)
    ]


def at(asked: Predictions, level: int, column: int, row: int) -> int:
    of = asked.candidates.level
    assert of is not None
    first = int((of < level).sum())
    side = round(int((of == level).sum()) ** 0.5)
    return first + row * side + column


@pytest.mark.parametrize(
    ("radius", "expected"),
    [(1.5, [[0, 6], [9, 0], [0, 0], [0, 0], [0, 0]]), (None, [[0, 56], [49, 0], [8, 0], [0, 0], [0, 0]])],
)
def test_points__of_two_boxes_are_as_many_as_published(radius, expected):
    asked = points(256)
    assert counts(asked, match(asked, targets(FIRST, SECOND), radius)) == expected


def test_points__each_has_the_target_and_centerness_that_are_published():
    asked = points(256)
    near = match(asked, targets(FIRST, SECOND), 1.5)
    far = match(asked, targets(FIRST, SECOND), None)
    for found in (near, far):
        place = at(asked, 1, 7, 5)
        assert (found.index[0, place], round(float(found.quality[0, place]), 6)) == (0, 0.967204)
        place = at(asked, 0, 14, 11)
        assert (found.index[0, place], round(float(found.quality[0, place]), 6)) == (1, 0.665375)
        assert found.index[0, at(asked, 2, 3, 2)] == BACKGROUND
        assert found.index[0, at(asked, 0, 7, 9)] == BACKGROUND
    place = at(asked, 1, 5, 4)
    assert near.index[0, place] == BACKGROUND
    assert (far.index[0, place], round(float(far.quality[0, place]), 6)) == (0, 0.480384)


def test_points__both_ends_of_a_range_belong_to_it():
    asked = points(256)
    box = targets((4.0, 4.0, 132.0, 100.0))
    found = match(asked, box, None)
    assert [sum(level) for level in counts(asked, found)] == [5, 48, 0, 0, 0]
    assert [sum(level) for level in counts(asked, match(asked, box, 1.5))] == [3, 9, 0, 0, 0]


def test_points__the_smallest_box_around_one_teaches_it():
    asked = points(128, levels=1)
    found = match(asked, targets((20.0, 20.0, 60.0, 60.0), (24.0, 24.0, 56.0, 56.0)), 1.5)
    assert found.positive.sum() == 4
    assert (found.index[found.positive] == 1).all()


def test_points__of_equal_boxes_the_first_teaches():
    asked = points(128, levels=1)
    found = match(asked, targets((20.0, 20.0, 60.0, 60.0), (20.0, 20.0, 60.0, 60.0)), None)
    assert found.index[found.positive].unique().tolist() == [0]


def test_points__a_box_between_points_teaches_none():
    assert not match(points(128, levels=1), targets((13.0, 13.0, 19.0, 19.0)), None).positive.any()


def test_points__moved_and_mirrored_boxes_move_and_mirror_what_learns():
    asked = points(384, levels=3)
    boxes = torch.tensor([[20.0, 14.0, 220.0, 150.0], [40.0, 30.0, 60.0, 70.0]])
    found = match(asked, targets(*map(tuple, boxes.tolist())), 1.5)
    moved = match(asked, targets(*map(tuple, (boxes + 128.0).tolist())), 1.5)
    mirrored = torch.stack([384.0 - boxes[:, 2], boxes[:, 1], 384.0 - boxes[:, 0], boxes[:, 3]], dim=1)
    other_way = match(asked, targets(*map(tuple, mirrored.tolist())), 1.5)
    first = 0
    for stride in STRIDES[:3]:
        cells = 384 // stride
        part = slice(first, first + cells * cells)
        plain = found.index[0, part].view(cells, cells)
        shift = 128 // stride
        assert (plain >= 0).any() or stride == 32, stride
        assert torch.equal(moved.index[0, part].view(cells, cells)[shift:, shift:], plain[:-shift, :-shift])
        assert torch.equal(other_way.index[0, part].view(cells, cells).flip(1), plain)
        first += cells * cells


@pytest.mark.parametrize("ranges", [(64.0, 64.0), (64.0, 32.0)])
def test_points__ranges_rise(ranges):
    with pytest.raises(ValueError, match="`ranges` must rise"):
        PointsConfig(ranges=ranges)


def test_points__ranges_are_of_the_pyramids_levels():
    assert PointsConfig().misfit(5) is None
    assert PointsConfig().misfit(3) == "the matcher's `ranges` part 5 levels, but the pyramid has 3"

import itertools

import numpy as np

from ssodkit.data.anchor_choice import choose_anchors
from ssodkit.data.survey import best_anchor_ious

STRIDES = (4, 8, 16)


def boxes_of(sides, ratios):
    """One box for each side and its ratio of height to width, somewhere."""
    random = np.random.RandomState(0)
    corner = random.uniform(0, 200, (len(sides), 2))
    lengths = np.stack([sides / np.sqrt(ratios), sides * np.sqrt(ratios)], axis=1)
    return np.concatenate([corner, corner + lengths], axis=1).astype(np.float32)


SIDES = np.exp(np.random.RandomState(1).uniform(np.log(14), np.log(90), 300))


def test_choose_anchors__meets_boxes_of_one_shape_with_one_ratio():
    choice = choose_anchors(boxes_of(SIDES, np.ones(300)), STRIDES, 2, 0.5, 0.5)
    assert choice.ratios == (1.0,)
    assert choice.covered >= 0.97
    firsts = [sides[0] for sides in choice.sides]
    assert [round(late / early, 1) for early, late in itertools.pairwise(firsts)] == [2.0, 2.0]


def test_choose_anchors__takes_more_ratios_for_more_shapes_and_says_what_they_meet():
    boxes = boxes_of(np.clip(SIDES, 30, None), np.repeat([0.15, 1.0, 6.0], 100))
    choice = choose_anchors(boxes, STRIDES, 2, 0.5, 0.5)
    assert len(choice.ratios) >= 3
    assert (best_anchor_ious(boxes, choice.sides, choice.ratios, STRIDES, 0.5) >= 0.5).mean() == choice.covered >= 0.97


def test_choose_anchors__beats_the_usual_anchors_where_they_do_not_fit():
    boxes = boxes_of(SIDES, np.full(300, 0.3))
    choice = choose_anchors(boxes, STRIDES, 1, 0.5, 0.0)
    usual = best_anchor_ious(boxes, [[32.0], [64.0], [128.0]], [0.5, 1.0, 2.0], STRIDES)
    assert choice.covered > (usual >= 0.5).mean() + 0.1


def test_choose_anchors__of_no_boxes_has_sides_of_four_strides():
    choice = choose_anchors(np.zeros((0, 4), np.float32), STRIDES, 1, 0.5, 0.5)
    assert (choice.sides, choice.ratios, choice.covered) == (((16.0,), (32.0,), (64.0,)), (1.0,), 0.0)

import numpy as np
import pytest

from ssodkit.data.survey import best_anchor_ious
from ssodkit.recipe.draft.numbers import choose_anchors, view_size

SIZES = np.array([[480, 640]] * 9, dtype=np.int32)


def squares(*sides):
    return np.array([[100.0, 100.0, 100.0 + side, 100.0 + side] for side in sides])


def test_view_size__keeps_the_shape_and_the_budget():
    short, long = view_size(SIZES, squares(200.0, 300.0), 44_000)
    assert long / short == pytest.approx(640 / 480, abs=0.02)
    assert short * long == pytest.approx(44_000, rel=0.02)


def test_view_size__small_boxes_have_larger_views_up_to_four_times_the_pixels():
    assert view_size(SIZES, squares(*[24.0] * 9), 44_000)[0] == 240  # half: 24 pixels become 12
    assert view_size(SIZES, squares(*[4.0] * 9), 44_000)[0] == pytest.approx(2 * 181.7, abs=1)


def test_view_size__pictures_are_never_enlarged():
    assert view_size(np.array([[100, 120]], dtype=np.int32), squares(5.0), 44_000) == (100, 120)
    assert view_size(np.array([[100, 120]], dtype=np.int32), squares(), 44_000) == (100, 120)


def test_choose_anchors__meets_boxes_of_one_shape_with_one_ratio():
    random = np.random.RandomState(0)
    corner = random.uniform(0, 200, (300, 2))
    sides = np.exp(random.uniform(np.log(14), np.log(90), (300, 1)))
    choice = choose_anchors(np.concatenate([corner, corner + sides], axis=1))
    assert (len(choice.sides), choice.ratios) == (3, (1.0,))
    assert choice.covered >= 0.97


def test_choose_anchors__takes_more_ratios_for_more_shapes():
    random = np.random.RandomState(0)
    corner = random.uniform(0, 200, (300, 2))
    ratio = np.repeat([0.15, 1.0, 6.0], 100)[:, None]
    sides = np.exp(random.uniform(np.log(30), np.log(90), (300, 1))) * np.concatenate([ratio**-0.5, ratio**0.5], axis=1)
    boxes = np.concatenate([corner, corner + sides], axis=1)
    choice = choose_anchors(boxes)
    strides = [4 * 2**level for level in range(len(choice.sides))]
    assert len(choice.ratios) >= 3
    assert (best_anchor_ious(boxes, choice.sides, choice.ratios, strides, 0.5) >= 0.5).mean() == choice.covered >= 0.97


def test_choose_anchors__of_no_boxes_is_the_usual_choice():
    assert choose_anchors(squares()).sides[0] == (16.0, 22.6)

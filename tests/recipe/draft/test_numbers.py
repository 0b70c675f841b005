import numpy as np
import pytest

from ssodkit.recipe.draft.numbers import light_anchors, view_size

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


def test_light_anchors__takes_as_few_levels_as_meet_the_boxes():
    few, many = light_anchors(squares(*range(16, 60, 2))), light_anchors(squares(*range(12, 200, 4)))
    assert (len(few.sides), len(many.sides)) == (2, 4)
    assert few.covered >= 0.97
    assert many.covered >= 0.97
    assert few.ratios == many.ratios == (1.0,)


def test_light_anchors__of_no_boxes_are_the_usual_ones():
    choice = light_anchors(squares())
    assert (len(choice.sides), choice.sides[0], choice.ratios) == (3, (16.0, 22.6), (1.0,))

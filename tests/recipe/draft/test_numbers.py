import numpy as np
import pytest

from ssodkit.recipe.draft.numbers import (
    average_over,
    images_at_once,
    light_anchors,
    pretrained_steps,
    pyramid_anchors,
    small_size,
    usual_size,
)

SIZES = np.array([[480, 640]] * 9, dtype=np.int32)


def squares(*sides):
    return np.array([[100.0, 100.0, 100.0 + side, 100.0 + side] for side in sides])


def test_small_size__keeps_the_shape_and_the_budget():
    short, long = small_size(SIZES, squares(200.0, 300.0))
    assert long / short == pytest.approx(640 / 480, abs=0.02)
    assert short * long == pytest.approx(44_000, rel=0.02)


def test_small_size__small_boxes_have_larger_views_up_to_four_times_the_pixels():
    assert small_size(SIZES, squares(*[24.0] * 9))[0] == 240  # half: 24 pixels become 12
    assert small_size(SIZES, squares(*[4.0] * 9))[0] == pytest.approx(2 * 181.7, abs=1)


def test_small_size__pictures_are_never_enlarged():
    assert small_size(np.array([[100, 120]], dtype=np.int32), squares(5.0)) == (100, 120)
    assert small_size(np.array([[100, 120]], dtype=np.int32), squares()) == (100, 120)


def test_light_anchors__takes_as_few_levels_as_meet_the_boxes():
    few, many = light_anchors(squares(*range(16, 60, 2))), light_anchors(squares(*range(12, 200, 4)))
    assert (len(few.sides), len(many.sides)) == (2, 4)
    assert few.covered >= 0.97
    assert many.covered >= 0.97
    assert few.ratios == many.ratios == (1.0,)


def test_light_anchors__of_no_boxes_are_the_usual_ones():
    choice = light_anchors(squares())
    assert (len(choice.sides), choice.sides[0], choice.ratios) == (3, (16.0, 22.6), (1.0,))


def test_usual_size__shrinks_large_pictures_and_enlarges_none():
    assert usual_size(SIZES, squares()) == (480, 640)
    assert usual_size(np.array([[3000, 4000]], dtype=np.int32), squares()) == (800, 1067)
    assert usual_size(np.array([[1000, 4000]], dtype=np.int32), squares()) == (333, 1333)


def test_pyramid_anchors__meet_boxes_of_all_sizes_on_all_levels():
    choice = pyramid_anchors(squares(*range(30, 500, 5)))
    assert len(choice.sides) == 5
    assert choice.covered >= 0.97
    assert len(pyramid_anchors(squares()).sides) == 5


def test_pretrained_steps__are_those_of_the_paper_on_coco():
    assert pretrained_steps(11_829) == pytest.approx(180_000, rel=0.02)
    assert [pretrained_steps(count) for count in (0, 20, 1000, 10**6)] == [2000, 2000, 15_000, 180_000]


def test_average_over__a_tenth_of_the_run_or_a_thousand_steps():
    assert [average_over(steps) for steps in (2000, 10_000, 180_000)] == [0.995, 0.999, 0.999]


@pytest.mark.parametrize(
    ("gigabytes", "labeled", "unlabeled", "expected"),
    [(80, 8, 8, 16), (24, 8, 8, 8), (10, 8, 8, 4), (1, 8, 8, 2), (24, 8, 0, 8), (10, 8, 0, 4), (1, 8, 0, 1)],
)
def test_images_at_once__as_many_as_fit_in_equal_shares(gigabytes, labeled, unlabeled, expected):
    assert images_at_once(800 * 1333, gigabytes * 10**9, labeled, unlabeled) == expected

"""Two ways to the same detections, compared."""

from dataclasses import replace

import numpy as np
import pytest

from ssodkit.data.annotations import Category
from ssodkit.engine.agreement import Agreement
from ssodkit.engine.found import Found


def found(*rows):
    """Rows of left, top, right, bottom, score, label."""
    table = np.array(rows, np.float32).reshape(-1, 6)
    classes = (Category(1, "cat"), Category(2, "dog"))
    return Found(table[:, :4], table[:, 4], table[:, 5].astype(np.int64), classes, np.zeros((9, 9, 3), np.uint8))


WANTED = found((0, 0, 40, 20, 0.9, 0), (1, 0, 40, 20, 0.8, 1), (50, 50, 60, 60, 0.3, 0))


def compared(got, at_most=100):
    agreement = Agreement()
    agreement.add(WANTED, got, lowest=0.05, at_most=at_most)
    return agreement


def test_agreement__the_same_in_another_order_is_whole():
    order = [2, 0, 1]
    got = replace(WANTED, boxes=WANTED.boxes[order], scores=WANTED.scores[order], labels=WANTED.labels[order])
    agreement = compared(got)
    assert agreement.is_whole
    assert (agreement.agreeing, agreement.detections, agreement.boxes, agreement.scores) == (3, 3, 0.0, 0.0)
    assert compared(found()).detections == 3


@pytest.mark.parametrize(
    ("column", "by", "is_same"), [(2, 0.03, True), (2, 0.06, False), (4, 8e-4, True), (4, 2e-3, False)]
)
def test_agreement__a_thousandth_is_the_same_and_more_is_not(column, by, is_same):
    rows = np.column_stack([WANTED.boxes, WANTED.scores, WANTED.labels])
    rows[0, column] += by
    agreement = compared(found(*rows))
    assert agreement.is_whole == is_same
    assert agreement.boxes == pytest.approx(by if column == 2 else 0.0, abs=1e-5)
    assert agreement.scores == pytest.approx(by if column == 4 else 0.0, abs=1e-6)


def test_agreement__what_only_one_of_them_has_is_counted():
    rows = np.column_stack([WANTED.boxes, WANTED.scores, WANTED.labels])
    rows[1, 5] = 0  # another label
    agreement = compared(found(*rows))
    assert (agreement.agreeing, agreement.surplus, agreement.is_whole) == (2, 1, False)
    assert str(agreement).startswith("2 of 3 detections in 1 pictures, and 1 more in the file; largest difference: ")


def test_agreement__what_lies_at_the_threshold_or_is_the_last_of_many_may_be_missing():
    rows = np.column_stack([WANTED.boxes, WANTED.scores, WANTED.labels])
    assert compared(found(*rows, (5, 5, 9, 9, 0.05003, 0))).is_whole
    assert not compared(found(*rows, (5, 5, 9, 9, 0.06, 0))).is_whole
    other_last = found(*rows[:2], (5, 5, 9, 9, 0.30005, 1))
    assert compared(other_last, at_most=3).is_whole
    assert not compared(other_last).is_whole

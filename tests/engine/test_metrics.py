from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ssodkit.data.annotations import Category, make_image_set
from ssodkit.engine.metrics import DetectionTable, area_average, coco_scores, eleven_point_average, voc_scores

CLASSES = (Category(7, "cat"), Category(3, "dog"))
BOX, OTHER = [10.0, 10.0, 50.0, 50.0], [60.0, 60.0, 90.0, 90.0]


def coco(found, truth):
    """Of all classes together."""
    return coco_scores(found, truth)[0]


def truth(boxes, labels=None, **columns):
    """One image for every list of boxes; ids 100, 101, ..."""
    owner = [image for image, row in enumerate(boxes) for _ in row]
    return make_image_set(
        Path(),
        [f"{image}.png" for image in range(len(boxes))],
        [100 + image for image in range(len(boxes))],
        [[100, 100]] * len(boxes),
        CLASSES,
        owner,
        [box for row in boxes for box in row],
        labels if labels is not None else [0] * len(owner),
        **columns,
    )


def found(*rows):
    """Rows of (image id, box, label, score)."""
    images, boxes, labels, scores = zip(*rows, strict=True) if rows else ((), (), (), ())
    table = DetectionTable(
        np.array(images, np.int64),
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(labels, np.int64),
        np.array(scores, np.float32),
    )
    return DetectionTable.join([table])


SHEET = found((100, BOX, 0, 0.9), (100, [0, 60, 9, 69], 0, 0.8), (100, OTHER, 0, 0.7))
"""Right, wrong, right, with two objects."""


def test_coco_scores__right_wrong_right_on_two_objects():
    assert coco(SHEET, truth([[BOX, OTHER]]))["AP"] == pytest.approx(0.834983, abs=5e-7)


def test_voc_scores__right_wrong_right_on_two_objects():
    scores = voc_scores(SHEET, truth([[BOX, OTHER]]))
    assert scores["AP50_voc07"] == pytest.approx(0.848485, abs=5e-7)
    assert scores["AP_voc07"] == pytest.approx(0.848485, abs=5e-7)
    assert scores["AP50_voc10"] == pytest.approx(0.833333, abs=5e-7)


def test_coco_scores__are_1_for_the_truth_itself_and_name_the_sizes_that_exist():
    scores = coco(found((100, BOX, 0, 0.9), (101, OTHER, 1, 0.8)), truth([[BOX], [OTHER]], [0, 1]))
    assert [scores[name] for name in ("AP", "AP50", "AP75", "AP_S", "AP_M")] == pytest.approx([1.0] * 5)
    assert scores["AP_L"] is None


def test_coco_scores__without_a_detection_are_0():
    assert coco(found(), truth([[BOX]]))["AP"] == 0.0


def test_coco_scores__without_a_true_box_are_none():
    assert coco(found((100, BOX, 0, 0.9)), truth([[]]))["AP"] is None


def test_voc_scores__without_a_detection_are_0_and_without_a_true_box_none():
    assert voc_scores(found(), truth([[BOX]]))["AP50_voc07"] == 0.0
    assert voc_scores(found((100, BOX, 0, 0.9)), truth([[]]))["AP50_voc07"] is None


def test_scores__the_wrong_class_is_wrong():
    row = found((100, BOX, 1, 0.9))
    assert coco(row, truth([[BOX]]))["AP50"] == 0.0
    assert voc_scores(row, truth([[BOX]]))["AP50_voc07"] == 0.0


@pytest.mark.parametrize("column", ["crowd", "difficult"])
def test_scores__what_answers_to_an_ignored_box_does_not_count(column):
    rows = found((100, OTHER, 0, 0.9), (100, BOX, 0, 0.8))
    ignoring = truth([[BOX, OTHER]], **{column: [False, True]})
    assert coco(rows, ignoring)["AP50"] == pytest.approx(1.0)
    assert voc_scores(rows, ignoring)["AP50_voc07"] == pytest.approx(1.0)


def test_coco_scores__of_a_class_are_those_of_the_class_alone():
    random = np.random.RandomState(1)
    rows, images = guesses_at_twelve_boxes()
    labels = random.rand(12) < 0.5
    images = replace(images, labels=labels.astype(np.int16))
    rows = replace(rows, labels=np.where(random.rand(60) < 0.8, np.repeat(labels, 5), 0).astype(np.int64))
    total, by_class = coco_scores(rows, images)
    assert list(by_class) == ["cat", "dog"]
    for label, scores in enumerate(by_class.values()):
        mine = rows.labels == label
        own = DetectionTable(rows.image_ids[mine], rows.boxes[mine], rows.labels[mine], rows.scores[mine])
        alone = coco(own, images.with_boxes(images.labels == label))
        assert 0.05 < alone["AP"] < alone["AP50"] < 0.95
        assert (scores["AP"], scores["AP50"]) == pytest.approx((alone["AP"], alone["AP50"]))
        assert scores["boxes"] == ((images.labels == label) & ~images.difficult).sum()
    for name in ("AP", "AP50"):
        assert np.mean([scores[name] for scores in by_class.values()]) == pytest.approx(total[name])


@pytest.mark.parametrize("column", ["crowd", "difficult"])
def test_coco_scores__of_a_class_without_a_box_that_counts_are_none(column):
    images = truth([[BOX, OTHER]], [0, 1], **{column: [False, True]})
    assert coco_scores(found((100, BOX, 0, 0.9), (100, OTHER, 1, 0.9)), images)[1] == {
        "cat": {"boxes": 1, "AP": pytest.approx(1.0), "AP50": pytest.approx(1.0)},
        "dog": {"boxes": 0, "AP": None, "AP50": None},
    }


def test_coco_scores__a_second_answer_to_a_difficult_box_is_wrong_and_to_a_crowd_is_not():
    rows = found((100, OTHER, 0, 0.9), (100, OTHER, 0, 0.8), (100, BOX, 0, 0.7))
    # Of the two answers to the difficult box one does not count: a wrong one, then a right one of a single object.
    assert coco(rows, truth([[BOX, OTHER]], difficult=[False, True]))["AP50"] == pytest.approx(0.5)
    assert coco(rows, truth([[BOX, OTHER]], crowd=[False, True]))["AP50"] == pytest.approx(1.0)
    both = truth([[BOX, OTHER]], crowd=[False, True], difficult=[False, True])
    assert coco(rows, both)["AP50"] == pytest.approx(1.0)


def test_coco_scores__a_part_of_a_difficult_box_is_wrong_and_of_a_crowd_is_not():
    part = [60.0, 60.0, 70.0, 70.0]  # a ninth of OTHER, and all of it inside
    rows = found((100, part, 0, 0.9), (100, BOX, 0, 0.7))
    assert coco(rows, truth([[BOX, OTHER]], difficult=[False, True]))["AP50"] == pytest.approx(0.5)
    assert coco(rows, truth([[BOX, OTHER]], crowd=[False, True]))["AP50"] == pytest.approx(1.0)


def test_coco_scores__an_answer_takes_the_object_before_a_difficult_box_that_it_fits_better():
    near = [14.0, 10.0, 54.0, 50.0]
    rows = found((100, near, 0, 0.9))
    assert coco(rows, truth([[BOX, near]], difficult=[False, True]))["AP50"] == pytest.approx(1.0)


@pytest.mark.parametrize("size", [10.0, 50.0, 200.0])
def test_coco_scores__difficult_boxes_are_no_objects_of_any_size(size):
    scores = coco(found(), truth([[[0.0, 0.0, size, size]]], difficult=[True]))
    assert [scores[name] for name in ("AP", "AP_S", "AP_M", "AP_L")] == [None] * 4


def coco_by_hand(rows, images, at):
    """COCO's matching with `ignore`, one detection after the other, and 101 points of the precision; of one class."""
    taken, hits = set(), []
    for row in np.argsort(-rows.scores, kind="stable"):
        place = rows.image_ids[row] - 100
        free = [box for box in range(*images.offsets[place : place + 2]) if box not in taken]
        overlaps = {box: iou(rows.boxes[row], images.boxes[box]) for box in free}
        fits = [box for box in free if overlaps[box] >= at and not images.difficult[box]]
        fits = fits or [box for box in free if overlaps[box] >= at]
        best = max(fits, key=overlaps.get, default=None)
        taken |= {best} - {None}
        if best is None or not images.difficult[best]:
            hits.append(best is not None)
    right = np.cumsum(hits)
    precision, recall = right / np.arange(1, len(hits) + 1), right / (~images.difficult).sum()
    return np.mean([precision[recall >= goal].max(initial=0.0) for goal in np.linspace(0, 1, 101)])


def iou(first, second):
    a, b = np.asarray(first, float), np.asarray(second, float)
    sides = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None)
    return sides.prod() / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - sides.prod())


def test_coco_scores__agree_with_the_procedure_taken_step_by_step():
    rows, images = guesses_at_twelve_boxes()
    for name, at in (("AP50", 0.5), ("AP75", 0.75)):
        expected = coco_by_hand(rows, images, at)
        assert 0.05 < expected < 0.95
        assert coco(rows, images)[name] == pytest.approx(expected)


def test_voc_scores__a_second_answer_to_one_box_is_wrong():
    rows = found((100, BOX, 0, 0.9), (100, BOX, 0, 0.8), (100, OTHER, 0, 0.7))
    assert voc_scores(rows, truth([[BOX, OTHER]]))["AP50_voc07"] == pytest.approx(0.848485, abs=5e-7)


def test_voc_scores__a_box_that_is_answered_better_elsewhere_is_not_given_to_the_next_best():
    near = [14.0, 10.0, 54.0, 50.0]
    rows = found((100, BOX, 0, 0.9), (100, [11.0, 10.0, 51.0, 50.0], 0, 0.8))
    # The second answer is nearest to BOX, which is taken; VOC calls it wrong although `near` is free.
    assert voc_scores(rows, truth([[BOX, near]]))["AP50_voc10"] == 0.5


def test_eleven_point_average__of_nothing_found_is_0():
    none = np.zeros(0, bool)
    assert eleven_point_average(none, none, 3) == area_average(none, none, 3) == 0.0


def test_detection_table__the_order_of_processes_does_not_show():
    first, second = found((101, BOX, 0, 0.5)), found((100, BOX, 0, 0.4), (100, OTHER, 1, 0.3))
    joined, swapped = DetectionTable.join([first, second]), DetectionTable.join([second, first])
    assert joined.image_ids.tolist() == swapped.image_ids.tolist() == [100, 100, 101]
    assert joined.scores.tolist() == swapped.scores.tolist()


def test_detection_table__coco_results_carry_the_data_sets_own_ids():
    (row,) = found((100, BOX, 1, 0.5)).as_coco(np.array([7, 3]))
    assert row == {"image_id": 100, "category_id": 3, "bbox": [10.0, 10.0, 40.0, 40.0], "score": 0.5}


def test_coco_scores__print_nothing(capsys):
    coco(SHEET, truth([[BOX, OTHER]]))
    assert capsys.readouterr().out == ""


def voc_by_hand(rows, images, at):
    """VOC's own procedure, one detection after the other; the area under the curve of one class."""
    taken, hits = set(), []
    for row in np.argsort(-rows.scores, kind="stable"):
        place = rows.image_ids[row] - 100
        best, owner = 0.0, None
        for box in range(images.offsets[place], images.offsets[place + 1]):
            overlap = iou(rows.boxes[row], images.boxes[box])
            if overlap > best:
                best, owner = overlap, box
        if best > at and images.difficult[owner]:
            continue
        hits.append(best > at and owner not in taken)
        taken |= {owner} if best > at else set()
    objects = (~images.difficult).sum()
    area, right = 0.0, np.cumsum(hits)
    for place, hit in enumerate(hits):
        area += hit / objects * max(right[later] / (later + 1) for later in range(place, len(hits)))
    return area


def guesses_at_twelve_boxes():
    """Five guesses at every box of two images, some of them difficult, and the boxes."""
    random = np.random.RandomState(0)
    corners = random.uniform(0, 60, (12, 2))
    boxes = np.concatenate([corners, corners + random.uniform(10, 40, (12, 2))], axis=1)
    images = truth([boxes[:5].tolist(), boxes[5:].tolist()], difficult=random.rand(12) < 0.2)
    guesses = np.repeat(boxes, 5, axis=0) + random.uniform(-5, 5, (60, 4))
    owners = np.repeat([100] * 5 + [101] * 7, 5)
    assert images.difficult.any()
    return found(*zip(owners, guesses, [0] * 60, random.rand(60), strict=True)), images


def test_voc_scores__agree_with_the_procedure_taken_step_by_step():
    rows, images = guesses_at_twelve_boxes()
    expected = voc_by_hand(rows, images, 0.5)
    assert 0.2 < expected < 0.95
    assert voc_scores(rows, images)["AP50_voc10"] == pytest.approx(expected)

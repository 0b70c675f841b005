from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ssodkit.data.annotations import Category, make_image_set
from ssodkit.engine.alarms import Advice
from ssodkit.engine.health import Health, describe_stored, match_one_to_one
from ssodkit.structures.predictions import Detections
from ssodkit.structures.progress import Progress
from ssodkit.structures.run import Report, Selection
from ssodkit.structures.teaching import Supervision, Targets
from ssodkit.structures.views import View

CPU = torch.device("cpu")
CLASSES = [Category(5, "cat"), Category(9, "dog")]
BOX, FAR, NEAR = [10.0, 10.0, 30.0, 30.0], [60.0, 60.0, 90.0, 90.0], [12.0, 10.0, 32.0, 30.0]


def images(ids, boxes=(), **columns):
    """Images of 100 x 100; `boxes` are (place of its image, corners, label)."""
    owner, corners, labels = zip(*boxes, strict=True) if boxes else ((), (), ())
    sizes = [(100, 100)] * len(ids)
    return make_image_set(Path(), [f"{i}.png" for i in ids], ids, sizes, CLASSES, owner, corners, labels, **columns)


def report(ids, rows, homography=None):
    """Per image a list of (corners, label, confidence, passes)."""
    length = max((len(row) for row in rows), default=0)
    targets = Targets.empty(len(ids), length=length)
    found = Detections.empty(len(ids), length=length)
    passed = torch.zeros(len(ids), length, dtype=torch.bool)
    for image, row in enumerate(rows):
        for place, (corners, label, confidence, passes) in enumerate(row):
            targets.boxes[image, place] = found.boxes[image, place] = torch.tensor(corners)
            targets.labels[image, place] = found.labels[image, place] = label
            found.valid[image, place] = True
            found.confidence[image, place] = confidence
            targets.valid[image, place] = passed[image, place] = passes
    targets = Targets(targets.boxes, targets.labels, targets.valid, torch.ones_like(targets.weight), targets.crowd)
    view = View(
        pixels=torch.zeros(len(ids), 3, 0, 0, dtype=torch.uint8),
        sizes=torch.full((len(ids), 2), 100),
        homography=torch.eye(3).repeat(len(ids), 1, 1) if homography is None else homography,
        image_ids=torch.tensor(ids),
        keys=torch.tensor(ids),
    )
    selection = Selection(Supervision.uniform(targets, Progress(0, 100)), {"at_most": found.valid, "classes": passed})
    return Report(found, selection, view)


def make_health(hidden, labeled=None, steps=100, quiet_after=4):
    labeled = labeled if labeled is not None else images([1, 2], [(0, BOX, 0), (1, BOX, 1), (1, FAR, 1)])
    return Health(labeled, hidden, np.array([1, 2]), steps, quiet_after, CPU, Advice("raise it", "lower it"))


NONE = np.zeros(0, dtype=np.int64)
HIDDEN = images([10, 11, 1], [(0, BOX, 0), (0, FAR, 1), (1, BOX, 0), (2, BOX, 0)])


def test_health__counts_boxes_filters_scores_precision_and_recall():
    health = make_health(HIDDEN)
    health.add(1, [report([10, 11], [[(BOX, 0, 0.93, True), (FAR, 0, 0.51, True)], [(NEAR, 0, 0.31, False)]])])
    summary, warning = health.report()
    assert warning is None
    assert summary["images"] == 2
    assert summary["found_per_image"] == 1.5
    assert summary["boxes_per_image"] == 1.0
    assert summary["labeled_boxes_per_image"] == 1.5
    assert summary["boxes_per_class"] == {"cat": 2, "dog": 0}
    assert summary["passed"] == {"at_most": 1.0, "classes": pytest.approx(2 / 3)}
    assert {place: n for place, n in enumerate(summary["score_histogram"]) if n} == {6: 1, 10: 1, 18: 1}
    assert summary["precision"] == 0.5
    assert summary["recall"] == pytest.approx(1 / 3)


def with_thresholds(one, *rows):
    selection = replace(one.selection, numbers={"threshold": torch.tensor(rows)})
    return replace(one, selection=selection)


def test_health__means_of_a_selectors_numbers_over_pseudo_boxes_and_per_class():
    health = make_health(HIDDEN)
    rows = [[(BOX, 0, 0.93, True), (FAR, 0, 0.31, False)], [(NEAR, 0, 0.31, True)]]
    health.add(1, [with_thresholds(report([10, 11], rows), [0.5, 0.5], [0.25, 0.0])])
    health.add(2, [with_thresholds(report([1], [[(BOX, 1, 0.9, True)]]), [0.75])])  # labeled, so left out
    summary, _ = health.report()
    assert summary["numbers"] == {
        "threshold": {"mean": 0.375, "per_class": {"cat": pytest.approx(1.25 / 3), "dog": None}}
    }


def test_health__labeled_images_are_left_out():
    health = make_health(HIDDEN)
    health.add(1, [report([1, 10], [[(BOX, 0, 0.9, True)], []])])
    summary, _ = health.report()
    assert (summary["images"], summary["boxes_per_image"], summary["recall"]) == (1, 0.0, 0.0)
    assert summary["precision"] is None


def test_health__hidden_labels_are_compared_in_the_frame_of_the_view():
    flip = torch.tensor([[[-1.0, 0.0, 100.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]])
    health = make_health(HIDDEN)
    health.add(1, [report([11], [[([70.0, 10.0, 90.0, 30.0], 0, 0.9, True)]], flip)])
    summary, _ = health.report()
    assert (summary["precision"], summary["recall"]) == (1.0, 1.0)


def test_health__crowds_are_nothing_to_be_found():
    health = make_health(images([10], [(0, BOX, 0), (0, FAR, 1)], crowd=[False, True]))
    health.add(1, [report([10], [[(BOX, 0, 0.9, True)]])])
    assert health.report()[0]["recall"] == 1.0


def test_health__without_hidden_labels_says_nothing_of_precision():
    health = make_health(None)
    health.add(1, [report([10], [[(BOX, 0, 0.9, True)]])])
    summary, _ = health.report()
    assert "precision" not in summary
    assert summary["boxes_per_image"] == 1.0


def test_health__steps_without_a_report_are_no_news():
    health = make_health(HIDDEN)
    health.add(1, [])
    assert health.report() == (None, None)
    assert health.last() is None


def test_health__a_report_begins_afresh_and_the_last_tenth_is_kept_apart():
    health = make_health(HIDDEN, steps=20)
    for step in range(1, 21):
        confident = step > 18
        health.add(step, [report([11], [[(BOX, 0, 0.9 if confident else 0.1, confident)]])])
        if step == 19:
            assert health.report()[0]["images"] == 19
    assert health.report()[0]["images"] == 1
    assert (health.last()["images"], health.last()["precision"], health.last()["recall"]) == (2, 1.0, 1.0)


def test_health__a_long_silence_is_explained():
    health = make_health(HIDDEN, quiet_after=4)
    warnings = []
    for step in range(1, 9):
        health.add(step, [report([10, 11], [[(BOX, 0, 0.42, False)], []])])
        if step % 2 == 0:
            warnings.append(health.report()[1])
    assert [warning is not None for warning in warnings] == [False, True, False, True]
    assert "No pseudo-box for 4 steps" in warnings[1]
    assert "`at_most` 0, `classes` 2" in warnings[1]
    assert "confidence of 0.45" in warnings[1]
    assert "method.selector" in warnings[1]


def test_health__a_teacher_that_finds_nothing_is_explained():
    health = make_health(HIDDEN, quiet_after=1)
    health.add(1, [report([10], [[]])])
    assert "the teacher finds nothing at all" in health.report()[1]


def test_health__goes_on_from_its_state():
    health, other = make_health(HIDDEN, steps=2), make_health(HIDDEN, steps=2)
    health.add(1, [report([10], [[(BOX, 0, 0.9, True)]])])
    health.settle()
    other.load_state_dict(health.state_dict())
    for each in (health, other):
        each.add(2, [report([11], [[(FAR, 0, 0.9, True)]])])
    assert health.report() == other.report()
    assert health.last() == other.last()


def test_match_one_to_one__each_true_box_is_found_once():
    truth = Targets(
        torch.tensor([[BOX, FAR]]),
        torch.tensor([[0, 1]]),
        torch.ones(1, 2, dtype=torch.bool),
        torch.ones(1, 2),
        torch.zeros(1, 2, dtype=torch.bool),
    )
    boxes = torch.tensor([[NEAR, BOX, FAR, FAR]])
    pseudo = Targets(
        boxes,
        torch.tensor([[0, 0, 0, 1]]),
        torch.ones(1, 4, dtype=torch.bool),
        torch.ones(1, 4),
        torch.zeros(1, 4, dtype=torch.bool),
    )
    assert match_one_to_one(pseudo, truth).tolist() == [[True, False, False, True]]


@pytest.mark.parametrize(("boxes", "true"), [(0, 2), (2, 0), (0, 0)])
def test_match_one_to_one__nothing_is_found_in_nothing(boxes, true):
    assert match_one_to_one(Targets.empty(3, length=boxes), Targets.empty(3, length=true)).shape == (3, boxes)


def test_describe_stored__counts_against_the_same_images_without_those_that_are_labeled():
    stored = images([11, 1, 10], [(0, NEAR, 0), (0, FAR, 1), (1, BOX, 0), (2, BOX, 1), (2, FAR, 1)])
    hidden = images([11, 1, 10], [(0, BOX, 0), (1, BOX, 0), (2, BOX, 0), (2, FAR, 1)])
    summary = describe_stored(stored, hidden, images([1, 2], [(0, BOX, 0)]), np.array([1]))
    assert summary == {
        "images": 2,
        "boxes_per_image": 2.0,
        "labeled_boxes_per_image": 0.5,
        "boxes_per_class": {"cat": 1, "dog": 3},
        "precision": 2 / 4,
        "recall": 2 / 3,
    }


def test_describe_stored__without_hidden_labels_counts_and_without_stored_boxes_is_nothing():
    labeled, stored = images([1], [(0, BOX, 0)]), images([10], [(0, BOX, 1)])
    assert "precision" not in (describe_stored(stored, None, labeled, NONE) or {"precision": 0})
    assert describe_stored(images([10]), HIDDEN, labeled, NONE) is None
    assert describe_stored(None, None, labeled, NONE) is None


def test_report__few_pseudo_boxes_are_said_once_and_only_where_they_teach():
    health = make_health(HIDDEN, quiet_after=100)  # 1.5 labeled boxes per image
    said = []
    for number, teaches in enumerate([False] * 4 + [True] * 5):
        health.add(number, [report([10, 11], [[(BOX, 0, 0.9, number == 0)], []])])
        said.append(health.report(teaches)[1])
    assert [warning is not None for warning in said] == [False] * 6 + [True] + [False] * 2


def test_report__what_was_said_is_not_said_again_after_a_restart():
    first, second = make_health(HIDDEN), make_health(HIDDEN)
    rows = [report([10], [[(BOX, 0, 0.9, True), (FAR, 0, 0.9, True), (NEAR, 0, 0.9, True), (NEAR, 1, 0.9, True)]])]
    for number in range(3):
        first.add(number, rows)
        warning = first.report()[1]
    assert warning == "Many pseudo-boxes: 4.0 per image, and labeled images have 1.5. Most are wrong then; lower it."
    second.load_state_dict(first.state_dict())
    second.add(4, rows)
    assert second.report()[1] is None

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from ssodkit.detectors.fusion import fuse
from ssodkit.structures.predictions import Detections

IOU = 0.6


def answer(*images):
    """Of each image a list of (box, label, confidence), best first, padded with rows that mean nothing."""
    length = max(len(rows) for rows in images) + 1
    found = Detections.empty(len(images), length=length)
    found.confidence.fill_(0.9)  # what is not valid must not count
    for place, rows in enumerate(images):
        for row, (box, label, confidence) in enumerate(rows):
            found.boxes[place, row] = torch.tensor(box)
            found.labels[place, row] = label
            found.confidence[place, row] = confidence
            found.valid[place, row] = True
    return found


def rows_of(found, image=0):
    valid = found.valid[image]
    parts = (found.boxes[image][valid], found.labels[image][valid], found.confidence[image][valid])
    return list(zip(*(part.tolist() for part in parts), strict=True))


def test_fuse__a_box_is_the_mean_of_what_the_answers_say_by_confidence():
    first = answer([([0.0, 0.0, 10.0, 10.0], 1, 0.6)])
    second = answer([([2.0, 0.0, 12.0, 10.0], 1, 0.2)])
    ((box, label, confidence),) = rows_of(fuse([first, second], IOU))
    assert box == pytest.approx([0.5, 0.0, 10.5, 10.0])
    assert (label, confidence) == (1, pytest.approx(0.4))


def test_fuse__what_one_of_the_answers_lacks_counts_half():
    first = answer([([0.0, 0.0, 10.0, 10.0], 1, 0.6)])
    second = answer([([0.0, 0.0, 10.0, 10.0], 0, 0.5)])
    assert rows_of(fuse([first, second], IOU)) == [
        ([0.0, 0.0, 10.0, 10.0], 1, pytest.approx(0.3)),
        ([0.0, 0.0, 10.0, 10.0], 0, pytest.approx(0.25)),
    ]


def test_fuse__the_same_answer_twice_is_that_answer():
    found = answer([([0.0, 0.0, 10.0, 10.0], 1, 0.6), ([20.0, 0.0, 30.0, 10.0], 0, 0.5)], [])
    again = fuse([found, found], IOU)
    assert rows_of(again) == [(box, label, pytest.approx(confidence)) for box, label, confidence in rows_of(found)]
    assert rows_of(again, 1) == []


def test_fuse__nothing_found_is_nothing():
    empty = Detections.empty(2)
    assert not fuse([empty, empty], IOU).valid.any()
    one = answer([([0.0, 0.0, 10.0, 10.0], 1, 0.6)], [])
    assert rows_of(fuse([one, empty], IOU)) == [([0.0, 0.0, 10.0, 10.0], 1, pytest.approx(0.3))]


def one_by_one(answers, most):
    """The same object by object, in NumPy; the `most` best objects."""
    everything = [(*row, place) for place, rows in enumerate(answers) for row in rows]
    everything.sort(key=lambda row: -row[2])
    heads = []
    for box, label, _, _ in everything:
        taken = [head for head, other in heads if other == label]
        if not taken or box_iou(torch.tensor([box]), torch.tensor(taken)).max() <= IOU:
            heads.append((box, label))
    fused = []
    for head, label in heads:
        boxes, scores = [], []
        for rows in answers:
            near = [
                (float(box_iou(torch.tensor([head]), torch.tensor([box]))), box, score)
                for box, other, score in rows
                if other == label and nearest(box, label, heads) == head
            ]
            best = max(near, default=(0.0, None, 0.0), key=lambda each: each[0])
            if best[0] > IOU:
                boxes.append(best[1])
                scores.append(best[2])
        fused.append((np.average(boxes, axis=0, weights=scores).tolist(), label, sum(scores) / len(answers)))
    return sorted(fused, key=lambda row: -row[2])[:most]


def nearest(box, label, heads):
    """The head of the box's class that it overlaps most."""
    mine = [head for head, other in heads if other == label]
    return mine[int(box_iou(torch.tensor([box]), torch.tensor(mine)).argmax())]


def test_fuse__a_box_between_two_objects_votes_for_the_nearer():
    first = answer([([0.0, 0.0, 10.0, 10.0], 0, 0.9), ([2.6, 0.0, 12.6, 10.0], 0, 0.5)])
    between = answer([([1.4, 0.0, 11.4, 10.0], 0, 0.8)])
    assert [row[2] for row in rows_of(fuse([first, between], IOU))] == [pytest.approx(0.65), pytest.approx(0.45)]


def test_fuse__of_many_objects_those_stay_that_the_answers_agree_on():
    first = answer([([0.0, 0.0, 10.0, 10.0], 0, 0.95)])
    second = answer([([50.0, 0.0, 60.0, 10.0], 0, 0.9)])
    third = answer([([50.0, 0.0, 60.0, 10.0], 0, 0.8)])
    found = [
        Detections(
            **{
                **vars(one),
                "boxes": one.boxes[:, :1],
                "labels": one.labels[:, :1],
                "valid": one.valid[:, :1],
                "scores": {"confidence": one.confidence[:, :1]},
            }
        )
        for one in (first, second, third)
    ]
    ((box, _, confidence),) = rows_of(fuse(found, IOU))
    assert (box[0], confidence) == (50.0, pytest.approx(1.7 / 3))


def test_fuse__many_boxes_agree_with_an_object_by_object_sum():
    random = np.random.RandomState(0)
    centers = random.uniform(20, 180, (12, 2))
    answers = []
    for _ in range(4):
        rows = []
        for center in centers[random.permutation(12)[:9]]:
            middle, side = center + random.normal(0, 2, 2), random.uniform(18, 24, 2)
            rows.append(([*(middle - side / 2), *(middle + side / 2)], int(center[0] > 100), random.uniform(0.1, 0.9)))
        answers.append(sorted(rows, key=lambda row: -row[2]))
    found, expected = rows_of(fuse([answer(rows) for rows in answers], IOU)), one_by_one(answers, most=10)
    assert [row[1] for row in found] == [row[1] for row in expected]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours[0] == pytest.approx(theirs[0], abs=1e-3)
        assert ours[2] == pytest.approx(theirs[2], abs=1e-5)
    assert len(found) == 10


def test_fuse__agreement_is_the_mean_overlap_with_what_the_answers_say():
    wide, high = [0.0, 0.0, 10.0, 8.0], [0.0, 0.0, 8.0, 10.0]
    answers = [answer([(wide, 1, 0.5)]), answer([(high, 1, 0.5)]), answer([]), answer([(wide, 0, 0.5)])]
    found = fuse(answers, IOU)
    fused = torch.tensor([[0.0, 0.0, 9.0, 9.0]])
    expected = box_iou(fused, torch.tensor([wide, high])).sum() / 4
    assert found.scores["agreement"][found.valid].tolist() == pytest.approx([float(expected), 0.25])
    assert (found.scores["agreement"][~found.valid] == 0.0).all()
    same = answer([(wide, 1, 0.5)])
    assert fuse([same, same], IOU).scores["agreement"][0, 0] == pytest.approx(1.0)

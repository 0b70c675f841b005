from dataclasses import replace

import numpy as np
import pytest
import torch
from lesson import answers_of
from torchvision.ops import box_iou

from ssodkit.detectors.detections import find_by_level
from ssodkit.detectors.fusion import fuse, mirror_mean, unite
from ssodkit.detectors.rules import DenseDetectionRule
from ssodkit.ops.coding import EdgeCoder
from ssodkit.structures.predictions import Candidates, Detections, Predictions

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


PLAIN, MIRRORED, MINE = (
    torch.tensor([[logits]], dtype=torch.float64)
    for logits in ((2.0, 0.5, 0.0, -1.0), (1.0, 1.0, 0.0, 0.0), (1.0, 0.0, 0.5, 0.0))
)
CODES, MIRRORED_CODES, MY_CODES = (
    torch.tensor([[[codes]]], dtype=torch.float64)
    for codes in ((0.10, -0.20, 0.05, 0.30), (-0.14, -0.16, 0.07, 0.26), (0.10, -0.10, 0.0, 0.20))
)


def divergence(theirs, mine):
    """KL of probabilities from those of logits."""
    return (theirs * (theirs.log() - mine.log_softmax(dim=-1))).sum().item()


def test_mirror_mean__averages_probabilities_as_published():
    mean = mirror_mean(answers_of(PLAIN, "softmax"), answers_of(MIRRORED, "softmax"))
    expected = torch.tensor([[[0.537815, 0.261987, 0.115286, 0.084912]]]).double()
    torch.testing.assert_close(mean.class_probs(), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(mean.class_logits.exp(), expected, rtol=0, atol=1e-6)  # their logarithms
    assert divergence(mean.class_probs(), MINE) == pytest.approx(0.112713, abs=1e-6)
    of_logits = (0.5 * (PLAIN + MIRRORED)).softmax(dim=-1)
    assert divergence(of_logits, MINE) == pytest.approx(0.115066, abs=1e-6)


def test_mirror_mean__turns_codes_back_as_published():
    plain, mirrored = answers_of(PLAIN, codes=CODES), answers_of(MIRRORED, codes=MIRRORED_CODES)
    mean = mirror_mean(plain, mirrored).box_codes
    torch.testing.assert_close(mean, torch.tensor([[[[0.12, -0.18, 0.06, 0.28]]]]).double())
    difference = mean - MY_CODES
    assert difference.norm().item() == pytest.approx(0.129615, abs=1e-6)
    assert difference.square().sum().item() == pytest.approx(0.0168, abs=1e-6)
    assert (0.5 * (CODES + MIRRORED_CODES) - MY_CODES).norm().item() == pytest.approx(0.175499, abs=1e-6)


def test_mirror_mean__turns_the_codes_of_every_class_whatever_their_form():
    codes = torch.randn(1, 3, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for coder in (answers_of(PLAIN).coder, EdgeCoder()):
        plain = replace(answers_of(PLAIN.expand(1, 3, 4), codes=codes), coder=coder)
        mean = mirror_mean(plain, replace(plain, box_codes=coder.mirrored(codes)))
        torch.testing.assert_close(mean.box_codes, codes)


def test_mirror_mean__of_sigmoids_is_the_logit_of_the_mean_probability():
    mean = mirror_mean(answers_of(PLAIN), answers_of(MIRRORED))
    torch.testing.assert_close(mean.class_probs(), 0.5 * (PLAIN.sigmoid() + MIRRORED.sigmoid()))


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_mirror_mean__is_finite_however_sure_and_takes_no_candidates(activation):
    sure = answers_of(torch.tensor([[[300.0, -300.0], [-300.0, 300.0]]]), activation)
    assert mirror_mean(sure, sure).class_logits.isfinite().all()
    torch.testing.assert_close(mirror_mean(sure, sure).class_probs(), sure.class_probs())
    nothing = answers_of(torch.zeros(2, 0, 3), activation)
    assert mirror_mean(nothing, nothing).class_logits.shape == (2, 0, 3)


def test_fuse__what_was_answered_besides_is_averaged_as_the_boxes_are():
    first = answer([([0.0, 0.0, 10.0, 10.0], 1, 0.6)])
    second = answer([([2.0, 0.0, 12.0, 10.0], 1, 0.2)])
    for found, said in ((first, 1.0), (second, 5.0)):
        found.extra["uncertainty"] = torch.full((1, 2, 4), said)
        found.extra["quality"] = torch.full((1, 2), said)
    fused = fuse([first, second], IOU)
    assert fused.extra["uncertainty"][0, 0].tolist() == pytest.approx([2.0] * 4)
    assert fused.extra["quality"][0, 0].item() == pytest.approx(2.0)


RANKINGS = {"plain": {"class": 1.0}, "certain": {"class": 0.5, "certainty": 0.5}}


def ranked(boxes, probs, uncertainty):
    """One image's boxes by two rankings, united."""
    own = torch.tensor(boxes).view(1, -1, 4)
    candidates = Candidates(own, torch.ones(own.shape[:2], dtype=torch.bool), lengths=(own.shape[1],))
    logits = torch.tensor(probs).view(1, -1, 2).logit()
    said = {"uncertainty": torch.tensor(uncertainty).view(1, -1, 1).expand(-1, -1, 4)}
    seen = Predictions(candidates, logits, "sigmoid", torch.zeros_like(own)[:, :, None], EdgeCoder(), said)
    rule, sizes = DenseDetectionRule(score=0.05, nms=0.6), torch.tensor([[100, 100]])
    return unite({name: find_by_level(seen, sizes, rule, rank=rank) for name, rank in RANKINGS.items()})


def test_unite__each_ranking_keeps_its_own_box_of_two_that_overlap():
    """Published: by class the first box survives, by class and certainty the second."""
    found = ranked([[0.0, 0.0, 40.0, 40.0], [2.0, 2.0, 42.0, 42.0]], [[0.8, 0.01], [0.6, 0.01]], [1.0, -2.0])
    rows = {tuple(box): row for row, box in enumerate(found.boxes[0].tolist()) if found.valid[0, row]}
    first, second = rows[0.0, 0.0, 40.0, 40.0], rows[2.0, 2.0, 42.0, 42.0]
    assert len(rows) == found.valid.sum() == 2
    assert found.scores["plain"][0, [first, second]].tolist() == pytest.approx([0.8, 0.0])
    assert found.scores["certain"][0, [first, second]].tolist() == pytest.approx([0.0, 0.726965], abs=1e-6)
    assert found.confidence[0, :2].tolist() == pytest.approx([0.8, 0.726965], abs=1e-6)
    assert found.extra["uncertainty"][0, [first, second], 0].tolist() == [1.0, -2.0]


def test_unite__what_survives_by_all_is_one_row_with_all_scores():
    found = ranked([[0.0, 0.0, 40.0, 40.0], [60.0, 0.0, 90.0, 40.0]], [[0.8, 0.3], [0.6, 0.01]], [1.0, -2.0])
    valid = found.valid[0]
    assert found.labels[0][valid].tolist() == [0, 0, 1]  # a candidate is found once per class
    assert found.scores["plain"][0][valid].tolist() == pytest.approx([0.8, 0.6, 0.3])
    assert found.scores["certain"][0][valid].tolist() == pytest.approx([0.463846, 0.726965, 0.284046], abs=1e-6)
    assert found.candidate[0][valid].tolist() == [0, 1, 0]
    assert not found.confidence[0][~valid].any()


def test_unite__nothing_found_is_nothing():
    assert ranked([], [], []).boxes.shape == (1, 0, 4)
    assert not ranked([[0.0, 0.0, 9.0, 9.0]], [[0.01, 0.01]], [0.0]).valid.any()

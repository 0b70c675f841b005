from dataclasses import replace

import pytest
import torch

from ssodkit.assigners.selectors.base import SelectionContext
from ssodkit.assigners.selectors.gmm import GmmSelectorConfig, is_expected, push, scores_by_class
from ssodkit.plugins import BuildContext
from ssodkit.schedules.constant import ConstantConfig
from ssodkit.structures.predictions import Detections
from ssodkit.structures.progress import Progress
from ssodkit.structures.teaching import Targets

UNUSED_DETECTOR = ConstantConfig(value=0.0)
NOW = Progress(3, 10)
EVERYTHING = 1e6
"""An expected factor with which every detection is expected."""


def build(num_classes=2, images=4, **fields):
    context = BuildContext(num_classes=num_classes, detector=UNUSED_DETECTOR, unlabeled_images=images)
    return GmmSelectorConfig.model_validate({"type": "gmm", **fields}).build(context)


def detections(*images, label=0):
    """Per image its confidences, or pairs of confidence and label; padded."""
    length = max(map(len, images))
    found = Detections.empty(len(images), length=length)
    for image, row in enumerate(images):
        for place, item in enumerate(row):
            score, of = item if isinstance(item, tuple) else (item, label)
            found.confidence[image, place] = score
            found.labels[image, place] = of
            found.boxes[image, place] = torch.tensor([place, 0.0, place + 1.0, 1.0])
            found.valid[image, place] = True
    return found


def select(selector, found):
    return selector(found, SelectionContext(NOW, Targets.empty(1)))


def update(selector, found, ok=True):
    selection = select(selector, found)
    selector.after_update(NOW, torch.tensor(ok))
    return selection


def kept(selection):
    return [row[row > 0].tolist() for row in selection.supervision.classes.weight * selection.passed["mixture"]]


@pytest.mark.parametrize(
    ("scores", "count"),
    [([0.9, 0.8, 0.3, 0.2, 0.1], 3), ([0.06], 1), ([0.95, 0.9, 0.85], 3), ([0.2, 0.1, 0.06], 1)],
)
def test_is_expected__keeps_as_many_as_the_scores_let_expect_and_one_more(scores, count):
    confidence = torch.tensor([scores])
    expected = is_expected(confidence, torch.ones_like(confidence, dtype=torch.bool), 1.0)
    assert expected.tolist() == [[place < count for place in range(len(scores))]]


def test_is_expected__ties_with_the_last_one_pass():
    confidence = torch.tensor([[0.9, 0.300001, 0.3, 0.299995, 0.2]])  # n = 2: the limit is 0.29999
    assert is_expected(confidence, confidence > 0, 1.0).tolist() == [[True, True, True, True, False]]


def test_is_expected__counts_listed_detections_of_the_image_alone():
    confidence = torch.tensor([[0.9, 0.8, 0.3, 0.2, 0.1, 0.99], [0.2, 0.1, 0.06, 0.9, 0.9, 0.9], [0.9] * 6])
    listed = torch.tensor([[True] * 5 + [False], [True] * 3 + [False] * 3, [False] * 6])
    assert is_expected(confidence, listed, 1.0).sum(dim=1).tolist() == [3, 1, 0]


def test_is_expected__the_factor_multiplies_the_sum():
    confidence = torch.tensor([[0.9, 0.8, 0.3, 0.2, 0.1]])  # their sum is 2.3
    counts = [is_expected(confidence, confidence > 0, factor).sum().item() for factor in (0.1, 0.5, 1.0, 1.6, 9.0)]
    assert counts == [1, 2, 3, 5, 5]


def test_is_expected__the_order_of_detections_does_not_matter():
    confidence = torch.tensor([[0.1, 0.9, 0.2, 0.8, 0.3]])
    assert is_expected(confidence, confidence > 0, 1.0).tolist() == [[False, True, False, True, True]]


def test_push__newest_first_in_image_order():
    found = detections([(0.9, 0), (0.8, 1), (0.3, 0)], [(0.7, 0)])
    scores = scores_by_class(found.confidence, found.labels, found.valid, 2)
    queue = push(scores, torch.tensor([[0.5, 0.4, 0.0, 0.0, 0.0, 0.0], [0.6, 0.0, 0.0, 0.0, 0.0, 0.0]]))
    torch.testing.assert_close(queue, torch.tensor([[0.9, 0.3, 0.7, 0.5, 0.4, 0.0], [0.8, 0.6, 0.0, 0.0, 0.0, 0.0]]))


def test_push__the_oldest_fall_off_its_end():
    queue = push(torch.tensor([[0.9, 0.0, 0.8]]), torch.tensor([[0.5, 0.4, 0.3]]))
    torch.testing.assert_close(queue, torch.tensor([[0.9, 0.8, 0.5]]))


@pytest.mark.parametrize(
    ("scores", "passing"),
    [
        ([0.9, 0.85, 0.81, 0.78, 0.74, 0.70, 0.62, 0.55, 0.18, 0.15, 0.12, 0.10, 0.09, 0.08, 0.07, 0.06], 7),
        ([0.95, 0.05, 0.05, 0.05, 0.05], 0),  # the box that defines the threshold is dropped by it
        ([0.5] * 5, 5),
        ([0.9, 0.2, 0.1], 3),
        ([0.9, 0.88, 0.12, 0.1], 1),
    ],
)
def test_gmm__the_threshold_sees_the_steps_own_scores_and_is_strict(scores, passing):
    selection = select(build(expected_factor=EVERYTHING), detections(scores))
    assert selection.passed["mixture"].sum() == passing
    assert kept(selection) == [[1.0] * passing]


def test_gmm__a_queue_with_one_value_lets_it_pass():
    selector = build()
    for score in (0.3, 0.3, 0.3, 0.3, 0.3):  # one value alone, and then one value several times
        selection = update(selector, detections([score]))
        assert selection.passed["mixture"].tolist() == [[True]]
        assert selection.numbers["threshold"].tolist() == [[0.0]]
        assert not selection.numbers["failed_fit"].any()


def test_gmm__a_class_that_was_never_seen_has_an_empty_queue_and_the_default_threshold():
    selector = build(num_classes=3, default_threshold=0.25)
    for _ in range(3):
        update(selector, detections([0.9, 0.8, 0.2, 0.1], label=1))
    assert selector.queue.any(dim=1).tolist() == [False, True, False]
    first = select(selector, detections([(0.3, 2), (0.2, 0)]))
    assert first.numbers["threshold"].tolist() == [[0.25, 0.25]]
    assert first.passed["mixture"].tolist() == [[True, False]]


def test_gmm__policies():
    scores = [0.9, 0.8, 0.77, 0.76, 0.75, 0.74, 0.72, 0.7, 0.5, 0.3]
    passing = {}
    for policy in ("high", "middle"):
        selection = select(build(policy=policy, expected_factor=EVERYTHING), detections(scores))
        passing[policy] = selection.passed["mixture"].sum().item()
    assert passing == {"high": 4, "middle": 7}


def test_gmm__only_expected_detections_enter_the_queue():
    selector = build()
    selection = update(selector, detections([0.9, 0.8, 0.3, 0.2, 0.1], [0.2, 0.1]))
    assert selection.passed["expected_count"].tolist() == [[True] * 3 + [False] * 2, [True] + [False] * 4]
    torch.testing.assert_close(selector.queue[0, :5], torch.tensor([0.9, 0.8, 0.3, 0.2, 0.0]))


def test_gmm__each_class_has_its_own_threshold():
    selector = build(expected_factor=EVERYTHING)
    low, high = [0.12, 0.10, 0.08, 0.06], [0.9, 0.88, 0.12, 0.1]
    found = detections([*((score, 0) for score in low), *((score, 1) for score in high)])
    selection = select(selector, found)
    thresholds = selection.numbers["threshold"][0]
    assert thresholds[:4].tolist() == [thresholds[0].item()] * 4
    assert thresholds[4:].tolist() == pytest.approx([0.88] * 4)
    assert selection.passed["mixture"].tolist() == [(found.confidence > thresholds).tolist()[0]]


def test_gmm__the_queue_has_25_places_per_unlabeled_image_of_a_step():
    assert build(images=4).queue.shape == (2, 100)
    assert build(images=32, queue_per_image=10).queue.shape == (2, 320)


def test_gmm__a_class_that_is_absent_keeps_its_queue():
    selector = build()
    update(selector, detections([0.9, 0.8], label=1))
    before = selector.queue[1].clone()
    update(selector, detections([0.7, 0.6], label=0))
    assert torch.equal(selector.queue[1], before)
    torch.testing.assert_close(selector.queue[0, :3], torch.tensor([0.7, 0.6, 0.0]))


def test_gmm__a_step_that_was_not_finite_leaves_no_score_behind():
    selector = build()
    update(selector, detections([0.9, 0.8]))
    before = selector.queue.clone()
    update(selector, detections([0.5, 0.4]), ok=False)
    assert torch.equal(selector.queue, before)
    update(selector, detections([0.3]))
    torch.testing.assert_close(selector.queue[0, :4], torch.tensor([0.3, 0.9, 0.8, 0.0]))


def test_gmm__micro_batches_of_a_step_fill_the_queue_together():
    selector, whole = build(), build()
    for part in ([0.9, 0.8], [0.7]):
        select(selector, detections(part))
    selector.after_update(NOW, torch.tensor(True))
    torch.testing.assert_close(selector.queue[0, :4], torch.tensor([0.7, 0.9, 0.8, 0.0]))
    update(whole, detections([0.9, 0.8], [0.7]))
    assert torch.equal(selector.queue.sort().values, whole.queue.sort().values)


def test_gmm__a_full_queue_forgets_what_an_old_teacher_said():
    selector = build(images=1, queue_per_image=4)
    for _ in range(3):
        update(selector, detections([0.3, 0.2]))
    update(selector, detections([0.9, 0.8, 0.7], [0.6, 0.5]))
    torch.testing.assert_close(selector.queue[0], torch.tensor([0.9, 0.8, 0.7, 0.6]))


def test_gmm__one_set_teaches_everything_and_says_where_each_threshold_lay():
    selection = select(build(), detections([0.9, 0.8]))
    sets = selection.supervision
    assert sets.objectness is sets.classes is sets.boxes
    assert list(selection.passed) == ["at_most", "expected_count", "mixture"]
    assert set(selection.numbers) == {"threshold", "failed_fit"}
    assert not selection.numbers["failed_fit"].any()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_gmm__an_image_with_a_score_that_is_not_finite_is_neither_taught_nor_remembered(bad):
    selector = build()
    found = detections([0.9, 0.8], [0.7, 0.6])
    found.confidence[0, 0] = bad
    selection = update(selector, found)
    assert selection.passed["expected_count"].tolist() == [[False, False], [True, True]]
    torch.testing.assert_close(selector.queue[0, :3], torch.tensor([0.7, 0.6, 0.0]))


def test_gmm__a_fit_that_fails_has_the_default_and_is_counted():
    selector = build(expected_factor=EVERYTHING)
    update(selector, detections([(0.88, 0), (0.12, 0), (0.1, 0), (0.88, 1), (0.12, 1), (0.1, 1)]))
    selector.queue[0, 0] = torch.inf
    selection = select(selector, detections([(0.9, 0), (0.9, 1)]))
    assert selection.numbers["failed_fit"].tolist() == [[1.0, 0.0]]
    assert selection.numbers["threshold"][0].tolist() == pytest.approx([0.0, 0.88])


def test_gmm__a_box_without_area_is_neither_taught_nor_remembered():
    selector = build()
    found = detections([0.9, 0.8])
    boxes = found.boxes.clone()
    boxes[0, 0, 2] = boxes[0, 0, 0]
    update(selector, replace(found, boxes=boxes))
    torch.testing.assert_close(selector.queue[0, :2], torch.tensor([0.8, 0.0]))


def test_gmm__what_fails_its_threshold_is_ignored_from_a_confidence_on():
    found = detections([0.9, 0.88, 0.3, 0.12, 0.1])
    (weights, valid) = [], []
    for fields in ({}, {"ignore_from": 0.2}, {"ignore_from": 0.0}):
        targets = select(build(expected_factor=EVERYTHING, **fields), found).supervision.classes
        weights.append(targets.weight[0].tolist())
        valid.append(targets.valid[0].tolist())
    assert weights == [weights[0]] * 3
    assert 1 <= sum(weights[0]) < 5
    assert weights[0][2:] == [0.0] * 3
    assert [sum(row[2:]) for row in valid] == [0, 1, 3]

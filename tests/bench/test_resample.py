import numpy as np
import pytest

from ssodkit.bench.resample import _average, difference_interval
from ssodkit.data.annotations import Category, make_image_set
from ssodkit.engine.metrics import DetectionTable, coco_evaluation, coco_scores

IMAGES = 6


@pytest.fixture(scope="module")
def truth():
    """Three boxes of two classes in each of six images."""
    random = np.random.RandomState(0)
    corner = random.uniform(0, 60, (3 * IMAGES, 2))
    return make_image_set(
        root=".",
        names=[f"{place}.png" for place in range(IMAGES)],
        ids=10 + np.arange(IMAGES),
        sizes=[(100, 100)] * IMAGES,
        categories=[Category(1, "a"), Category(2, "b")],
        image_of_box=np.repeat(np.arange(IMAGES), 3),
        boxes=np.concatenate([corner, corner + random.uniform(15, 40, (3 * IMAGES, 2))], axis=1),
        labels=random.randint(0, 2, 3 * IMAGES),
    )


def detections(truth, shift, seed):
    """Each true box, moved by about `shift` pixels, with some score."""
    random = np.random.RandomState(seed)
    boxes = truth.boxes + random.normal(0, shift, truth.boxes.shape).astype(np.float32)
    scores = random.uniform(0.2, 1.0, len(boxes)).astype(np.float32)
    return DetectionTable(np.repeat(truth.ids, 3), boxes, truth.labels.astype(np.int64), scores)


def test_average__of_all_images_is_cocos(truth):
    found = detections(truth, 3.0, 1)
    average = _average(coco_evaluation(found, truth), np.arange(IMAGES))
    assert average == pytest.approx(coco_scores(found, truth)[0]["AP"], abs=1e-12)


def test_average__of_some_images_is_cocos_of_these(truth):
    found = detections(truth, 3.0, 1)
    some = truth.subset([4, 1, 3])
    rows = np.isin(found.image_ids, some.ids)
    part = DetectionTable(found.image_ids[rows], found.boxes[rows], found.labels[rows], found.scores[rows])
    average = _average(coco_evaluation(found, truth), np.array([4, 1, 3]))
    assert average == pytest.approx(coco_scores(part, some)[0]["AP"], abs=1e-12)


def test_average__an_image_that_was_drawn_twice_counts_twice(truth):
    found = detections(truth, 3.0, 1)
    evaluation = coco_evaluation(found, truth)
    twice = _average(evaluation, np.repeat(np.arange(IMAGES), 2))
    assert twice == pytest.approx(_average(evaluation, np.arange(IMAGES)), abs=0.03)


def test_difference_interval__lies_around_the_difference(truth):
    good, bad = detections(truth, 1.0, 1), detections(truth, 6.0, 2)
    low, high = difference_interval(good, bad, truth, draws=40)
    difference = coco_scores(good, truth)[0]["AP"] - coco_scores(bad, truth)[0]["AP"]
    assert 0 < low < difference < high
    assert difference_interval(good, good, truth, draws=5) == (0.0, 0.0)


def test_difference_interval__of_images_without_boxes_says_nothing(truth):
    empty = truth.with_boxes(np.zeros(len(truth.boxes), dtype=bool))
    found = detections(truth, 1.0, 1)
    assert difference_interval(found, found, empty, draws=3) is None
    assert difference_interval(found, found, truth.subset([]), draws=3) is None

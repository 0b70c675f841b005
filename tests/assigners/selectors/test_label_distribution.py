import pytest
import torch
from pydantic import ValidationError

from ssodkit.assigners.selectors.base import SelectionContext
from ssodkit.assigners.selectors.label_distribution import LabelDistributionSelectorConfig
from ssodkit.plugins import BuildContext
from ssodkit.schedules.constant import ConstantConfig
from ssodkit.structures.predictions import Detections
from ssodkit.structures.progress import Progress
from ssodkit.structures.teaching import Targets

UNUSED_DETECTOR = ConstantConfig(value=0.0)
NOW = Progress(3, 10)


def build(per_image=(1.0, 2.0), **fields):
    context = BuildContext(
        num_classes=len(per_image), detector=UNUSED_DETECTOR, unlabeled_images=2, labeled_boxes_per_image=per_image
    )
    return LabelDistributionSelectorConfig.model_validate({"type": "label_distribution", **fields}).build(context)


def detections(*images):
    """Per image its confidences by class."""
    length = max(sum(map(len, classes)) for classes in images)
    found = Detections.empty(len(images), length=length)
    for image, classes in enumerate(images):
        rows = [(label, score) for label, scores in enumerate(classes) for score in scores]
        for place, (label, score) in enumerate(rows):
            found.confidence[image, place] = score
            found.labels[image, place] = label
            found.boxes[image, place] = torch.tensor([place, 0.0, place + 1.0, 1.0])
            found.valid[image, place] = True
    return found


def select(selector, found):
    return selector(found, SelectionContext(NOW, Targets.empty(1)))


def kept(found, mask):
    return sorted(round(score, 3) for score in found.confidence[mask].tolist())


def test_label_distribution__teaches_as_many_boxes_of_each_class_as_the_labels_have():
    """Two images, 1 and 2 labeled boxes per image: 2 boxes of class 0 and 4 of class 1 reach places 1 and 3."""
    found = detections([[0.9, 0.5], [0.8, 0.7, 0.3]], [[0.6, 0.2], [0.4, 0.35]])
    selection = select(build(reliable=0.99, uncertain=0.99), found)
    assert kept(found, selection.passed["reliable"]) == [0.35, 0.4, 0.6, 0.7, 0.8, 0.9]


def test_label_distribution__the_unsure_are_ignored_and_the_rest_is_background():
    found = detections([[0.9, 0.8, 0.7, 0.6, 0.5], []], [[], []])
    selection = select(build(reliable=0.5, uncertain=1.5), found)  # places 1 and 3 of class 0
    targets = selection.supervision.classes
    assert kept(found, targets.weight > 0) == [0.8, 0.9]
    assert kept(found, targets.valid & (targets.weight == 0)) == [0.6, 0.7]


def test_label_distribution__follows_what_it_saw_and_forgets_it():
    selector = build(per_image=(1.0,), reliable=0.5, uncertain=0.5, window=4)
    strong, weak = detections([[0.9, 0.8]], [[0.9, 0.8]]), detections([[0.4, 0.3]], [[0.4, 0.3]])
    for _ in range(20):
        select(selector, strong)
        selector.after_update(NOW, torch.tensor(True))
    assert kept(weak, select(selector, weak).passed["reliable"]) == []
    selector.after_update(NOW, torch.tensor(False))  # not finite: nothing was learned
    assert kept(weak, select(selector, weak).passed["reliable"]) == []
    for _ in range(20):
        select(selector, weak)
        selector.after_update(NOW, torch.tensor(True))
    assert kept(weak, select(selector, weak).passed["reliable"]) == pytest.approx([0.4, 0.4])


def test_label_distribution__nothing_below_the_floor_teaches_or_is_ignored():
    found = detections([[0.04, 0.06]])
    selection = select(build(per_image=(5.0,), reliable=1.0, uncertain=2.0, floor=0.05), found)
    assert kept(found, selection.supervision.classes.valid) == [0.06]
    assert selection.numbers["threshold"].tolist() == [[pytest.approx(0.05)] * 2]


def test_label_distribution__boxes_of_an_unsure_teacher_are_ignored_whatever_their_rank():
    found = detections([[0.6, 0.3, 0.2]])
    targets = select(build(per_image=(2.0,), reliable=1.0, uncertain=1.0, least=0.5), found).supervision.classes
    assert kept(found, targets.weight > 0) == [0.6]
    assert kept(found, targets.valid & (targets.weight == 0)) == [0.2, 0.3]


def test_label_distribution__micro_batches_of_a_step_count_once_each():
    whole, parts = build(window=100), build(window=100)
    first, second = detections([[0.9], [0.8, 0.7]]), detections([[0.5], [0.6, 0.2]])
    select(whole, detections([[0.9], [0.8, 0.7]], [[0.5], [0.6, 0.2]]))
    select(parts, first)
    select(parts, second)
    for selector in (whole, parts):
        selector.after_update(NOW, torch.tensor(True))
    assert torch.equal(whole.histogram, parts.histogram)
    assert whole.images == parts.images == 2


def test_label_distribution__ignoring_less_than_what_teaches_is_refused():
    with pytest.raises(ValidationError, match="`uncertain` is below `reliable`"):
        build(reliable=0.8, uncertain=0.5)


def test_label_distribution__boxes_that_looks_place_differently_teach_their_class_alone():
    found = detections([[0.9, 0.8, 0.7], []])
    found = found.with_score("agreement", torch.tensor([[0.95, 0.5, 0.99]]))
    selector = build(reliable=2.0, uncertain=3.0, places={"score": "agreement", "above": 0.9})
    selection = select(selector, found)
    taught = selection.supervision
    assert taught.classes is taught.objectness
    assert kept(found, taught.classes.weight > 0) == [0.7, 0.8, 0.9]
    assert kept(found, taught.boxes.weight > 0) == kept(found, selection.passed["boxes"]) == [0.7, 0.9]
    assert torch.equal(taught.boxes.valid, taught.classes.valid)
    assert selector.config.reads == {"confidence", "agreement"}

from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError

from ssodkit.assigners.selectors.base import SelectionContext, SetRule
from ssodkit.assigners.selectors.soft_teacher import SoftTeacherSelectorConfig
from ssodkit.plugins import BuildContext
from ssodkit.schedules.constant import ConstantConfig
from ssodkit.structures.predictions import Detections
from ssodkit.structures.progress import Progress
from ssodkit.structures.teaching import Targets

UNUSED_DETECTOR = ConstantConfig(value=0.0)  # selectors never see a detector


def select(found, **fields):
    context = BuildContext(num_classes=3, detector=UNUSED_DETECTOR)
    selector = SoftTeacherSelectorConfig(**fields).build(context)
    return selector(found, SelectionContext(Progress(3, 10), Targets.empty(1)))


def detections(confidence, jitter):
    count = len(confidence)
    left = torch.arange(count) * 20.0
    boxes = torch.stack([left, torch.zeros(count), left + 10.0, torch.full((count,), 10.0)], dim=-1)
    return Detections(
        boxes=boxes[None],
        labels=torch.arange(count)[None] % 3,
        valid=torch.ones(1, count, dtype=torch.bool),
        scores={"confidence": torch.tensor([confidence]), "box_jitter": torch.tensor([jitter])},
    )


def test_soft_teacher__a_box_of_0_7_never_teaches_a_class():
    supervision = select(detections([0.95, 0.7, 0.6], [0.5, 0.5, 0.5])).supervision
    assert supervision.classes.valid.tolist() == [[True, False, False]]
    assert supervision.objectness.valid.tolist() == [[True, False, False]]


def test_soft_teacher__a_steady_box_teaches_its_place_without_a_high_score():
    supervision = select(detections([0.95, 0.55], [0.03, 0.01])).supervision
    assert supervision.boxes.valid.tolist() == [[False, True]]
    assert supervision.classes.valid.tolist() == [[True, False]]


def test_soft_teacher__thresholds_are_strict():
    supervision = select(detections([0.9, 0.9001], [0.02, 0.0199])).supervision
    assert supervision.classes.valid.tolist() == [[False, True]]
    assert supervision.boxes.valid.tolist() == [[False, True]]


def test_soft_teacher__a_box_that_was_not_asked_about_teaches_no_place():
    assert not select(detections([0.95], [torch.nan])).supervision.boxes.valid.any()


def test_soft_teacher__equal_rules_share_one_set():
    supervision = select(detections([0.95], [0.01])).supervision
    assert supervision.objectness is supervision.classes
    assert supervision.boxes is not supervision.classes


def test_soft_teacher__a_different_rule_makes_another_set():
    supervision = select(detections([0.8], [0.01]), objectness={"score": "confidence", "above": 0.7}).supervision
    assert supervision.objectness.valid.tolist() == [[True]]
    assert supervision.classes.valid.tolist() == [[False]]


def test_soft_teacher__what_reaches_ignore_from_stays_with_weight_0():
    rule = {"score": "confidence", "above": 0.9, "ignore_from": 0.5}
    classes = select(detections([0.95, 0.9, 0.5, 0.4], [1.0] * 4), classes=rule).supervision.classes
    assert classes.valid.tolist() == [[True, True, True, False]]
    assert classes.weight.tolist() == [[1.0, 0.0, 0.0, 0.0]]


def test_soft_teacher__ignore_from_works_for_low_scores_too():
    rule = {"score": "box_jitter", "below": 0.02, "ignore_from": 0.05}
    boxes = select(detections([0.9] * 4, [0.01, 0.02, 0.05, 0.06]), boxes=rule).supervision.boxes
    assert boxes.valid.tolist() == [[True, True, True, False]]
    assert boxes.weight.tolist() == [[1.0, 0.0, 0.0, 0.0]]


def test_soft_teacher__a_box_without_area_teaches_nothing():
    found = detections([0.95, 0.95, 0.95], [0.0, 0.0, 0.0])
    found.boxes[0, 0, 2] = found.boxes[0, 0, 0]
    found.boxes[0, 1, 3] = -1.0
    supervision = select(found).supervision
    assert supervision.classes.valid.tolist() == [[False, False, True]]
    assert supervision.boxes.valid.tolist() == [[False, False, True]]


def test_soft_teacher__padding_teaches_nothing():
    found = replace(detections([0.95, 0.95], [0.0, 0.0]), valid=torch.tensor([[True, False]]))
    assert select(found).supervision.classes.valid.tolist() == [[True, False]]


def test_soft_teacher__passed_names_each_filter_and_counts_taught_boxes_only():
    rule = {"score": "confidence", "above": 0.9, "ignore_from": 0.5}
    passed = select(detections([0.95, 0.92, 0.6], [0.01, 0.03, 0.01]), classes=rule, at_most=2).passed
    assert {name: mask.tolist() for name, mask in passed.items()} == {
        "at_most": [[True, True, False]],
        "objectness": [[True, True, False]],
        "classes": [[True, True, False]],
        "boxes": [[True, False, False]],
    }


def test_soft_teacher__nothing_found_teaches_nothing():
    found = Detections.empty(2).with_score("box_jitter", torch.zeros(2, 0))
    supervision = select(found).supervision
    assert supervision.classes.valid.shape == (2, 0)
    assert supervision.progress == Progress(3, 10)


def test_soft_teacher__the_defaults_are_the_papers():
    config = SoftTeacherSelectorConfig()
    assert config.objectness == config.classes == SetRule(score="confidence", above=0.9)
    assert config.boxes == SetRule(score="box_jitter", below=0.02)
    assert config.reads == {"confidence", "box_jitter"}


@pytest.mark.parametrize(
    "rule",
    [
        {"score": "confidence"},
        {"score": "confidence", "above": 0.9, "below": 0.95},
        {"score": "confidence", "above": 0.9, "ignore_from": 0.95},
        {"score": "box_jitter", "below": 0.02, "ignore_from": 0.01},
    ],
)
def test_set_rule__one_side_and_an_ignore_band_on_its_far_side(rule):
    with pytest.raises(ValidationError):
        SetRule.model_validate(rule)

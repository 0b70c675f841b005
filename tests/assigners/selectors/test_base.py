"""The contract of all selectors: every registered one is tried by its being registered."""

import copy
from dataclasses import replace

import pytest
import torch

from ssodkit.assigners.selectors.base import SelectionContext, SelectorConfig
from ssodkit.plugins import BuildContext, load_plugins, members
from ssodkit.schedules.constant import ConstantConfig
from ssodkit.structures.predictions import Detections
from ssodkit.structures.progress import Progress
from ssodkit.structures.records import map_tensors
from ssodkit.structures.teaching import Targets

load_plugins()
SELECTORS = {
    name: config for name, config in members(SelectorConfig.slot).items() if config.__module__.startswith("ssodkit.")
}
FIELDS = {"fixed": {"above": 0.5}, "label_distribution": {"reliable": 1.0}}
"""What a selector cannot be built without, or teaches from a handful of detections with."""
UNUSED_DETECTOR = ConstantConfig(value=0.0)  # selectors never see a detector
NOW = Progress(3, 10)
OK = torch.tensor(True)
each_selector = pytest.mark.parametrize("name", SELECTORS)


def build(name, num_classes=3):
    context = BuildContext(num_classes=num_classes, detector=UNUSED_DETECTOR, unlabeled_images=2)
    return SELECTORS[name].model_validate({"type": name, **FIELDS.get(name, {})}).build(context)


def detections(images, count, num_classes=3, seed=0):
    """Best first, confidence between 0.05 and 1; every score that a selector may read."""
    generator = torch.Generator().manual_seed(seed)
    corner = 50.0 * torch.rand(images, count, 2, generator=generator)
    confidence = 0.05 + 0.95 * torch.rand(images, count, generator=generator).sort(dim=1, descending=True).values
    return Detections(
        boxes=torch.cat([corner, corner + 10.0], dim=2),
        labels=torch.randint(0, num_classes, (images, count), generator=generator),
        valid=torch.ones(images, count, dtype=torch.bool),
        scores={"confidence": confidence, "box_jitter": 0.04 * torch.rand(images, count, generator=generator)},
    )


def select(selector, found):
    """A selection, checked against what holds for every selector and every detection."""
    selection = selector(found, SelectionContext(NOW, Targets.empty(1)))
    supervision = selection.supervision
    assert supervision.progress == NOW
    for targets in (supervision.objectness, supervision.classes, supervision.boxes):
        assert torch.equal(targets.boxes, found.boxes)
        assert torch.equal(targets.labels, found.labels)
        assert not (targets.valid & ~found.valid).any()
        assert not targets.weight[~targets.valid].any()
    assert "at_most" in selection.passed
    for mask in selection.passed.values():
        assert mask.shape == found.valid.shape
        assert not (mask & ~found.valid).any()
    for number in selection.numbers.values():
        assert number.shape == found.valid.shape
        assert number.isfinite().all()
    sets = selection.supervision
    for targets in (sets.objectness, sets.classes, sets.boxes):
        assert not (targets.all_teach and (targets.valid & ((targets.weight <= 0.0) | targets.crowd)).any())
    return selection


def taught(selection):
    sets = selection.supervision
    return [targets.weight.tolist() for targets in (sets.objectness, sets.classes, sets.boxes)]


def test_selectors__are_found():
    assert {"fixed", "gmm", "label_distribution", "soft_teacher"} <= set(SELECTORS)


@each_selector
@pytest.mark.parametrize(("images", "count"), [(2, 0), (0, 5), (0, 0)])
def test_selector__nothing_found_teaches_nothing(name, images, count):
    selector = build(name)
    select(selector, detections(images, count))
    selector.after_update(NOW, OK)
    select(selector, detections(2, 8))


@each_selector
def test_selector__padding_teaches_nothing(name):
    selector = build(name)
    found = detections(2, 6)
    selection = select(selector, replace(found, valid=torch.zeros_like(found.valid)))
    assert not any(torch.tensor(weight).any() for weight in taught(selection))
    selector.after_update(NOW, OK)


@each_selector
def test_selector__more_padding_changes_nothing(name):
    found = detections(2, 6)
    longer = map_tensors(found, lambda tensor: torch.cat([tensor, tensor.flip(1)], dim=1))
    longer.valid[:, 6:] = False
    weights = taught(select(build(name), longer))
    assert [[row[:6] for row in each] for each in weights] == taught(select(build(name), found))


@each_selector
def test_selector__of_one_class(name):
    selector = build(name, num_classes=1)
    for seed in range(3):
        weights = taught(select(selector, detections(2, 6, num_classes=1, seed=seed)))
        selector.after_update(NOW, OK)
    assert torch.tensor(weights).any()


@each_selector
def test_selector__a_class_that_never_gets_a_pseudo_label_holds_nobody_up(name):
    selector = build(name)
    for seed in range(4):
        found = detections(2, 12, num_classes=2, seed=seed)
        classes = select(selector, found).supervision.classes
        selector.after_update(NOW, OK)
    assert classes.valid.any()
    assert not (classes.valid & (classes.labels == 2)).any()


@each_selector
def test_selector__one_detection_in_all(name):
    selector = build(name)
    for seed in range(2):
        select(selector, detections(1, 1, seed=seed))
        selector.after_update(NOW, OK)


@each_selector
def test_selector__a_box_without_area_teaches_nothing(name):
    found = detections(1, 4)
    found.boxes[0, 0, 2] = found.boxes[0, 0, 0]
    found.boxes[0, 1, 3] = -1.0
    for weight in taught(select(build(name), found)):
        assert weight[0][:2] == [0.0, 0.0]


@each_selector
def test_selector__keeps_state_after_finite_updates_alone_and_survives_a_restart(name):
    selector, restarted = build(name), build(name)
    for seed in range(3):
        before = copy.deepcopy(selector.state_dict())
        select(selector, detections(2, 8, seed=seed))
        assert all(torch.equal(before[key], value) for key, value in selector.state_dict().items())
        selector.after_update(NOW, torch.tensor(seed != 1))
        changes = any(not torch.equal(before[key], value) for key, value in selector.state_dict().items())
        assert changes == (seed != 1 and selector.config.learns)
    restarted.load_state_dict(selector.state_dict())
    found = detections(2, 8, seed=5)
    assert taught(select(restarted, found)) == taught(select(selector, found))


@each_selector
def test_selector__never_asks_the_host(name):
    """What has no values cannot be read."""
    selector = build(name).to("meta")
    found = map_tensors(detections(2, 8), lambda tensor: tensor.to("meta"))
    selector(found, SelectionContext(NOW, Targets.empty(1, "meta")))
    selector.after_update(NOW, torch.tensor(True, device="meta"))

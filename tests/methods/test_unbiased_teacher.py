"""Unbiased Teacher's order at the end of its burn-in, and what its losses count, with the shipped method preset."""

from pathlib import Path

import pytest
import torch

from ssodkit.methods.pseudo_label import PseudoLabel, PseudoLabelConfig
from ssodkit.recipe.merge import read_tree
from ssodkit.structures.geometry import SemiBatch, Stream
from ssodkit.structures.progress import Progress

PRESET = Path(__file__).parents[2] / "recipes" / "bases" / "methods" / "unbiased_teacher.yaml"
BURN_IN, KEEP, STEPS = 2, 0.75, 10
OK = torch.tensor(True)


@pytest.fixture
def make_method(tiny_context):
    """Fields of the method -> a tiny one with a burn-in of two steps, whose pseudo-labels are all detections."""

    def make(**fields) -> PseudoLabel:
        tree = read_tree(PRESET).plain["method"]
        tree["teacher"]["momentum"] = {"type": "step", "before": 0.0, "after": KEEP, "at": BURN_IN + 1}
        tree["unlabeled_weight"] = {"type": "step", "before": 0.0, "after": 4.0, "at": BURN_IN}
        tree["selector"]["above"] = 0.0
        return PseudoLabelConfig.model_validate({**tree, **fields}).build(tiny_context())

    return make


def weight_of(network) -> float:
    return network.roi.classify.bias[0].item()


def test_unbiased_teacher__copies_before_step_b_and_averages_before_each_later_one(make_method, semi_batch):
    method, seen = make_method(), []
    for step in range(5):
        torch.nn.init.constant_(method.student.roi.classify.bias, float(step))  # the student after `step` updates
        if step:
            method.after_update(Progress(step, STEPS), OK)
        learned = method.step(semi_batch, Progress(step, STEPS))
        teaches = learned.report is not None and any(name.startswith("unlabeled") for name in learned.losses)
        seen.append((teaches, weight_of(method.teacher.network)))
    assert [teaches for teaches, _ in seen] == [False, False, True, True, True]
    third = KEEP * 2.0 + (1.0 - KEEP) * 3.0
    assert [weight for _, weight in seen[2:]] == pytest.approx([2.0, third, KEEP * third + (1.0 - KEEP) * 4.0])


def test_unbiased_teacher__pseudo_boxes_teach_no_place_by_any_gradient(make_method, semi_batch):
    method = make_method()
    losses = method.step(semi_batch, Progress(BURN_IN, STEPS)).losses
    values = losses.values(losses.denominators())
    assert losses.terms["unlabeled/roi/box"].sum > 0.0  # there is something to learn
    boxes = values["unlabeled/rpn/box"] + values["unlabeled/roi/box"]
    gradients = torch.autograd.grad(boxes, list(method.student.parameters()), retain_graph=True, allow_unused=True)
    assert not any(one.any() for one in gradients if one is not None)
    classes = values["unlabeled/rpn/class"] + values["unlabeled/roi/class"]
    assert torch.autograd.grad(classes, method.student.rpn.objectness.weight)[0].any()


def test_unbiased_teacher__labeled_images_seen_twice_count_once(make_method, semi_batch):
    """Sums over both versions are divided by both: weak and strong together weigh as much as one alone."""
    method, progress = make_method(), Progress(0, STEPS)
    (view,), (targets,) = semi_batch.labeled.views.values(), semi_batch.labeled.targets.values()
    twice = Stream({"weak": view, "strong": view}, {"weak": targets, "strong": targets})
    one = method.step(semi_batch, progress).losses
    both = method.step(SemiBatch(twice, semi_batch.unlabeled), progress).losses
    single, double = one.values(one.denominators()), both.values(both.denominators())
    assert both.terms["labeled/rpn/class"].denominator == 2.0 * one.terms["labeled/rpn/class"].denominator
    for name, value in single.items():
        torch.testing.assert_close(double[name], value, msg=name)


def test_unbiased_teacher__an_unlabeled_image_without_a_pseudo_box_is_all_background(make_method, semi_batch):
    method = make_method(selector={"type": "fixed", "above": 1.0})
    losses = method.step(semi_batch, Progress(BURN_IN, STEPS)).losses
    values = losses.values(losses.denominators())
    assert losses.terms["unlabeled/roi/class"].denominator == 2 * 16  # all draws of both images
    assert values["unlabeled/roi/class"] > 0.0
    assert losses.terms["unlabeled/roi/box"].sum == 0.0

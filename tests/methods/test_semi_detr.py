"""Semi-DETR's numbers, worked out from its equations, and what the step does with them."""

from collections import Counter

import pytest
import torch
from lesson import answers_of
from tiny import make_semi_batch
from torchvision.ops import box_iou

from ssodkit.detectors.criteria.focal import FocalConfig
from ssodkit.detectors.normalizers.measured import QualityConfig as QualityNormalizer
from ssodkit.engine.build import build_method
from ssodkit.recipe.check import load_recipe
from ssodkit.structures.lessons import TargetLesson
from ssodkit.structures.progress import Progress
from ssodkit.structures.teaching import Assignment, Targets

SCORE = [[0.9, 0.05], [0.6, 0.1], [0.4, 0.2], [0.8, 0.02], [0.3, 0.7], [0.1, 0.5], [0.5, 0.9], [0.02, 0.03]]
TARGET = [0, 0, 0, -1, 1, 1, 1, -1]
SOFT = [0.665915, 0.9, 0.132826, 0.0, 0.561566, 0.85, 0.189271, 0.0]


def many() -> TargetLesson:
    """What the eight queries of the example learn, one to many."""
    targets = Targets.empty(1, length=2)
    targets.labels.copy_(torch.tensor([[0, 1]]))
    quality = torch.tensor([SOFT], dtype=torch.float64)
    assignment = Assignment.matched(torch.tensor([TARGET]), quality, torch.ones(1, 8, dtype=torch.bool))
    return TargetLesson(assignment, 2, targets)


def test_one_to_many__loses_as_much_as_the_example():
    lesson, answers = many(), answers_of(torch.tensor([SCORE], dtype=torch.float64).logit())
    positive, quality = lesson.assignment.positive, lesson.assignment.quality
    strength = torch.where(positive, quality, 1.0)
    of_class = FocalConfig(balance=None, focus=2.0)(answers, lesson, strength)
    assert of_class.sum().item() == pytest.approx(2.434470, abs=5e-6)
    l1 = torch.tensor([[0.10, 0.04, 0.12, 0.0, 0.20, 0.06, 0.25, 0.0]]).double()
    giou = torch.tensor([[0.78, 0.89, 0.66, 0.0, 0.52, 0.84, 0.40, 0.0]]).double()
    for weight, losses, weights, expected in (
        (2.0, of_class, torch.ones_like(quality), 1.475626),
        (5.0, l1, quality * positive, 0.498794),
        (2.0, 1.0 - giou, quality * positive, 0.490837),
    ):
        total, denominator = QualityNormalizer()(losses, weights, lesson, answers, 0)[""]
        assert denominator.item() == pytest.approx(3.299578, abs=5e-6)
        assert (weight * total / denominator).item() == pytest.approx(expected, abs=5e-6)


BEFORE, AFTER = Progress(4, 10), Progress(5, 10)


@pytest.fixture(scope="module")
def method():
    """Semi-DETR of the embedded data, smaller, whose new teacher finds enough."""
    small = "{heads: 2, points: 1, encoder_layers: 1, decoder_layers: 2, width: 16}"
    changes = (f"detector.transformer={small}", "detector.prior=0.2", "method.selector.above=0.1", "engine.steps=10")
    return build_method(load_recipe("semi_detr", [*changes, "method.unlabeled_weight=2.0"]), 3, load_weights=False)


@pytest.fixture(scope="module")
def steps(method):
    """The losses and the report of a step before the switch, and of one after it."""
    return {progress: method.step(make_semi_batch(), progress) for progress in (BEFORE, AFTER)}


def test_step__changes_at_the_switch_what_is_asked_and_what_denoising_learns(steps):
    for progress, asked in ((BEFORE, True), (AFTER, False)):
        terms = steps[progress].losses.terms
        assert ("consistency/queries/states" in terms) == asked
        assert terms["labeled/denoising.2/class"].factor == 2.0
        assert terms["unlabeled/denoising.2/class"].factor == (0.0 if asked else 4.0)
        assert terms["unlabeled/decoder.2/class"].factor == 4.0
        assert terms["unlabeled/decoder.2/l1"].factor == 10.0
    assert steps[BEFORE].losses.terms["consistency/queries/states"].factor == 20.0


def test_step__many_queries_learn_from_a_box_before_the_switch_and_one_after_it(steps):
    boxes = sum(len(image) for image in ([0, 1], [0]))
    many, one = (
        steps[progress].losses.terms["labeled/decoder.2/l1"].denominator.item() for progress in (BEFORE, AFTER)
    )
    assert one == boxes  # positives
    assert many != int(many)  # the sum of their soft targets


def test_step__every_weight_has_a_finite_gradient_in_both_halves(method, steps):
    for progress in (BEFORE, AFTER):
        losses = steps[progress].losses
        method.zero_grad()
        torch.stack(list(losses.values(losses.denominators()).values())).sum().backward()
        for name, weight in method.named_parameters():
            if weight.requires_grad:
                assert weight.grad is not None, name
                assert weight.grad.isfinite().all(), name
        projector = method.consistencies.parts["queries"].projector
        learns = [bool(weight.grad.abs().max() > 0.0) for weight in projector.parameters()]
        assert any(learns) == (progress == BEFORE)


def test_step__pseudo_boxes_are_suppressed_by_the_teachers_rule_in_both_halves(steps):
    for progress in (BEFORE, AFTER):
        found = steps[progress].report.found
        same = (found.labels[:, :, None] == found.labels[:, None]) & found.valid[:, :, None] & found.valid[:, None]
        for place in range(len(found.boxes)):
            others = same[place] & ~torch.eye(same.shape[1], dtype=torch.bool)
            assert others.any()
            assert (box_iou(found.boxes[place], found.boxes[place]) * others).max() <= 0.6 + 1e-6


@pytest.mark.parametrize(
    ("progress", "waits"),
    [
        (BEFORE, {"torchvision::nms": 1, "ssodkit::least_cost": 1}),  # the teacher's detections, and mining
        (AFTER, {"torchvision::nms": 1, "ssodkit::least_cost": 2}),  # these, and each stream is matched
    ],
)
def test_step__waits_for_the_host_no_more_than_dino_must_and_once(method, semi_batch, host_questions, progress, waits):
    method.step(semi_batch, progress)
    ok = torch.tensor(True)
    with host_questions() as asked:
        losses = method.step(semi_batch, progress).losses
        torch.stack(list(losses.values(losses.denominators()).values())).sum().backward()
        method.after_update(Progress(progress.step + 1, 10), ok)
    assert asked == waits


def test_step__encodes_every_image_once_in_each_network(method, semi_batch):
    ran = Counter()
    hooks = []
    for name, network in method.networks().items():
        for part in ("backbone", "encoder", "decoder"):
            module = getattr(network, part)
            hooks.append(module.register_forward_hook(lambda *_, key=f"{name}.{part}": ran.update([key])))
    method.step(semi_batch, BEFORE)
    for hook in hooks:
        hook.remove()
    # The labeled and the strong view go together; the second pass of a decoder is that of the further queries alone.
    expected = {"backbone": 1, "encoder": 1, "decoder": 2}
    assert ran == {f"{name}.{part}": count for name in ("student", "teacher") for part, count in expected.items()}


def test_step__the_projection_is_neither_averaged_nor_exported(method):
    assert not any("projector" in key for network in method.networks().values() for key in network.state_dict())
    assert any("projector" in key for key in method.state_dict())

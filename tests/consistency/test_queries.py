"""Which boxes are asked about, in both views, and what both networks make of the same queries."""

import json
from collections import Counter
from dataclasses import replace

import pytest
import torch
from tiny import TINY_FCOS, make_semi_batch, make_targets

from ssodkit.consistency.base import Scene
from ssodkit.consistency.queries import QueriesConfig, lay, low_center_of_all, middle, unit_distance
from ssodkit.data.sampler import labeled_per_group
from ssodkit.detectors.learning import predict_together
from ssodkit.engine.build import build_method
from ssodkit.errors import RecipeError
from ssodkit.recipe.check import load_recipe
from ssodkit.structures.geometry import carry
from ssodkit.structures.predictions import Detections
from ssodkit.structures.progress import Progress
from ssodkit.structures.teaching import Supervision, Targets
from ssodkit.teachers.ema import EmaTeacherConfig

START = Progress(0, 10)
SMALL = {"cells": 3, "width": 8, "finest_side": 20.0, "candidates": {"at_most": 30}}
BOXES = [
    [(4, 4, 28, 40, 0, 0.9), (30, 20, 56, 50, 2, 0.3), (10, 30, 40, 60, 1, 0.2)],
    [(10, 8, 34, 44, 1, 0.15)],
]


def detections(images) -> Detections:
    """Per image a list of (left, top, right, bottom, label, confidence)."""
    targets = make_targets([[row[:5] for row in rows] for rows in images])
    confidence = torch.zeros_like(targets.weight)
    for place, rows in enumerate(images):
        confidence[place, : len(rows)] = torch.tensor([row[5] for row in rows])
    return Detections(targets.boxes, targets.labels, targets.valid, {"confidence": confidence})


@pytest.fixture
def make_scene(tiny_context):
    """What the teacher found, above which confidence it teaches -> a scene, with networks that are equal at first."""

    def make(images=BOXES, above=0.4, batch=None, type="dino") -> Scene:
        context = tiny_context(type=type)
        student = context.detector.build(context)
        teacher = EmaTeacherConfig().build(student, context)
        batch = batch or make_semi_batch()
        weak, strong = batch.unlabeled.views["weak"], batch.unlabeled.views["strong"]
        found = detections(images)
        sure = Targets(
            found.boxes,
            found.labels,
            found.valid & (found.confidence > above),
            torch.ones_like(found.confidence),
            torch.zeros_like(found.valid),
        )
        selected = Supervision.uniform(sure, START)
        seen = replace(teacher.look(weak, START), found=found)
        view, truth = batch.labeled.joined()
        known = [Supervision.uniform(truth, START), carry(selected, weak, strong)]
        labeled, mine = predict_together(student, [view, strong], known)
        return Scene(student, batch, START, labeled, mine, None, teacher, seen, selected)

    return make


@pytest.fixture
def build(tiny_context):
    def make(**fields):
        return QueriesConfig.model_validate({**SMALL, **fields}).build(tiny_context(type="dino"))

    return make


def same_views():
    """The strong view is the weak one."""
    batch = make_semi_batch()
    weak = batch.unlabeled.views["weak"]
    return replace(batch, unlabeled=replace(batch.unlabeled, views={"weak": weak, "strong": weak}))


def value(losses) -> torch.Tensor:
    return losses.values(losses.denominators())["states"]


def test_unit_distance__of_the_example():
    states = torch.tensor([[3.0, 4.0, 0.0, 0.0]], dtype=torch.float64)
    goals = torch.tensor([[4.0, 3.0, 0.0, 0.0]], dtype=torch.float64)
    apart = unit_distance(states, goals)
    assert apart.item() == pytest.approx(0.02)
    assert [10 * apart.item(), 10 * 4 * apart.item()] == pytest.approx([0.2, 0.8])
    second = torch.cat([apart, unit_distance(goals, goals)]) * torch.tensor([1.0, 0.0])
    assert (second.sum() / len(second)).item() == pytest.approx(0.01)


def test_carry__of_the_example():
    views = make_semi_batch().unlabeled.views
    weak = replace(views["weak"], homography=torch.diag(torch.tensor([0.8, 0.8, 1.0])).repeat(2, 1, 1))
    mirrored = torch.tensor([[-1.2, 0.0, 600.0], [0.0, 1.2, 0.0], [0.0, 0.0, 1.0]])
    strong = replace(views["strong"], homography=mirrored.repeat(2, 1, 1), sizes=torch.full((2, 2), 600))
    moved = carry(detections([[(80, 40, 240, 160, 0, 0.9)], []]), weak, strong)
    torch.testing.assert_close(moved.boxes[0], torch.tensor([[240.0, 60.0, 480.0, 240.0]]))


def test_lay__an_image_without_a_box_is_asked_about_its_middle():
    views = make_semi_batch().unlabeled.views
    strong = replace(views["strong"], sizes=torch.tensor([[40, 64], [20, 32]]))
    weak_boxes, strong_boxes = torch.rand(2, 3, 4), torch.rand(2, 3, 4)
    asked = lay(weak_boxes, strong_boxes, torch.tensor([[True, False, True], [False] * 3]), views["weak"], strong)
    assert asked.valid.tolist() == [[True, False, True, False], [False, False, False, True]]
    assert asked.counts.tolist() == [[True, False, True, False], [False] * 4]
    assert asked.weak[1, 3].tolist() == [16.0, 16.0, 48.0, 48.0]
    assert asked.strong[1, 3].tolist() == middle(strong.sizes)[1, 0].tolist() == [8.0, 5.0, 24.0, 15.0]
    assert torch.equal(asked.weak[0, 2], weak_boxes[0, 2])
    assert torch.equal(asked.strong[0, 2], strong_boxes[0, 2])


def test_low_center_of_all__knows_only_finite_costs():
    costs = torch.tensor([[-4.6, -4.35, -4.1, -3.95, -3.8, -3.7, -3.55], [-3.3, -1.2, -0.7, -0.35, -0.1, 0.3, 0.85]])
    costs = torch.cat([costs, torch.full((2, 1), torch.inf)], dim=1)
    assert low_center_of_all(costs, 40).item() == pytest.approx(-3.95)
    assert low_center_of_all(costs, 1).item() == pytest.approx(-3.95)  # more than were expected are no fewer


def test_low_center_of_all__has_room_for_any_share_of_a_drawn_batch():
    changes = ["data.batch={labeled: 12, unlabeled: 4, composition: random, group: 8}", "detector.transformer.width=16"]
    recipe = load_recipe("semi_detr", changes)
    part = build_method(recipe, 3, load_weights=False).consistencies.parts["queries"]
    most = recipe.data.batch.group_slots - labeled_per_group(recipe.seed, recipe.data.batch, 0).min()
    assert most > recipe.data.batch.unlabeled  # of one process, where there are two
    assert part.largest >= most * part.config.at_most


@pytest.mark.parametrize(("mined", "expected"), [("none", [1, 0]), ("candidates", [3, 1]), ("costs", None)])
def test_mine__what_teaches_and_what_costs_little(make_scene, build, mined, expected):
    asked = build(mined=mined)._mine(make_scene())
    counts = asked.counts.sum(dim=1).tolist()
    if expected is None:
        assert 2 <= sum(counts) < 4  # the cheapest is always mined, and what teaches in any case
        assert asked.counts[0, 0]
    else:
        assert counts == expected
    assert torch.equal(asked.valid.sum(dim=1), asked.counts.sum(dim=1).clamp(min=1))


def test_mine__a_box_that_leaves_the_strong_view_is_left_out_of_both(make_scene, build):
    batch = make_semi_batch()
    shift = torch.tensor([[1.0, 0.0, -27.5], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])  # of the first half a pixel is left
    batch.unlabeled.views["strong"].homography.copy_(shift)
    asked = build(mined="candidates")._mine(make_scene(batch=batch))
    assert asked.counts.tolist() == [[True, True, False, False], [True, False, False, False]]
    torch.testing.assert_close(asked.weak[0, :2], torch.tensor([[30.0, 20, 56, 50], [10, 30, 40, 60]]))
    torch.testing.assert_close(asked.strong[0, :2], torch.tensor([[2.5, 20, 28.5, 50], [0.0, 30, 12.5, 60]]))


def test_mine__takes_the_most_confident_and_needs_none(make_scene, build):
    asked = build(mined="candidates", at_most=2)._mine(make_scene())
    assert asked.counts.tolist() == [[True, True, False], [True, False, False]]
    nothing = build()._mine(make_scene([[], []]))
    assert nothing.valid.tolist() == [[True], [True]]
    assert not nothing.counts.any()


@pytest.mark.parametrize("content", ["weak", "crossed"])
def test_queries__teach_the_student_and_the_projection(make_scene, build, content):
    scene, part = make_scene(), build(content=content)
    losses = part(scene)
    assert list(losses) == ["states"]
    assert losses.terms["states"].denominator == (part._mine(scene).valid.sum())
    value(losses).backward()
    student = scene.student
    for module in (student.backbone, student.neck, student.encoder, student.decoder.layers, part.projector):
        gradients = [weight.grad for weight in module.parameters()]
        assert any(gradient is not None and gradient.abs().max() > 0.0 for gradient in gradients)
    assert all(weight.grad is None for weight in scene.teacher.parameters())


@pytest.mark.parametrize("content", ["weak", "crossed"])
def test_queries__equal_networks_agree_about_equal_views(make_scene, build, content):
    losses = build(content=content)(make_scene(batch=same_views()))
    assert value(losses).item() == pytest.approx(0.0, abs=1e-9)
    assert value(build(content=content)(make_scene())).item() > 1e-4  # about a mirrored one they do not


def test_queries__copies_change_nothing(make_scene, build):
    scene = make_scene()
    once, often = (value(build(repeats=repeats)(scene)).item() for repeats in (1, 5))
    assert often == pytest.approx(once, rel=1e-5)


def test_queries__without_any_box_lose_nothing_and_keep_finite_gradients(make_scene, build):
    scene, part = make_scene([[], []]), build()
    losses = part(scene)
    assert value(losses).item() == 0.0
    assert losses.terms["states"].denominator.item() == 2.0  # a middle counts as a row
    value(losses).backward()
    assert all(weight.grad.isfinite().all() for weight in part.parameters())


def test_queries__ask_the_host_once_and_no_network_twice(make_scene, build, host_questions):
    scene, part, ran = make_scene(), build(), Counter()
    for name, network in (("student", scene.student), ("teacher", scene.teacher.network)):
        for module in ("backbone", "encoder", "decoder"):
            getattr(network, module).register_forward_hook(lambda *_, name=f"{name}.{module}": ran.update([name]))
    with host_questions() as asked:
        value(part(scene)).backward()
    assert asked == {"ssodkit::least_cost": 1}
    assert ran == {"student.decoder": 1, "teacher.decoder": 1}  # of the further queries alone


def test_queries__a_step_without_pseudo_boxes_has_no_such_loss(make_scene, build):
    scene = make_scene()
    assert not list(build()(replace(scene, unlabeled=None)))
    assert not list(build()(replace(scene, teacher=None)))


def test_recipe__what_has_no_queries_or_no_pseudo_boxes_is_refused():
    queries = "method.consistencies=[{type: queries}]"
    with pytest.raises(RecipeError, match="'queries' needs 'queries', which 'pseudo_label' on 'fcos' does not provide"):
        load_recipe("mean_teacher_fcos", [queries])
    with pytest.raises(RecipeError, match="'queries' needs 'pseudo_boxes', which 'supervised' on 'dino' does not"):
        load_recipe("supervised_dino", [queries])
    with pytest.raises(RecipeError, match="provided by: detector 'dino'"):
        load_recipe("semi_detr", [f"detector={json.dumps(TINY_FCOS)}"])
    both = "'pseudo_boxes' is provided by: method 'pseudo_label'; 'queries' is provided by: detector 'dino'"
    with pytest.raises(RecipeError, match=both):
        load_recipe("dense_teacher", [queries])

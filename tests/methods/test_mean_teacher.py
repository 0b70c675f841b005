"""Mean and Consistent-Teacher on RetinaNet where pseudo-boxes are missing: of a class, in a view, everywhere."""

from pathlib import Path

import pytest
import torch

from ssodkit.methods.pseudo_label import PseudoLabel, PseudoLabelConfig
from ssodkit.recipe.merge import read_tree
from ssodkit.structures.progress import Progress

PRESETS = Path(__file__).parents[2] / "recipes" / "bases" / "methods"
START = Progress(0, 10)
SQUARE = {"sides": [[20.0], [30.0], [44.0]], "ratios": [1.0]}
EVERY_BEST = {"type": "max_iou", "positive": 0.5, "negative": 0.4, "best_from": 0.0}
MATCHERS = {"max_iou": EVERY_BEST, "adaptive": {"type": "adaptive"}}


@pytest.fixture
def make_method(tiny_context):
    """Preset, matcher, fields of the method -> a tiny one on RetinaNet that finds something in noise."""

    def make(preset: str, matcher: str = "max_iou", **fields) -> PseudoLabel:
        tree = read_tree(PRESETS / f"{preset}.yaml").plain["method"]
        tree["teacher"]["score"] = 0.0
        tree["background_factor"] = None
        tree = {**tree, "unlabeled_weight": 2.0, **fields}
        dense = tiny_context(type="retinanet").detector.stages["dense"].model_dump(mode="json")
        stages = {"dense": {**dense, "matcher": MATCHERS[matcher]}}
        context = tiny_context(type="retinanet", anchors=SQUARE, stages=stages)
        return PseudoLabelConfig.model_validate(tree).build(context)

    return make


def assert_trains(method: PseudoLabel, losses) -> None:
    total = torch.stack(list(losses.values(losses.denominators()).values())).sum()
    assert total.isfinite()
    total.backward()
    assert all(one.grad is not None and one.grad.isfinite().all() for one in method.student.parameters())


@pytest.mark.parametrize("matcher", ["max_iou", "adaptive"])
@pytest.mark.parametrize("preset", ["mean_teacher", "consistent_teacher"])
def test_mean_teacher__pseudo_boxes_without_area_in_the_strong_view_make_no_positive(
    make_method, semi_batch, preset, matcher
):
    """All were found, and lie beyond the edge: clipped they have no width, and every anchor would be their best."""
    takes_all = {"type": "fixed", "above": 0.0} if preset == "mean_teacher" else {"type": "gmm", "min_samples": 99}
    method = make_method(preset, matcher, selector=takes_all)
    beside = method.step(semi_batch, START)
    assert beside.losses.terms["unlabeled/dense/box"].denominator > 0.0
    semi_batch.unlabeled.views["strong"].homography[:, 0, 2] += 500.0
    step = method.step(semi_batch, START)
    assert step.report.selection.supervision.classes.valid.any(dim=1).all()
    term = step.losses.terms["unlabeled/dense/box"]
    assert (term.sum.item(), term.denominator.item()) == (0.0, 0.0)
    assert_trains(method, step.losses)


@pytest.mark.parametrize("preset", ["mean_teacher", "consistent_teacher"])
def test_mean_teacher__a_class_that_never_gets_a_pseudo_label_trains_on(make_method, semi_batch, preset):
    selector = {"type": "fixed", "above": 0.001} if preset == "mean_teacher" else {"type": "gmm", "queue_per_image": 7}
    method = make_method(preset, "adaptive", selector=selector)
    for network in (method.student, method.teacher.network):
        torch.nn.init.constant_(network.head.towers.classify.bias[1:], -30.0)  # sees the first of three
    for number in range(3):
        step = method.step(semi_batch, Progress(number, 10))
        classes = step.report.selection.supervision.classes
        assert number or classes.valid.any()
        assert not classes.labels[classes.valid].any()
        assert_trains(method, step.losses)
        method.after_update(Progress(number + 1, 10), torch.tensor(True))
    if preset == "consistent_teacher":
        assert method.selector.queue.any(dim=1).tolist() == [True, False, False]


def test_mean_teacher__the_published_thresholds_leave_a_new_network_without_pseudo_boxes_and_it_trains_on(
    make_method, semi_batch
):
    method = make_method("mean_teacher")
    assert method.config.selector.above == 0.5
    step = method.step(semi_batch, START)
    assert not step.report.selection.supervision.classes.valid.any()
    assert_trains(method, step.losses)


def test_mean_teacher__images_without_an_anchor_inside_any_box_train_on(make_method, semi_batch, make_targets):
    method = make_method("consistent_teacher", "adaptive")
    semi_batch.labeled.targets["labeled"] = make_targets(
        [[(1, 1, 3, 3, 0)], [(33, 17, 35, 19, 1)]]
    )  # between the cells
    step = method.step(semi_batch, START)
    term = step.losses.terms["labeled/dense/box"]
    assert (term.sum.item(), term.denominator.item()) == (0.0, 0.0)
    assert step.losses.terms["labeled/dense/class"].sum > 0.0  # all is background
    assert_trains(method, step.losses)

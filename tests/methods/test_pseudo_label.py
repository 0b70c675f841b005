import copy
from dataclasses import replace

import pytest
import torch

from ssodkit.assigners.selectors.base import SelectionContext, SetRule
from ssodkit.assigners.selectors.soft_teacher import SoftTeacherSelector
from ssodkit.detectors.learning import assign, predict_together
from ssodkit.methods.pseudo_label import BackgroundFactor, PseudoLabelConfig, rare_factor
from ssodkit.structures.geometry import SemiBatch, carry
from ssodkit.structures.progress import Progress
from ssodkit.structures.records import map_tensors
from ssodkit.structures.teaching import Supervision, Targets

START = Progress(0, 10)
SOFT_TEACHER = {
    "type": "pseudo_label",
    "teacher": {"type": "ema"},
    "scorers": [{"type": "box_jitter", "asks": {"above": 0.2}}],
    "selector": {
        "type": "soft_teacher",
        "objectness": {"score": "confidence", "above": 0.25},
        "classes": {"score": "confidence", "above": 0.25},
        "boxes": {"score": "box_jitter", "below": 0.5},
    },
    "candidate_scorers": [{"type": "background_score"}],
    "unlabeled_weight": 4.0,
}
"""Thresholds that a random network of three classes, whose scores lie about 0.25, passes and fails."""


@pytest.fixture
def make_method(tiny_context):
    """Classes, fields of the build context, and of the method (replacing Soft Teacher's) -> a tiny method."""

    def make(num_classes=3, context=None, **fields):
        built = replace(tiny_context(num_classes), **(context or {}))
        return PseudoLabelConfig.model_validate({**SOFT_TEACHER, **fields}).build(built)

    return make


def values(losses):
    return {name: value.item() for name, value in losses.values(losses.denominators()).items()}


def total(losses):
    return torch.stack(list(losses.values(losses.denominators()).values())).sum()


def test_pseudo_label__has_the_terms_of_both_streams(make_method, semi_batch):
    losses = make_method().step(semi_batch, START).losses
    terms = ["rpn/class", "rpn/box", "roi/class", "roi/box"]
    assert list(losses) == [f"{stream}/{term}" for stream in ("labeled", "unlabeled") for term in terms]
    assert all(value > 0.0 for value in values(losses).values())


def test_pseudo_label__the_unlabeled_weight_multiplies_all_four_unlabeled_terms(make_method, semi_batch):
    once = make_method(unlabeled_weight=1.0).step(semi_batch, START).losses
    four = make_method(unlabeled_weight=4.0).step(semi_batch, START).losses
    for name, value in values(once).items():
        assert values(four)[name] == pytest.approx(value * (4.0 if name.startswith("unlabeled") else 1.0))


def test_pseudo_label__unlabeled_terms_have_factors_of_their_own(make_method, semi_batch):
    plain = values(make_method().step(semi_batch, START).losses)
    some = values(make_method(unlabeled_terms={"rpn/box": 0.0, "roi": 0.5}).step(semi_batch, START).losses)
    assert some["unlabeled/rpn/box"] == 0.0
    assert some["unlabeled/roi/class"] == pytest.approx(0.5 * plain["unlabeled/roi/class"])
    assert some["unlabeled/rpn/class"] == pytest.approx(plain["unlabeled/rpn/class"])
    assert some["labeled/rpn/box"] == pytest.approx(plain["labeled/rpn/box"])
    no_boxes = values(make_method(unlabeled_terms={"box": 0.0}).step(semi_batch, START).losses)
    assert no_boxes == {**plain, "unlabeled/rpn/box": 0.0, "unlabeled/roi/box": 0.0}


def test_pseudo_label__labeled_terms_may_change_in_the_run_whether_or_not_others_teach(make_method, semi_batch):
    weight = {"type": "step", "before": 1.0, "after": 0.25, "at": 5}
    unlabeled = {"type": "step", "before": 0.0, "after": 1.0, "at": 3}
    fields = {"labeled_terms": {"roi/class": {"weight": weight}}, "unlabeled_weight": unlabeled}
    method, plain = make_method(**fields), make_method(unlabeled_weight=unlabeled)
    for step, factor in ((0, 1.0), (4, 1.0), (5, 0.25)):
        changed, usual = (values(one.step(semi_batch, Progress(step, 10)).losses) for one in (method, plain))
        assert changed["labeled/roi/class"] == pytest.approx(factor * usual["labeled/roi/class"])
        assert {**changed, "labeled/roi/class": 0.0} == {**usual, "labeled/roi/class": 0.0}
    halved = make_method(labeled_terms={"rpn": 0.5}, while_unweighted="look", unlabeled_weight=0.0)
    assert values(halved.step(semi_batch, START).losses)["labeled/rpn/box"] == pytest.approx(
        0.5 * usual["labeled/rpn/box"]
    )


def test_pseudo_label__the_printed_class_loss_is_that_of_the_unlabeled_stream_alone(make_method, semi_batch):
    plain = values(make_method(unlabeled_weight=1.0).step(semi_batch, START).losses)
    method = make_method(unlabeled_weight=1.0, unlabeled_terms={"roi/class": {"normalizer": "two_means"}})
    asked = {}
    method.candidate_scorers[0].register_forward_hook(
        lambda scorer, given, plan: asked.update(logits=given[2].last.class_logits, learned=plan["roi"]["class"])
    )
    step = method.step(semi_batch, START)
    printed = values(step.losses)
    parts = [printed.pop(f"unlabeled/roi/class/{part}") for part in ("foreground", "background")]
    assert plain.pop("unlabeled/roi/class") != pytest.approx(sum(parts), rel=1e-3)
    assert printed == plain

    learned, labels = asked["learned"], step.report.selection.supervision.classes.labels
    foreground = learned.positive & (learned.weight > 0.0)
    background, reliability = learned.background & (learned.weight > 0.0), learned.weight
    target = torch.where(learned.positive, labels.gather(1, learned.index.clamp(min=0)), 3)
    losses = torch.nn.functional.cross_entropy(asked["logits"].transpose(1, 2), target, reduction="none")
    weights = reliability[background] / reliability[background].sum()  # w_j = r_j / sum_k r_k
    assert reliability[background].sum() > 1.0
    expected = [losses[foreground].mean().item(), (weights * losses[background]).sum().item()]
    assert parts == pytest.approx(expected, rel=1e-5)


def test_pseudo_label__no_gradient_reaches_the_teacher_or_what_it_says(make_method, semi_batch):
    method = make_method()
    step = method.step(semi_batch, START)
    total(step.losses).backward()
    assert all(parameter.grad is None for parameter in method.teacher.parameters())
    assert all(parameter.grad is not None for parameter in method.student.parameters())
    required = []
    map_tensors(step.report, lambda tensor: required.append(tensor.requires_grad) or tensor)
    assert required
    assert not any(required)


def test_pseudo_label__without_any_pseudo_box_trains_on(make_method, semi_batch):
    never = {"score": "confidence", "above": 1.0}
    method = make_method(selector={"type": "soft_teacher", "objectness": never, "classes": never, "boxes": never})
    losses = method.step(semi_batch, START).losses
    total(losses).backward()
    assert total(losses).isfinite()
    assert values(losses)["unlabeled/roi/box"] == 0.0
    assert values(losses)["unlabeled/roi/class"] > 0.0  # all is background


def test_pseudo_label__a_teacher_that_finds_nothing_trains_on(make_method, semi_batch):
    losses = make_method(teacher={"type": "ema", "score": 1.0}).step(semi_batch, START).losses
    total(losses).backward()
    assert total(losses).isfinite()


def test_pseudo_label__one_class_trains_on(make_method, semi_batch):
    targets = semi_batch.labeled.targets["labeled"]
    of_one_class = {"labeled": replace(targets, labels=torch.zeros_like(targets.labels))}
    batch = replace(semi_batch, labeled=replace(semi_batch.labeled, targets=of_one_class))
    losses = make_method(num_classes=1).step(batch, START).losses
    total(losses).backward()
    assert total(losses).isfinite()


def test_pseudo_label__views_are_paired_by_row(make_method, semi_batch):
    """Turned around, all unlabeled views teach the same; turned against each other, they do not."""
    method = make_method()
    unlabeled = semi_batch.unlabeled

    def turned(part):
        return map_tensors(part, lambda tensor: tensor.flip(0))

    together = replace(unlabeled, views={name: turned(view) for name, view in unlabeled.views.items()})
    against = replace(unlabeled, views={**unlabeled.views, "strong": turned(unlabeled.views["strong"])})
    as_is = values(method.step(semi_batch, START).losses)
    assert values(method.step(replace(semi_batch, unlabeled=together), START).losses) == pytest.approx(as_is, rel=1e-4)
    crossed = values(method.step(replace(semi_batch, unlabeled=against), START).losses)
    assert crossed["unlabeled/roi/box"] != pytest.approx(as_is["unlabeled/roi/box"], rel=1e-3)


def with_views(batch, **names):
    """The batch with other names for its unlabeled views."""
    views, targets = batch.unlabeled.views, batch.unlabeled.targets
    renamed = {new: views[old] for new, old in names.items()}, {new: targets[old] for new, old in names.items()}
    return replace(batch, unlabeled=replace(batch.unlabeled, views=renamed[0], targets=renamed[1]))


def test_pseudo_label__an_ensemble_of_one_view_twice_finds_what_one_look_does(make_method, semi_batch):
    batch = with_views(semi_batch, weak="weak", again="weak", strong="strong")
    once, twice = (
        make_method(ensemble=ensemble).step(batch, START).report.found for ensemble in (None, {"views": ["again"]})
    )
    assert once.valid.sum() > 0
    assert torch.equal(once.valid, twice.valid)
    torch.testing.assert_close(twice.boxes, once.boxes)
    torch.testing.assert_close(twice.confidence, once.confidence)


def test_pseudo_label__an_ensemble_finds_the_same_whichever_view_is_the_first(make_method, semi_batch):
    """The strong view is mirrored: what was fused in one frame is the other's, mirrored."""
    method = make_method(ensemble={"views": ["mirrored"]})
    batch = with_views(semi_batch, weak="weak", mirrored="strong", strong="strong")
    other = with_views(semi_batch, weak="strong", mirrored="weak", strong="strong")
    weak, mirrored = semi_batch.unlabeled.views["weak"], semi_batch.unlabeled.views["strong"]
    found, fused = (method.step(each, START).report.found for each in (batch, other))
    back = carry(fused, mirrored, weak)
    count = int(found.valid[0].sum())
    assert count > 1
    assert int(back.valid[0].sum()) == count
    order, order_back = (boxes[0, :count].sum(dim=-1).argsort() for boxes in (found.boxes, back.boxes))
    torch.testing.assert_close(back.boxes[0, order_back], found.boxes[0, order], rtol=1e-3, atol=0.05)


def test_pseudo_label__the_report_is_in_the_weak_frame(make_method, semi_batch):
    report = make_method().step(semi_batch, START).report
    assert report.view.image_ids.tolist() == [7, 8]
    assert torch.equal(report.selection.supervision.classes.boxes, report.found.boxes)
    assert set(report.found.scores) == {"confidence", "box_jitter"}
    assert set(report.selection.passed) == {"at_most", "objectness", "classes", "boxes"}


def test_pseudo_label__a_step_changes_no_state(make_method, semi_batch):
    method = make_method()
    before = copy.deepcopy(method.state_dict())
    first, second = method.step(semi_batch, START).losses, method.step(semi_batch, START).losses
    assert values(first) == values(second)
    assert all(torch.equal(before[name], tensor) for name, tensor in method.state_dict().items())


def test_pseudo_label__the_teacher_follows_after_the_update_and_only_if_it_was_finite(make_method):
    method = make_method()
    before = method.teacher.network.rpn.shared.weight.clone()
    torch.nn.init.zeros_(method.student.rpn.shared.weight)
    method.after_update(Progress(1, 10), torch.tensor(False))
    assert torch.equal(method.teacher.network.rpn.shared.weight, before)
    method.after_update(Progress(1, 10), torch.tensor(True))
    torch.testing.assert_close(method.teacher.network.rpn.shared.weight, before / 2)


def test_pseudo_label__skips_unlabeled_images_while_their_weight_is_0(make_method, semi_batch):
    method = make_method(unlabeled_weight={"type": "step", "before": 0.0, "after": 2.0, "at": 5})
    assert not method.config.uses_unlabeled(Progress(4, 10))
    assert method.config.uses_unlabeled(Progress(5, 10))
    step = method.step(SemiBatch(semi_batch.labeled, None), Progress(4, 10))
    assert step.report is None
    assert all(name.startswith("labeled/") for name in step.losses)


def test_pseudo_label__may_look_while_the_weight_is_0(make_method, semi_batch):
    method = make_method(unlabeled_weight=0.0, while_unweighted="look")
    assert method.config.uses_unlabeled(START)
    step = method.step(semi_batch, START)
    assert step.report.selection.supervision.classes.valid.any()
    assert all(name.startswith("labeled/") for name in step.losses)
    assert values(step.losses) == pytest.approx(
        {
            name: value
            for name, value in values(make_method().step(semi_batch, START).losses).items()
            if name in step.losses
        }
    )


@pytest.mark.parametrize(
    ("selector", "while_unweighted", "looks"),
    [
        ({"type": "gmm"}, None, True),
        ({"type": "fixed", "above": 0.5}, None, False),
        ({"type": "gmm"}, "skip", False),
        ({"type": "fixed", "above": 0.5}, "look", True),
    ],
)
def test_pseudo_label__looks_while_the_weight_is_0_where_the_selector_learns(selector, while_unweighted, looks):
    config = PseudoLabelConfig.model_validate(
        {**SOFT_TEACHER, "selector": selector, "while_unweighted": while_unweighted, "unlabeled_weight": 0.0}
    )
    assert config.uses_unlabeled(START) == looks


def test_pseudo_label__the_queue_fills_while_the_weight_is_0(make_method, semi_batch):
    method = make_method(unlabeled_weight=0.0, selector={"type": "gmm"})
    step = method.step(semi_batch, START)
    method.after_update(Progress(1, 10), torch.tensor(True))
    assert all(name.startswith("labeled/") for name in step.losses)
    assert (method.selector.queue > 0.0).any()


def test_pseudo_label__the_queue_survives_a_restart(make_method, semi_batch):
    selector = {"type": "gmm", "queue_per_image": 7}
    context = {"unlabeled_images": 2}
    method, restarted = make_method(selector=selector, context=context), make_method(selector=selector, context=context)
    for _ in range(2):
        method.step(semi_batch, START)
        method.after_update(Progress(1, 10), torch.tensor(True))
    assert method.selector.queue.shape == (3, 14)
    restarted.load_state_dict(method.state_dict())
    again = restarted.step(semi_batch, START)
    here = method.step(semi_batch, START)
    assert torch.equal(again.report.selection.numbers["threshold"], here.report.selection.numbers["threshold"])
    assert values(again.losses) == values(here.losses)


def pseudo_boxes_in(images, of):
    targets = Targets.empty(of, length=2)
    targets.valid[:images, 1] = True
    targets.weight[:images, 1] = 1.0
    targets.valid[:, 0] = True  # of weight 0: ignored, not taught
    return Supervision.uniform(targets, START)


@pytest.mark.parametrize(("images", "factor"), [(0, 0.01), (1, 0.01), (2, 1.0), (4, 1.0)])
def test_rare_factor__acts_where_less_than_half_of_four_images_have_a_pseudo_box(images, factor):
    rare = rare_factor(pseudo_boxes_in(images, of=4), BackgroundFactor())
    assert rare.value(rare.counted, rare.images).item() == pytest.approx(factor)


def test_pseudo_label__the_background_factor_multiplies_all_unlabeled_terms_of_a_step_without_pseudo_boxes(
    make_method, semi_batch
):
    none, some = {"type": "fixed", "above": 0.999}, {"type": "fixed", "above": 0.1}
    factor = {"below": 0.5, "factor": 0.01}
    for selector, expected in ((none, 0.01), (some, 1.0)):
        plain = values(make_method(selector=selector).step(semi_batch, START).losses)
        scaled = values(make_method(selector=selector, background_factor=factor).step(semi_batch, START).losses)
        assert scaled == pytest.approx(
            {name: value * (expected if name.startswith("unlabeled") else 1.0) for name, value in plain.items()}
        )


def test_pseudo_label__what_left_the_strong_view_is_no_pseudo_box_of_the_background_factor(make_method, semi_batch):
    method = make_method(selector={"type": "fixed", "above": 0.1}, background_factor={})
    away = torch.tensor([[1.0, 0.0, 500.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    semi_batch.unlabeled.views["strong"].homography.copy_(away)
    step = method.step(semi_batch, START)
    assert step.report.selection.supervision.classes.valid.any(dim=1).all()
    (rare,) = {term.rare for name, term in step.losses.terms.items() if name.startswith("unlabeled")}
    assert (rare.counted.item(), rare.images.item()) == (0.0, 2.0)


@pytest.mark.parametrize(("minimum_visible", "teaches"), [(0.0, True), (0.9, False)])
def test_pseudo_label__boxes_hardly_visible_in_the_strong_view_teach_nothing(
    make_method, semi_batch, minimum_visible, teaches
):
    method = make_method(context={"minimum_visible": minimum_visible})
    quarter = torch.tensor([[4.0, 0.0, -96.0], [0.0, 4.0, -96.0], [0.0, 0.0, 1.0]])  # the middle, four times as large
    semi_batch.unlabeled.views["strong"].homography.copy_(quarter)
    found = method.teacher.look(semi_batch.unlabeled.views["weak"]).found
    assert (found.boxes[..., 2:] - found.boxes[..., :2] > 16.0).all(dim=-1)[found.valid].all()  # none fits in whole
    assert (values(method.step(semi_batch, START).losses)["unlabeled/roi/box"] > 0.0) == teaches


@pytest.mark.parametrize(("joined", "forwards"), [("always", 1), ("never", 2)])
def test_pseudo_label__joins_the_streams_as_the_engine_says(make_method, semi_batch, joined, forwards):
    method = make_method(context={"joined": joined})
    made = []
    method.student.backbone.register_forward_hook(lambda *_: made.append(True))
    method.step(semi_batch, START)
    assert len(made) == forwards


def test_pseudo_label__scores_both_networks(make_method):
    method = make_method()
    assert method.networks() == {"student": method.student, "teacher": method.teacher.network}


def test_pseudo_label__survives_a_restart(make_method, semi_batch):
    method, restarted = make_method(), make_method()
    torch.nn.init.normal_(method.student.rpn.shared.weight)
    method.after_update(Progress(1, 10), torch.tensor(True))
    restarted.load_state_dict(method.state_dict())
    again = restarted.step(semi_batch, START).losses
    assert values(method.step(semi_batch, START).losses) == values(again)


def test_pseudo_label__a_whole_step_asks_the_host_8_times(make_method, semi_batch, host_questions):
    method = make_method()
    method.step(semi_batch, START)  # lays out the anchors once
    ok = torch.tensor(True)
    with host_questions() as asked:
        total(method.step(semi_batch, START).losses).backward()
        method.after_update(Progress(1, 10), ok)
    # Proposals and detections of both networks are suppressed, and four times regions are sorted by level.
    assert asked == {"torchvision::nms": 3, "aten::nonzero": 1, "tolist": 4}


MEAN_TEACHER = {"type": "pseudo_label", "teacher": {"type": "ema"}, "selector": {"type": "fixed", "above": 0.0}}


@pytest.mark.parametrize(
    ("detector", "waits"),
    [
        ("faster_rcnn", {"torchvision::nms": 3, "aten::nonzero": 1, "tolist": 2}),
        ("retinanet", {"torchvision::nms": 1}),
        ("fcos", {"torchvision::nms": 1}),
        ("dense_objectness", {"torchvision::nms": 1}),
        ("dino", {"ssodkit::least_cost": 2}),  # each stream is matched; queries are not suppressed
    ],
)
def test_pseudo_label__a_mean_teacher_waits_for_the_host_as_often_as_its_detector_must(
    tiny_context, semi_batch, host_questions, detector, waits
):
    context = tiny_context(type=detector)
    method = PseudoLabelConfig.model_validate(MEAN_TEACHER).build(context)
    method.step(semi_batch, START)  # lays out the anchors once
    ok = torch.tensor(True)
    with host_questions() as asked:
        total(method.step(semi_batch, START).losses).backward()
        method.after_update(Progress(1, 10), ok)
    assert asked == waits


def test_pseudo_label__a_box_may_teach_its_place_alone(make_method, semi_batch, make_targets):
    """It is background for the class term, and yet regressed."""
    student = make_method().student
    sure, steady = Targets.empty(2), make_targets([[(8, 8, 30, 44, 1)], [(20, 12, 44, 50, 2)]])
    pseudo = Supervision(objectness=sure, classes=sure, boxes=steady, progress=START)
    stages = predict_together(student, [semi_batch.unlabeled.views["strong"]], [pseudo])[0].stages
    plan = assign(student, stages, pseudo)["roi"]
    is_regressed = plan["box"].positive & (plan["box"].weight > 0.0)
    assert is_regressed.any(dim=1).all()
    assert not plan["class"].positive.any()
    assert (plan["class"].background & (plan["class"].weight > 0.0)).any()
    assert not plan["box"].weight[~plan["box"].positive].any()


def test_pseudo_label__a_box_of_0_7_is_never_learned_as_a_class(make_method, semi_batch):
    """What is assigned are the filtered boxes, not all that were found."""
    method = make_method(teacher={"type": "ema", "score": 0.0})
    found = method.teacher.look(semi_batch.unlabeled.views["weak"]).found
    confidence = torch.where(torch.arange(found.valid.shape[1]) % 2 == 0, 0.95, 0.7).expand_as(found.confidence)
    found = found.with_score("confidence", confidence).with_score("box_jitter", torch.full_like(confidence, torch.inf))
    config = method.config.selector.model_copy(update={"classes": SetRule(score="confidence", above=0.9)})
    selection = SoftTeacherSelector(config)(found, SelectionContext(START, Targets.empty(2)))
    pseudo = carry(selection.supervision, *(semi_batch.unlabeled.views[name] for name in ("weak", "strong")))
    stages = predict_together(method.student, [semi_batch.unlabeled.views["strong"]], [pseudo])[0].stages
    learned = assign(method.student, stages, pseudo)["roi"]["class"]
    assert found.valid[:, 1].any()
    assert learned.positive.any()
    assert (learned.index[learned.positive] % 2 == 0).all()

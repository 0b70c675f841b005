"""Unbiased Teacher v2's numbers, worked out from its equations, and what the step does with them."""

from dataclasses import replace
from math import prod

import pytest
import torch
from lesson import answers_of, assigned, lesson_of
from tiny import TINY_UNSURE_FASTER_RCNN, TINY_UNSURE_FCOS
from torch import Tensor

from ssodkit.assigners.matchers.points import PointsConfig
from ssodkit.detectors.criteria.gaussian import GaussianConfig
from ssodkit.detectors.criteria.giou import GiouConfig
from ssodkit.detectors.criteria.l1 import L1Config
from ssodkit.detectors.criteria.listen import ListenConfig
from ssodkit.detectors.criteria.softmax import SoftmaxConfig
from ssodkit.detectors.normalizers.draws import SampledConfig
from ssodkit.detectors.normalizers.measured import WeightsConfig
from ssodkit.detectors.rules import changes_of
from ssodkit.errors import RecipeError
from ssodkit.methods.pseudo_label import PseudoLabel, PseudoLabelConfig
from ssodkit.ops.boxes import elementwise_iou
from ssodkit.ops.coding import EdgeCoder, SideCoder
from ssodkit.ops.points import centerness, side_distances
from ssodkit.plugins import BuildContext, PluginConfig
from ssodkit.recipe.check import load_recipe
from ssodkit.recipe.merge import read_tree
from ssodkit.structures.lessons import AnswerLesson, TargetLesson
from ssodkit.structures.predictions import Candidates, Predictions
from ssodkit.structures.progress import Progress
from ssodkit.structures.teaching import Targets

START = Progress(0, 10)
DELTA_T = [[-3.0, -2.5, -1.5, -2.0], [-2.2, -1.0, -3.0, -1.4]]
DELTA_S = [[-1.0, -2.4, -0.5, -1.0], [-2.0, -0.4, -1.2, -0.2]]
MINE, THEIRS = [[3.2, 2.5, 4.0, 5.0], [1.0, 2.0, 3.0, 4.0]], [[3.0, 2.8, 4.1, 4.6], [1.5, 2.2, 2.4, 4.4]]


def doubles(rows: list) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def points(distances: list[list[float]], uncertainty: list[list[float]]) -> Predictions:
    """One image, with points of stride 8 in the origin that say these distances, in strides."""
    count = len(distances)
    left_top, right_bottom = doubles([distances]).chunk(2, dim=-1)
    codes = torch.cat([0.5 - left_top, right_bottom - 0.5], dim=-1)
    own = doubles([-4.0, -4.0, 4.0, 4.0]).expand(1, count, 4)
    said = answers_of(torch.zeros(1, count, 2).double(), boxes=own, codes=codes[:, :, None])
    return replace(said, coder=EdgeCoder(), extra={"uncertainty": doubles([uncertainty])})


def boxes_at(distances: list[list[float]]) -> Tensor:
    """Boxes with these distances, in strides of 8 pixels, from the origin."""
    return 8.0 * doubles([distances]) * doubles([-1.0, -1.0, 1.0, 1.0])


def found_lesson(boxes: Tensor, uncertainty: list[list[float]]) -> TargetLesson:
    """Each candidate learns from a target that a teacher found with this uncertainty."""
    lesson = lesson_of(torch.zeros(boxes.shape[:2], dtype=torch.int64), 2, boxes)
    return replace(lesson, targets=replace(lesson.targets, extra={"uncertainty": doubles([uncertainty])}))


def ones(said: Predictions) -> Tensor:
    return torch.ones(said.class_logits.shape[:2], dtype=torch.float64)


def test_fcos__the_loss_of_one_positive_is_the_published_one():
    said, boxes = points(MINE[:1], [[0.0, -1.0, 0.5, 1.0]]), boxes_at(THEIRS[:1])
    lesson = lesson_of(torch.zeros(1, 1, dtype=torch.int64), 2, boxes)
    giou = GiouConfig(smooth=1.0)(said, lesson, ones(said))
    spread = GaussianConfig(smooth=1.0)(said, lesson, ones(said))
    assert centerness(side_distances(torch.zeros(1, 1, 2).double(), boxes)).item() == pytest.approx(0.667373, abs=1e-6)
    assert giou.item() == pytest.approx(0.125200, abs=1e-6)  # the centerness divides by itself
    assert spread.item() == pytest.approx(0.876557 * 1.746752, abs=2e-6)
    assert (giou + 0.0025 * spread).item() == pytest.approx(0.129028, abs=1e-6)
    assert (giou + 0.05 * spread).item() == pytest.approx(0.201757, abs=1e-6)


def regions(codes: list[float], uncertainty: list[float]) -> Predictions:
    """One proposal; codes and uncertainty are published as left, right, top, bottom."""
    order = [0, 2, 1, 3]
    own = doubles([[[10.0, 20.0, 50.0, 80.0]]])
    said = answers_of(torch.zeros(1, 1, 2).double(), boxes=own, codes=doubles([[[codes]]])[..., order])
    said = replace(said, coder=SideCoder(widened=1.0), extra={"uncertainty": doubles([[uncertainty]])[..., order]})
    return said


def test_faster_rcnn__the_loss_of_a_box_is_the_published_one():
    said = regions([0.8, 1.2, -0.2, 0.9], [-0.5, 0.0, 0.2, -1.0])
    lesson = lesson_of(torch.zeros(1, 1, dtype=torch.int64), 2, doubles([[[14.0, 18.0, 54.0, 86.0]]]))
    torch.testing.assert_close(said.decode(), doubles([[[13.2, 18.8, 54.8, 85.4]]]))
    apart = L1Config()(said, lesson, ones(said))
    spread = GaussianConfig()(said, lesson, ones(said))
    assert apart.item() == pytest.approx(0.611475, abs=1e-6)
    assert spread.item() == pytest.approx(0.942488 * 0.381372, abs=1e-6)
    assert (apart + 0.05 * spread).item() == pytest.approx(0.629447, abs=1e-6)


@pytest.mark.parametrize("iou_learns", [False, True])
def test_gaussian__teaches_boxes_and_uncertainty_and_where_asked_the_iou(iou_learns):
    said, boxes = points(MINE, DELTA_S), boxes_at(THEIRS)
    codes, delta = said.box_codes.requires_grad_(), said.extra["uncertainty"].requires_grad_()
    lesson = lesson_of(torch.zeros(1, 2, dtype=torch.int64), 2, boxes)
    GaussianConfig(iou_learns=iou_learns)(said, lesson, ones(said)).sum().backward()
    assert delta.grad.abs().min() > 0.0
    residuals = (codes[:, :, 0] - EdgeCoder().encode(said.candidates.boxes, boxes)).detach()
    alone = elementwise_iou(said.decode().detach(), boxes)[..., None] * residuals / delta.detach().sigmoid().square()
    assert torch.allclose(codes.grad[:, :, 0], alone) is not iou_learns


@pytest.mark.parametrize(("above", "normalizer", "value"), [(0.8, "weights", 0.34), (0.5, "sampled", 0.003711)])
def test_listen__has_the_published_losses(above, normalizer, value):
    said = points(MINE, DELTA_S)
    lesson = found_lesson(boxes_at(THEIRS), DELTA_T)
    criterion = ListenConfig(above=above)
    losses = criterion(said, lesson, ones(said))
    weights = lesson.assignment.weight * criterion.counts(said, lesson)
    assert weights.tolist() == [[3.0, 2.0 if above == 0.8 else 3.0]]
    lesson = replace(lesson, assignment=replace(lesson.assignment, sampled=torch.tensor([512.0])))
    divide = WeightsConfig() if normalizer == "weights" else SampledConfig()
    total, denominator = divide(losses, weights, lesson, said, 512)[""]
    assert (total / denominator).item() == pytest.approx(value, abs=1e-6)


def test_listen__to_nobody_is_zero_and_a_gradient_of_zero():
    said = points(MINE, DELTA_S)
    said = replace(said, box_codes=said.box_codes.clone().requires_grad_())
    lesson = found_lesson(boxes_at(THEIRS), DELTA_S)
    losses = ListenConfig()(said, lesson, ones(said))
    losses.sum().backward()
    assert losses.tolist() == [[0.0, 0.0]]
    assert said.box_codes.grad.abs().max() == 0.0
    assert ListenConfig().counts(said, lesson).tolist() == [[0, 0]]


def test_listen__to_raw_answers_is_listening_to_the_same_boxes():
    said, theirs = points(MINE, DELTA_S), points(THEIRS, DELTA_T)
    plan = assigned(torch.tensor([[0, 1]]), ones(said))
    losses = ListenConfig(above=0.8)(said, AnswerLesson(plan, 2, theirs), ones(said))
    torch.testing.assert_close(
        losses, ListenConfig(above=0.8)(said, found_lesson(boxes_at(THEIRS), DELTA_T), ones(said))
    )


@pytest.mark.parametrize(
    ("point", "stride", "distances", "worth"),
    [
        ((120.0, 120.0), 16.0, (20.0, 20.0, 60.0, 100.0), 0.258199),  # negative with center sampling
        ((140.0, 156.0), 8.0, (40.0, 56.0, 40.0, 64.0), 0.935414),
        ((136.0, 152.0), 16.0, (36.0, 52.0, 44.0, 68.0), None),
        ((108.0, 108.0), 8.0, None, None),
    ],
)
def test_points__without_center_sampling_are_those_of_the_level(point, stride, distances, worth):
    half = stride / 2.0
    own = torch.tensor([[[point[0] - half, point[1] - half, point[0] + half, point[1] + half]]])
    level = torch.tensor([[{8.0: 0, 16.0: 1}[stride]]])
    candidates = Candidates(own, torch.ones(1, 1).bool(), level, torch.tensor([[stride]]))
    targets = Targets.empty(1, length=1)
    targets = replace(targets, boxes=torch.tensor([[[100.0, 100.0, 180.0, 220.0]]]), valid=torch.ones(1, 1).bool())
    matcher = PointsConfig(radius=None).build(BuildContext(num_classes=1, detector=PluginConfig(type="none")))
    said = replace(answers_of(torch.zeros(1, 1, 1), boxes=own), candidates=candidates)
    answer = matcher(said, targets, START)
    assert bool(answer.positive) is (distances is not None)
    if distances is not None:
        assert side_distances(torch.tensor([[point]]), targets.boxes).tolist() == [[list(distances)]]
    if worth is not None:
        assert answer.quality.item() == pytest.approx(worth, abs=1e-6)


def weights_of(name: str, stream: str, step: int) -> dict[str, float]:
    """What the terms of a recipe's detector count in a stream, by their names."""
    recipe = load_recipe(name)
    progress, method = Progress(step, recipe.engine.steps), recipe.method
    changes, whole = method.term_changes[f"{stream}_terms"], 1.0
    if stream == "unlabeled":
        whole = method.unlabeled_weight.at(progress)
    found = {}
    for stage, rule in recipe.detector.stages.items():
        for term, own in rule.terms.items():
            laid = changes_of(changes, stage, term, own.criterion.teaches)
            found[f"{stage}/{term}"] = whole * prod(change.weight.at(progress) for change in laid)
    return found


@pytest.mark.parametrize(
    ("name", "burn_in", "total"),
    [
        ("coco/unbiased_teacher_v2_1_percent", 10_000, 1.279167),
        ("coco/unbiased_teacher_v2_2_percent", 15_000, 1.279167),
        ("coco/unbiased_teacher_v2_5_percent", 20_000, 1.300000),
        ("coco/unbiased_teacher_v2", 30_000, 1.300000),
    ],
)
def test_recipe__the_total_is_the_published_one_from_the_end_of_the_burn_in_on(name, burn_in, total):
    labeled = {"dense/class": 0.5, "dense/centerness": 0.6, "dense/box": 0.4, "dense/uncertainty": 0.0}
    unlabeled = {"dense/class": 0.3, "dense/centerness": 0.55, "dense/box": 0.2, "dense/uncertainty": 9.0}

    def total_at(step: int) -> float:
        first, second = (weights_of(name, stream, step) for stream in ("labeled", "unlabeled"))
        assert first.keys() == second.keys() == labeled.keys()
        return sum(first[term] * labeled[term] + second[term] * unlabeled[term] for term in labeled)

    assert total_at(burn_in - 1) == pytest.approx(1.5)
    assert total_at(burn_in) == pytest.approx(total, abs=1e-6)
    momentum = load_recipe(name).method.teacher.momentum
    kept = [momentum.at(Progress(step, 180_000)) for step in (burn_in, burn_in + 1)]
    assert kept == [0.0, 0.9999]


def test_recipe__of_faster_rcnn_has_the_published_weights():
    name, once = "coco/unbiased_teacher_v2_faster_rcnn", dict.fromkeys(("rpn/class", "rpn/box", "roi/class"), 1.0)
    assert weights_of(name, "labeled", 5000) == {**once, "roi/box": 1.0, "roi/uncertainty": 1.0}
    expected = {"rpn/class": 4.0, "rpn/box": 0.0, "roi/class": 4.0, "roi/box": 1.0, "roi/uncertainty": 0.0}
    assert weights_of(name, "unlabeled", 2000) == expected
    assert set(weights_of(name, "unlabeled", 1999).values()) == {0.0}


@pytest.mark.parametrize(
    ("keep", "after"), [(0.9999, {1000: 0.904833, 10_000: 0.367861}), (0.9996, {1000: 0.670266, 10_000: 0.018301})]
)
def test_momentum__keeps_of_the_past_what_is_published(keep, after):
    assert {steps: round(keep**steps, 6) for steps in after} == after


@pytest.mark.parametrize(("label", "expected"), [(0, 0.053437), (3, 2.012942)])
def test_softmax__has_the_published_focal_loss(label, expected):
    said = replace(answers_of(doubles([[[2.0, 0.5, -1.0, 0.0]]]), "softmax"))
    lesson = lesson_of(torch.tensor([[label]]), 3)
    assert SoftmaxConfig(focus=1.5)(said, lesson, ones(said)).item() == pytest.approx(expected, abs=1e-6)


@pytest.fixture
def make_method(tiny_context):
    """Detector -> a tiny method of its recipe, which teaches what is scored above a number from the first step on. Its
    teacher is sure of every side."""
    detectors = {"fcos": TINY_UNSURE_FCOS, "faster_rcnn": TINY_UNSURE_FASTER_RCNN}
    recipes = {"fcos": "unbiased_teacher_v2", "faster_rcnn": "unbiased_teacher_v2_faster_rcnn"}

    def make(detector: str, above: float = 0.0) -> PseudoLabel:
        tree = {**read_tree(f"coco/{recipes[detector]}").plain["method"], "unlabeled_weight": 1.0}
        tree["teacher"] = {**tree["teacher"], "score": 0.0}
        for rule in (tree["selector"].get(part) for part in ("objectness", "classes", "boxes")):
            (rule or tree["selector"])["above"] = above
        context = tiny_context(**detectors[detector])
        method = PseudoLabelConfig.model_validate(tree).build(context)
        torch.nn.init.constant_(doubt_of(method.teacher.network).bias, -3.0)
        return method

    return make


def doubt_of(network) -> torch.nn.Module:
    """The layer that says how unsure a tiny detector is."""
    return network.head.towers.doubt if hasattr(network, "head") else network.roi.doubt


def values(losses) -> dict[str, Tensor]:
    return losses.values(losses.denominators())


FCOS_TERMS = ["dense/class", "dense/box", "dense/centerness", "dense/uncertainty"]
REGION_TERMS = ["rpn/class", "rpn/box", "roi/class", "roi/box", "roi/uncertainty"]


@pytest.mark.parametrize(("detector", "terms"), [("fcos", FCOS_TERMS), ("faster_rcnn", REGION_TERMS)])
def test_step__teaches_boxes_where_the_teacher_is_surer_and_uncertainty_by_labels_alone(
    make_method, semi_batch, detector, terms
):
    method = make_method(detector)
    step = method.step(semi_batch, START)
    found = values(step.losses)
    assert list(found) == [f"{stream}/{term}" for stream in ("labeled", "unlabeled") for term in terms]
    assert found[f"unlabeled/{terms[-1]}".replace("uncertainty", "box")] > 0.0
    assert found[f"unlabeled/{terms[-1]}"] == 0.0
    doubt = doubt_of(method.student)
    unlabeled = torch.stack([value for name, value in found.items() if name.startswith("unlabeled")]).sum()
    assert not torch.autograd.grad(unlabeled, doubt.weight, retain_graph=True)[0].any()
    torch.stack(list(found.values())).sum().backward()
    assert doubt.weight.grad.any()
    assert all(weight.grad.isfinite().all() for weight in method.student.parameters())


@pytest.mark.parametrize(("detector", "stage"), [("fcos", "dense"), ("faster_rcnn", "roi")])
def test_step__an_unsure_teacher_teaches_no_box(make_method, semi_batch, detector, stage):
    method = make_method(detector)
    torch.nn.init.zeros_(doubt_of(method.teacher.network).bias)
    found = values(method.step(semi_batch, START).losses)
    assert found[f"unlabeled/{stage}/box"] == 0.0
    assert found[f"unlabeled/{stage}/class"] > 0.0


@pytest.mark.parametrize(("detector", "stage"), [("fcos", "dense"), ("faster_rcnn", "roi")])
def test_step__without_pseudo_boxes_every_weight_has_a_finite_gradient(make_method, semi_batch, detector, stage):
    method = make_method(detector, above=1.0)
    found = values(method.step(semi_batch, START).losses)
    assert found[f"unlabeled/{stage}/box"] == 0.0
    assert found[f"unlabeled/{stage}/class"] > 0.0
    assert found.get("unlabeled/rpn/class", 0.0) == 0.0  # the scores of none weigh what the anchors say
    torch.stack(list(found.values())).sum().backward()
    assert all(weight.grad.isfinite().all() for weight in method.student.parameters())


def test_step__places_are_taught_by_another_ranking_than_classes(make_method, semi_batch):
    step = make_method("fcos").step(semi_batch, START)
    found, selection = step.report.found, step.report.selection
    assert {"plain", "certain", "confidence"} == set(found.scores)
    sets = selection.supervision
    assert torch.equal(sets.classes.valid, found.valid & (found.scores["plain"] > 0.0))
    assert torch.equal(sets.boxes.valid, found.valid & (found.scores["certain"] > 0.0))
    assert sets.boxes.extra["uncertainty"] is found.extra["uncertainty"]


@pytest.mark.parametrize(
    ("detector", "questions"),
    [
        ("fcos", {"torchvision::nms": 2}),  # one more than the detector, for the second ranking
        ("faster_rcnn", {"torchvision::nms": 3, "tolist": 2, "aten::nonzero": 1}),  # the detector's own
    ],
)
def test_step__asks_the_host_for_a_suppression_of_each_ranking(
    make_method, semi_batch, host_questions, detector, questions
):
    method = make_method(detector)
    method.step(semi_batch, START)  # lays out the anchors
    with host_questions() as asked:
        method.step(semi_batch, START)
    assert asked == questions


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "detector.head.uncertainty=false",
            "'listen' needs 'uncertainty', which the stage 'dense' of 'fcos' does not provide; write `detector",
        ),
        (
            "detector.head.uncertainty=false",
            "rankings.certain.certainty: the stage 'dense' has no such answer; answers to rank by: class, quality",
        ),
        (
            "method.labeled_terms.box.criterion={type: listen}",
            "'listen' needs 'their_uncertainty', which the stage 'dense' of 'fcos' does not provide; labels do not "
            "say it, only a teacher: write it in `method.unlabeled_terms`; without this need: 'ciou', 'giou'",
        ),
        (
            "detector.stages.dense.terms.box.criterion={type: listen}",
            "labels do not say it, only a teacher: write it in `method.unlabeled_terms`",
        ),
        ("method.teacher.rankings.confidence={class: 1.0}", "`confidence` is the best of all rankings"),
        ("method.ensemble={views: [mirrored]}", "`ensemble` fuses answers by their one confidence"),
        ("detector.stages.dense.terms.uncertainty=null", "no term teaches the stage's answer 'uncertainty'"),
        ("detector.head.activation=relu", None),
        ("detector.head={activation: relu, bins: 9}", "`bins` has no effect without `activation: bins`"),
    ],
)
def test_recipe__what_nobody_is_sure_of_is_refused_before_a_network_exists(override, said):
    if said is None:
        assert load_recipe("unbiased_teacher_v2", [override]).detector.head.activation == "relu"
        return
    with pytest.raises(RecipeError) as caught:
        load_recipe("unbiased_teacher_v2", [override])
    assert said in str(caught.value)


def test_recipe__a_ranking_has_no_scorers_name():
    with pytest.raises(RecipeError, match="'box_jitter', which the teacher's answer has already; give its ranking"):
        load_recipe("soft_teacher", ["method.teacher.rankings={box_jitter: {class: 1.0}}"])


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["detector.roi.code.form=center", "detector.roi.code.widened=0.0"], "write `roi.code.form: sides`"),
        (["detector.roi.code.form=center"], "`widened` has no effect without `form: sides`"),
        (["detector.roi.boxes_per_class=true"], "write `roi.boxes_per_class: false`"),
        (["method.unlabeled_terms.rpn/box={criterion: {type: listen}}"], "needs 'uncertainty', which the stage 'rpn'"),
    ],
)
def test_recipe__regions_say_how_unsure_they_are_of_four_sides_of_one_box(overrides, said):
    with pytest.raises(RecipeError) as caught:
        load_recipe("coco/unbiased_teacher_v2_faster_rcnn", overrides)
    assert said in str(caught.value)
    scored = "method.candidate_scorers=[{type: nearest_score}]"
    with pytest.raises(RecipeError, match="'nearest_score' needs 'proposals', which 'fcos' does not provide"):
        load_recipe("unbiased_teacher_v2", [scored])

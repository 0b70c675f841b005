"""Dense Teacher's numbers, worked out from its equations, and what the step does with them."""

import json
from dataclasses import replace

import pytest
import torch
from lesson import answers_of
from tiny import TINY_DINO, TINY_FASTER_RCNN
from torch import Tensor

from ssodkit.assigners.regions.everything import EverythingConfig
from ssodkit.assigners.regions.top_share import TopShareConfig
from ssodkit.detectors.criteria.codes import CodesConfig
from ssodkit.detectors.criteria.focal import FocalConfig
from ssodkit.detectors.criteria.giou import GiouConfig
from ssodkit.detectors.criteria.kl import KlConfig
from ssodkit.detectors.criteria.objectness import ObjectnessConfig
from ssodkit.detectors.criteria.quality import QualityConfig
from ssodkit.detectors.criteria.softmax import SoftmaxConfig
from ssodkit.detectors.learning import agree
from ssodkit.detectors.normalizers.measured import QualityConfig as QualityNormalizer
from ssodkit.detectors.normalizers.measured import WeightsConfig
from ssodkit.detectors.normalizers.positives import PositivesConfig
from ssodkit.errors import RecipeError
from ssodkit.methods.imitation import ImitationConfig
from ssodkit.ops.coding import EdgeCoder
from ssodkit.recipe.check import load_recipe
from ssodkit.structures.geometry import SemiBatch, Stream
from ssodkit.structures.lessons import AnswerLesson
from ssodkit.structures.predictions import Predictions
from ssodkit.structures.progress import Progress
from ssodkit.structures.run import Losses, Term
from ssodkit.structures.teaching import Assignment, Targets

START = Progress(0, 10)
THEIRS = [[0.9, 0.1], [0.6, 0.2], [0.3, 0.55], [0.05, 0.02], [0.4, 0.1], [0.01, 0.01]]
MINE = [[0.7, 0.2], [0.5, 0.3], [0.2, 0.6], [0.1, 0.05], [0.3, 0.2], [0.02, 0.02]]
DENSE_TEACHER = {
    "type": "imitation",
    "teacher": {"type": "ema"},
    "region": {"type": "top_share", "share": 0.1},
    "terms": {
        "class": {
            "criterion": {"type": "focal", "balance": None},
            "quality": "unused",
            "normalizer": "quality",
            "floor": 1e-6,
            "weight": 4.0,
        },
        "box": {"criterion": {"type": "giou"}, "quality": "unused", "normalizer": "positives"},
        "quality": {"criterion": {"type": "quality", "of": "answer"}, "normalizer": "positives"},
        "objectness": {"criterion": {"type": "objectness", "of": "answer"}, "normalizer": "quality"},
    },
}


def answers(probs: list[list[float]], **extra: Tensor) -> Predictions:
    """One image, with these class probabilities for its candidates."""
    return replace(answers_of(torch.tensor([probs], dtype=torch.float64).logit()), extra=extra)


def distances(*boxes: tuple[float, ...]) -> Predictions:
    """One image, with points of stride 1 and these distances to the left, top, right and bottom."""
    left_top, right_bottom = torch.tensor([boxes], dtype=torch.float64).chunk(2, dim=-1)
    codes = torch.cat([0.5 - left_top, right_bottom - 0.5], dim=-1)
    squares = torch.tensor([-0.5, -0.5, 0.5, 0.5], dtype=torch.float64).expand(1, len(boxes), 4)
    said = answers_of(torch.zeros(1, len(boxes), 2, dtype=torch.float64), boxes=squares, codes=codes[:, :, None])
    return replace(said, coder=EdgeCoder())


def taught(criterion, mine: Predictions, theirs: Predictions, plan: Assignment) -> Tensor:
    return criterion(mine, AnswerLesson(plan, 2, theirs), torch.ones_like(plan.quality))


def value(normalizer, losses: Tensor, plan: Assignment, theirs: Predictions) -> float:
    """A term whose background learns where `losses` say so."""
    (total, denominator) = normalizer(losses, plan.weight, AnswerLesson(plan, 2, theirs), theirs, 0)[""]
    return (total / denominator).item()


def test_focal__without_balance_is_the_quality_focal_loss_over_all_places():
    theirs = answers(THEIRS)
    plan = TopShareConfig(share=0.34)(theirs)
    assert plan.positive.nonzero()[:, 1].tolist() == [0, 1]
    losses = taught(FocalConfig(balance=None), answers(MINE), theirs, plan)
    expected = [0.021274, 0.012192, 0.338791, 0.001182, 0.041027, 0.000016]
    torch.testing.assert_close(losses[0], torch.tensor(expected).double(), rtol=0, atol=2e-6)
    assert losses.sum().item() == pytest.approx(0.414482, abs=1e-6)
    assert value(QualityNormalizer(), losses, plan, theirs) == pytest.approx(0.276321, abs=1e-6)


def test_focal__has_the_published_derivative_by_the_logit():
    logits = torch.tensor([0.0, 0.0, 2.0], dtype=torch.float64, requires_grad=True)
    theirs = answers([[0.9], [1e-12], [0.6]])
    mine = replace(theirs, class_logits=logits[None, :, None])
    lesson = AnswerLesson(EverythingConfig()(theirs), 1, theirs)
    losses = FocalConfig(balance=None)(mine, lesson, torch.ones(1, 3))
    losses.sum().backward()
    torch.testing.assert_close(
        losses[0].detach(), torch.tensor([0.110904, 0.173287, 0.073085]).double(), rtol=0, atol=1e-6
    )
    torch.testing.assert_close(logits.grad, torch.tensor([-0.202629, 0.298287, 0.076795]).double(), rtol=0, atol=1e-6)


def test_giou__of_distances_is_the_mean_over_the_region():
    mine, theirs = distances((10, 12, 20, 18), (8, 8, 16, 24)), distances((12, 10, 20, 20), (8, 10, 14, 22))
    plan = EverythingConfig()(theirs)
    losses = taught(GiouConfig(), mine, theirs, plan)
    torch.testing.assert_close(1.0 - losses[0], torch.tensor([0.819623, 0.807906]).double(), rtol=0, atol=1e-6)
    assert value(PositivesConfig(), losses, plan, theirs) == pytest.approx(0.186235, abs=1e-6)


@pytest.mark.parametrize(("name", "criterion"), [("quality", QualityConfig), ("objectness", ObjectnessConfig)])
def test_quality__is_what_the_other_network_says(name, criterion):
    mine = answers(MINE[:2], **{name: torch.tensor([[0.5, -0.2]]).double()})
    theirs = answers(THEIRS[:2], **{name: torch.tensor([[1.0, 0.3]]).double()})
    plan = EverythingConfig()(theirs)
    losses = taught(criterion(of="answer"), mine, theirs, plan)
    assert value(PositivesConfig(), losses, plan, theirs) == pytest.approx(0.660788, abs=1e-6)


def test_softmax__says_all_classes_and_the_background_as_they_do():
    logits = torch.randn(1, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    theirs = answers_of(logits, activation="softmax")
    mine = replace(theirs, class_logits=logits.flip(1))
    plan = replace(EverythingConfig()(theirs), index=torch.tensor([[0, 1, -1]]))
    losses = SoftmaxConfig()(mine, AnswerLesson(plan, 3, theirs), torch.ones(1, 3))
    log_probs, probs = mine.class_logits.log_softmax(-1), logits.softmax(-1)
    expected = torch.cat([-(probs * log_probs).sum(-1)[:, :2], -log_probs[:, 2:, 3]], dim=1)  # the last is background
    torch.testing.assert_close(losses, expected)


def test_recipe__ramp_and_average_begin_as_published():
    recipe = load_recipe("coco/dense_teacher")
    assert isinstance(recipe.method, ImitationConfig)
    weight, steps = recipe.method.unlabeled_weight, recipe.engine.steps
    expected = {5000: 0.0, 5001: 0.0002, 7500: 0.5, 10_000: 1.0, 10_001: 1.0}
    assert {step: round(weight.at(Progress(step, steps)), 6) for step in expected} == expected
    momentum = recipe.method.teacher.momentum
    assert [momentum.at(Progress(step, steps)) for step in (3001, 3002, 3003)] == [0.0, 0.9996, 0.9996]
    assert not recipe.method.uses_unlabeled(Progress(5000, steps))


@pytest.fixture
def make_method(tiny_context):
    def make(detector="fcos", **fields):
        return ImitationConfig.model_validate({**DENSE_TEACHER, **fields}).build(tiny_context(type=detector))

    return make


def aligned(batch: SemiBatch) -> SemiBatch:
    """The strong view shows what the weak one does, in other colors."""
    weak = batch.unlabeled.views["weak"]
    views = {"weak": weak, "strong": replace(weak, pixels=255 - weak.pixels)}
    return SemiBatch(batch.labeled, Stream(views, dict.fromkeys(views, Targets.empty(2))))


def values(losses) -> dict[str, Tensor]:
    return losses.values(losses.denominators())


@pytest.mark.parametrize(
    ("detector", "terms"),
    [
        ("fcos", ["dense/class", "dense/box", "dense/centerness"]),
        ("retinanet", ["dense/class", "dense/box"]),
        ("dense_objectness", ["dense/class", "dense/box", "dense/objectness"]),
    ],
)
def test_imitation__teaches_every_answer_and_asks_the_host_nothing(
    make_method, semi_batch, host_questions, detector, terms
):
    method, batch = make_method(detector), aligned(semi_batch)
    method.step(batch, START)  # lays out the anchors once
    with host_questions() as asked:
        losses = method.step(batch, START).losses
        torch.stack(list(values(losses).values())).sum().backward()
    assert not asked
    assert [name for name in losses if name.startswith("unlabeled")] == [f"unlabeled/{term}" for term in terms]
    assert all(value > 0.0 for value in values(losses).values())
    assert all(weight.grad.isfinite().all() for weight in method.student.parameters())


def test_imitation__faster_rcnn_is_asked_about_the_teachers_proposals(make_method, semi_batch):
    method = make_method("faster_rcnn", region={"type": "everything"}, terms={})
    batch = aligned(semi_batch)
    theirs = method.teacher.answer(batch.unlabeled.views["weak"])
    mine = method.student.answer_about(method.student.extract(batch.unlabeled.views["strong"]), theirs)
    assert mine.by_name["roi"].candidates is theirs.by_name["roi"].candidates
    losses = method.step(batch, START).losses
    assert "unlabeled/roi/class" in losses.terms
    assert all(value.isfinite() for value in values(losses).values())


HUMBLE_TEACHER = {
    "detector": "faster_rcnn",
    "teacher": {"type": "ema", "proposals": 12},
    "region": {"type": "everything"},
    "terms": {
        "class": {"criterion": {"type": "kl"}, "normalizer": "weights"},
        "box": {"criterion": {"type": "codes"}, "normalizer": "weights"},
    },
}


def with_symmetric_images(batch: SemiBatch) -> SemiBatch:
    """Each unlabeled image is its own mirror image, and its weak and strong view are the same."""
    weak = batch.unlabeled.views["weak"]
    weak = replace(weak, pixels=weak.pixels // 2 + weak.pixels.flip(-1) // 2)
    return SemiBatch(batch.labeled, replace(batch.unlabeled, views={"weak": weak, "strong": weak}))


def test_imitation__every_valid_region_counts_and_no_other_row(make_method, semi_batch):
    """The teacher has fewer regions than it may keep, and another number in each image."""
    method = make_method(**HUMBLE_TEACHER | {"teacher": {"type": "ema", "proposals": 1000}})
    batch = aligned(semi_batch)
    valid = method.teacher.answer(batch.unlabeled.views["weak"]).last.candidates.valid
    assert valid.sum() < valid.numel()
    losses = method.step(batch, START).losses
    anchors = 2 * 64 * 64 // 4**2 + 2 * 64 * 64 // 8**2
    for stage, count in {"rpn": anchors, "roi": int(valid.sum())}.items():
        for term in ("class", "box"):
            assert losses.terms[f"unlabeled/{stage}/{term}"].denominator == count


def test_imitation__without_any_region_nothing_is_lost_and_gradients_are_zero(tiny_context, semi_batch):
    proposals = {
        "training": {"per_level": 50, "keep": 24},
        "test": {"per_level": 40, "keep": 20},
        "minimum_side": 999.0,
    }
    fields = {key: value for key, value in HUMBLE_TEACHER.items() if key != "detector"}
    config = ImitationConfig.model_validate({"type": "imitation", **fields, "flip_average": True})
    method, batch = config.build(tiny_context(proposals=proposals)), aligned(semi_batch)
    assert not method.teacher.answer(batch.unlabeled.views["weak"]).last.candidates.valid.any()
    losses = values(method.step(batch, START).losses)
    for term in ("class", "box"):
        gradients = torch.autograd.grad(
            losses[f"unlabeled/roi/{term}"], list(method.student.roi.parameters()), retain_graph=True, allow_unused=True
        )
        assert losses[f"unlabeled/roi/{term}"] == 0.0
        assert not any(gradient.any() for gradient in gradients if gradient is not None)
    torch.stack(list(losses.values())).sum().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in method.student.parameters())


def test_imitation__flip_average_asks_about_mirrored_regions(make_method, semi_batch):
    """In an image that is its own mirror image, the mirrored regions of the mirrored view are regions of the view."""
    batch = with_symmetric_images(semi_batch)
    method = make_method(**HUMBLE_TEACHER, flip_average=True)
    teacher, weak = method.teacher, batch.unlabeled.views["weak"]
    plain = teacher.answer(weak).last
    boxes = plain.candidates.boxes
    across = torch.stack([64.0 - boxes[..., 2], boxes[..., 1], 64.0 - boxes[..., 0], boxes[..., 3]], dim=-1)
    there = teacher.score_regions(teacher.network.extract(weak), replace(plain.candidates, boxes=across))
    said = 0.5 * (plain.class_probs() + there.class_probs())
    turned = there.box_codes * torch.tensor([-1.0, 1.0, 1.0, 1.0])
    apart = (0.5 * (turned + plain.box_codes) - plain.box_codes).flatten(2).norm(dim=-1)
    valid = plain.candidates.valid
    expected = {
        "unlabeled/roi/class": (said * (said / plain.class_probs()).log()).sum(dim=-1)[valid].mean(),
        "unlabeled/roi/box": apart[valid].mean(),
        "unlabeled/rpn/class": torch.tensor(0.0),  # anchors are those of the view alone
        "unlabeled/rpn/box": torch.tensor(0.0),
    }
    got = values(method.step(batch, START).losses)
    assert expected["unlabeled/roi/box"] > 1e-4
    for name, value in expected.items():
        torch.testing.assert_close(got[name].detach(), value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("flip_average", [False, True])
def test_imitation__a_student_that_equals_its_teacher_learns_nothing(make_method, semi_batch, flip_average):
    method = make_method(**HUMBLE_TEACHER, flip_average=flip_average)
    if flip_average:  # the network says the same of what is mirrored: no weight but those of the regions' biases
        for network in (method.student, method.teacher.network):
            torch.nn.init.zeros_(network.roi.first.weight)
    batch = with_symmetric_images(semi_batch)
    unlabeled = {k: v for k, v in values(method.step(batch, START).losses).items() if k.startswith("unlabeled")}
    assert len(unlabeled) == 4
    assert all(value.item() == pytest.approx(0.0, abs=1e-6) for value in unlabeled.values())
    torch.stack(list(unlabeled.values())).sum().backward()
    gradients = [weight.grad for weight in method.student.parameters() if weight.grad is not None]
    assert all(gradient.isfinite().all() and gradient.abs().max() < 1e-5 for gradient in gradients)


def test_imitation__flip_average_waits_for_the_host_once_more_than_the_detector(
    make_method, semi_batch, host_questions
):
    batch, waits = aligned(semi_batch), {}
    for flip_average in (False, True):
        method = make_method(**HUMBLE_TEACHER, flip_average=flip_average)
        method.step(batch, START)  # lays out the anchors once
        with host_questions() as asked:
            torch.stack(list(values(method.step(batch, START).losses).values())).sum().backward()
        waits[flip_average] = dict(asked)
    # Two networks propose; regions are sorted by level for the teacher, the labeled and the unlabeled images.
    assert waits[False] == {"torchvision::nms": 2, "tolist": 3}
    assert waits[True] == {"torchvision::nms": 2, "tolist": 4}


def test_weights__divide_humble_teachers_terms_by_all_that_learn():
    theirs = answers_of(
        torch.tensor([[[2.0], [-1.0], [0.0]]]).double(),
        codes=torch.tensor([[[[0.10, -0.20, 0.05, 0.30]], [[0.0, 0.1, -0.2, 0.0]], [[0.4, 0.0, 0.0, -0.3]]]]).double(),
    )
    mine = answers_of(
        torch.tensor([[[1.0], [-2.0], [0.5]]]).double(),
        codes=torch.tensor([[[[0.0, -0.10, 0.05, 0.10]], [[0.0, 0.1, 0.1, 0.4]], [[0.4, 0.0, 0.0, -0.3]]]]).double(),
    )
    plan = EverythingConfig()(theirs)
    terms = [
        value(WeightsConfig(), taught(one, mine, theirs, plan), plan, theirs) for one in (KlConfig(), CodesConfig())
    ]
    assert sum(terms) == pytest.approx(0.308539, abs=2e-6)


def test_imitation__total_loss_is_humble_teachers():
    labeled, unlabeled = (
        Losses({name: Term(torch.tensor(loss), torch.tensor(1.0))}) for name, loss in (("L_S", 1.5), ("L_U", 0.8))
    )
    beta, labeled_images, unlabeled_images = 0.5, 1, 2
    total = labeled + unlabeled * (beta * unlabeled_images / labeled_images)
    assert sum(values(total).values()).item() == pytest.approx(2.3)


@pytest.mark.parametrize("detector", ["retinanet", "fcos"])
def test_agree__with_itself_teaches_nothing(make_method, semi_batch, detector):
    method = make_method(detector, region={"type": "everything"})
    student, view = method.student, semi_batch.unlabeled.views["weak"]
    theirs = method.teacher.answer(view)
    mine = student.answer_about(student.extract(view), theirs)
    plan = {name: method.config.region(said) for name, said in theirs.by_name.items()}
    losses = values(agree(student, mine, theirs, plan, START, method.config.terms))
    box = losses.pop("dense/box")
    if detector == "retinanet":  # new distances of FCOS are 0 on some sides, and boxes without area overlap nothing
        assert box.item() == pytest.approx(0.0, abs=1e-6)
    torch.stack(list(losses.values())).sum().backward()
    assert all(weight.grad is None or weight.grad.abs().max() < 1e-6 for weight in student.parameters())


def test_imitation__while_it_weighs_nothing_the_unlabeled_images_are_not_looked_at(make_method, semi_batch):
    method = make_method(unlabeled_weight=0.0)
    batch = SemiBatch(semi_batch.labeled, None)
    assert not any(name.startswith("unlabeled") for name in method.step(batch, START).losses)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("views.unlabeled.strong.draws_as=null", "views.unlabeled.strong: the method 'imitation' compares the views"),
        ("views.unlabeled.strong.transforms=[]", "views.unlabeled.strong: the method 'imitation' compares the views"),
        (
            "method.flip_average=true",
            "`true` needs 'exact_regions', which 'fcos' does not provide, but: detector 'faster",
        ),
        ("method.terms.qualities={weight: 2.0}", "method.terms.qualities: no stage or loss term has this name"),
        (
            "detector.stages.dense.terms.centerness.criterion.of=answer",
            "'quality' needs 'other_answers', which the stage 'dense' of 'fcos' does not provide; labels do not say "
            "it, only a teacher: write it in `method.terms`",
        ),
    ],
)
def test_recipe__what_cannot_be_compared_is_refused_before_a_network_exists(override, said):
    with pytest.raises(RecipeError) as caught:
        load_recipe("dense_teacher", [override])
    assert said in str(caught.value)


def test_recipe__a_transformer_is_refused_and_regions_say_classes_by_a_softmax():
    with pytest.raises(RecipeError, match="'imitation' needs 'comparable_answers', which 'dino' does not provide"):
        load_recipe("dense_teacher", [f"detector={json.dumps(TINY_DINO)}"])
    faster_rcnn = f"detector={json.dumps(TINY_FASTER_RCNN)}"
    with pytest.raises(RecipeError, match="'focal' needs 'sigmoid', which the stage 'roi' of 'faster_rcnn' does not"):
        load_recipe("dense_teacher", [faster_rcnn])
    softmax = "method.terms.roi/class={criterion: {type: softmax}, normalizer: positives}"
    assert load_recipe("dense_teacher", [faster_rcnn, softmax]).detector.type == "faster_rcnn"

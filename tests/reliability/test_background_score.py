import pytest
import torch
from lesson import normalize

from ssodkit.detectors.learning import assign, predict_together
from ssodkit.ops.coding import BoxCoder
from ssodkit.reliability.background_score import (
    BackgroundScore,
    BackgroundScoreConfig,
    background_probability,
    indicate,
)
from ssodkit.structures.geometry import carry, carry_boxes
from ssodkit.structures.predictions import Candidates, Predictions
from ssodkit.structures.progress import Progress
from ssodkit.structures.run import Losses, Term
from ssodkit.structures.teaching import BACKGROUND, Assignment, Supervision
from ssodkit.teachers.ema import EmaTeacherConfig

STUDENT, TEACHER, IOU = (
    torch.tensor([[0.8, 0.3, 0.6]]),
    torch.tensor([[0.9, 0.7, 0.55]]),
    torch.tensor([[0.1, 0.45, 0.0]]),
)
RELIABILITY = {
    "bg_t": [0.9, 0.7, 0.55],
    "bg_s": [0.8, 0.3, 0.6],
    "pred_diff": [0.9, 0.6, 0.95],
    "iou": [0.1, 0.45, 0.0],
    "reverse_iou": [0.9, 0.55, 1.0],
    "none": [1.0, 1.0, 1.0],
}
WEIGHTS = {
    "bg_t": [0.418605, 0.325581, 0.255814],
    "bg_s": [0.470588, 0.176471, 0.352941],
    "pred_diff": [0.367347, 0.244898, 0.387755],
    "iou": [0.181818, 0.818182, 0.0],
    "reverse_iou": [0.367347, 0.224490, 0.408163],
    "none": [1 / 3, 1 / 3, 1 / 3],
}


def indicated(indicator, iou=IOU):
    return indicate(indicator, teacher=lambda: TEACHER, student=lambda: STUDENT, iou=iou)


def refuse():
    raise AssertionError("this indicator asks nobody")


@pytest.mark.parametrize("indicator", RELIABILITY)
def test_indicate__reliability(indicator):
    torch.testing.assert_close(indicated(indicator), torch.tensor([RELIABILITY[indicator]]))


@pytest.mark.parametrize("indicator", WEIGHTS)
def test_indicate__normalized_weights(indicator):
    reliability = indicated(indicator)
    assert (reliability / reliability.sum())[0].tolist() == pytest.approx(WEIGHTS[indicator], abs=5e-7)


def test_indicate__without_a_pseudo_box_iou_is_0_and_reverse_iou_1():
    assert indicated("iou", torch.zeros(1, 2)).tolist() == [[0.0, 0.0]]
    assert indicated("reverse_iou", torch.zeros(1, 2)).tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize("indicator", ["bg_s", "iou", "reverse_iou", "none"])
def test_indicate__asks_the_teacher_only_where_it_reads_the_answer(indicator):
    indicate(indicator, teacher=refuse, student=lambda: STUDENT, iou=IOU)


@pytest.mark.parametrize("indicator", ["bg_t", "iou", "reverse_iou", "none"])
def test_indicate__asks_the_student_only_where_it_reads_the_answer(indicator):
    indicate(indicator, teacher=lambda: TEACHER, student=refuse, iou=IOU)


def predictions(logits, activation):
    count = logits.shape[1]
    candidates = Candidates(torch.zeros(1, count, 4), torch.ones(1, count, dtype=torch.bool))
    return Predictions(candidates, logits, activation, torch.zeros(1, count, 1, 4), BoxCoder())


def test_background_probability__is_a_softmaxs_last_column():
    logits = torch.tensor([[[0.0, 0.0, 2.0]]])
    expected = torch.tensor([[2.0]]).exp() / (2 + torch.tensor([[2.0]]).exp())
    torch.testing.assert_close(background_probability(predictions(logits, "softmax")), expected)


def test_background_probability__under_a_sigmoid_is_what_the_best_class_leaves():
    logits = torch.tensor([[[0.0, -2.0]]])
    assert background_probability(predictions(logits, "sigmoid")).tolist() == [[0.5]]


def test_background_score__the_default_is_the_papers():
    assert BackgroundScoreConfig().indicator == "bg_t"
    assert BackgroundScoreConfig().needed == {"exact_regions"}


@pytest.mark.parametrize("indicator", ["bg_s", "iou", "reverse_iou", "none"])
def test_background_score__that_never_asks_the_teacher_needs_nothing_of_it(indicator):
    assert not BackgroundScoreConfig(indicator=indicator).needed


def class_loss(normalizer, losses, weights, index):
    """The value of Soft Teacher's class term, with the default floor of 1."""
    losses, weights = torch.tensor([losses]), torch.tensor([weights])
    sampled = torch.tensor([float(losses.shape[1])])
    assignment = Assignment(torch.tensor([index]), weights, torch.zeros_like(losses), sampled)
    parts = normalize(normalizer, losses, weights, assignment, 512)
    terms = Losses({name: Term(*part) for name, part in parts.items()})
    return sum(value.item() for value in terms.values(terms.denominators()).values())


LOSSES = [0.3, 0.7, 0.2, 1.0, 2.0, 0.05]
INDEX = [0, 1] + [BACKGROUND] * 4
WEIGHTED = [1.0, 1.0, 0.9, 0.5, 0.1, 0.99]


@pytest.mark.parametrize(
    ("normalizer", "weights", "value"),
    [("weights", WEIGHTED, 0.429733), ("two_means", WEIGHTED, 0.873293), ("weights", [1.0] * 6, 0.708333)],
    ids=["code", "paper", "unweighted"],
)
def test_class_loss__in_each_form(normalizer, weights, value):
    assert class_loss(normalizer, LOSSES, weights, INDEX) == pytest.approx(value, abs=5e-7)


def test_class_loss__normalized_background_weights():
    reliability = torch.tensor(WEIGHTED[2:])
    assert (reliability / reliability.sum()).tolist() == pytest.approx(
        [0.361446, 0.200803, 0.040161, 0.397590], abs=5e-7
    )


def test_class_loss__hardly_any_reliable_background_is_not_blown_up():
    assert class_loss("weights", [2.0, 3.0], [0.2, 0.1], [BACKGROUND] * 2) == pytest.approx(0.700000, abs=5e-7)


@pytest.fixture
def taught(tiny_context, semi_batch, make_targets):
    """A teacher and what it saw of the weak views; the student's stages, its plan by one box per image, and these."""
    context = tiny_context()
    student = context.detector.build(context)
    teacher = EmaTeacherConfig().build(student, context)
    torch.nn.init.normal_(teacher.network.roi.classify.weight)  # so that the two disagree
    weak, strong = semi_batch.unlabeled.views["weak"], semi_batch.unlabeled.views["strong"]
    targets = make_targets([[(8, 8, 30, 44, 1)], [(20, 12, 44, 50, 2)]])
    pseudo = carry(Supervision.uniform(targets, Progress(0, 10)), weak, strong)
    stages = predict_together(student, [strong], [pseudo])[0].stages
    return teacher, teacher.look(weak), stages, assign(student, stages, pseudo), pseudo


@pytest.mark.parametrize("indicator", RELIABILITY)
def test_background_score__weighs_sampled_background_alone(taught, indicator):
    teacher, seen, stages, plan, pseudo = taught
    before = plan["roi"]["class"]
    after = BackgroundScore(BackgroundScoreConfig(indicator=indicator))(teacher, seen, stages, plan, pseudo)["roi"][
        "class"
    ]
    assert (before.positive & (before.weight == 1.0)).any()
    assert torch.equal(after.weight[before.positive], before.weight[before.positive])
    assert not after.weight[before.weight == 0.0].any()
    drawn = before.background & (before.weight > 0.0)
    assert drawn.any()
    assert ((after.weight[drawn] >= 0.0) & (after.weight[drawn] <= 1.0)).all()
    assert (after.weight[drawn] == 1.0).all() == (indicator == "none")


def test_background_score__changes_the_class_term_of_the_last_stage_alone(taught):
    teacher, seen, stages, plan, pseudo = taught
    scored = BackgroundScore(BackgroundScoreConfig())(teacher, seen, stages, plan, pseudo)
    assert scored["rpn"] is plan["rpn"]
    assert scored["roi"]["box"] is plan["roi"]["box"]
    assert scored["roi"]["class"].index is plan["roi"]["class"].index


def test_background_score__is_what_the_teacher_says_in_the_weak_view(taught, semi_batch):
    teacher, seen, stages, plan, pseudo = taught
    after = BackgroundScore(BackgroundScoreConfig())(teacher, seen, stages, plan, pseudo)["roi"]["class"]
    candidates = stages.last.candidates
    unlabeled = semi_batch.unlabeled
    boxes = carry_boxes(candidates.boxes, unlabeled.views["strong"], unlabeled.views["weak"])
    torch.testing.assert_close(boxes[..., 0], 64.0 - candidates.boxes[..., 2])  # the strong view is mirrored
    answers = teacher.score_regions(seen.features, Candidates(boxes, candidates.valid))
    expected = answers.class_logits.softmax(dim=-1)[..., -1]
    drawn = after.background & (plan["roi"]["class"].weight > 0.0)
    torch.testing.assert_close(after.weight[drawn], expected[drawn])


@pytest.mark.parametrize(("indicator", "counts_fully"), [("bg_t", True), ("pred_diff", True), ("bg_s", False)])
def test_background_score__what_the_teacher_cannot_see_is_background(taught, indicator, counts_fully):
    """Moved 32 pixels to the right, the left half of the strong view shows nothing of the image."""
    teacher, seen, stages, plan, pseudo = taught
    stages.view.homography.copy_(torch.tensor([[1.0, 0.0, 32.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))
    before = plan["roi"]["class"]
    after = BackgroundScore(BackgroundScoreConfig(indicator=indicator))(teacher, seen, stages, plan, pseudo)["roi"][
        "class"
    ]
    unseen = stages.last.candidates.boxes[..., 2] <= 32.0
    drawn = before.background & (before.weight > 0.0)
    assert (drawn & unseen).any()
    assert (after.weight[drawn & unseen] == 1.0).all() == counts_fully
    assert (after.weight[drawn & ~unseen] < 1.0).all()


@pytest.mark.parametrize(
    ("indicator", "questions"), [("bg_t", 1), ("pred_diff", 1), ("bg_s", 0), ("iou", 0), ("none", 0)]
)
def test_background_score__asks_the_teacher_once_or_not_at_all(taught, indicator, questions):
    teacher, seen, stages, plan, pseudo = taught
    asked = []
    teacher.network.roi.register_forward_hook(lambda *_: asked.append(True))
    teacher.network.backbone.register_forward_hook(lambda *_: asked.extend([True] * 10))
    BackgroundScore(BackgroundScoreConfig(indicator=indicator))(teacher, seen, stages, plan, pseudo)
    assert len(asked) == questions


def test_background_score__weights_have_no_gradient(taught):
    teacher, seen, stages, plan, pseudo = taught
    for indicator in RELIABILITY:
        scored = BackgroundScore(BackgroundScoreConfig(indicator=indicator))(teacher, seen, stages, plan, pseudo)
        assert not scored["roi"]["class"].weight.requires_grad

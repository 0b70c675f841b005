import torch
from lesson import answers_of, assigned, lesson_of, normalize

from ssodkit.detectors.criteria.focal import FocalConfig
from ssodkit.detectors.criteria.giou import GiouConfig
from ssodkit.detectors.criteria.iou import IouConfig
from ssodkit.detectors.criteria.quality import QualityConfig
from ssodkit.ops.coding import EdgeCoder
from ssodkit.ops.points import centerness
from ssodkit.structures.lessons import Lesson
from ssodkit.structures.predictions import Candidates, Predictions

STRIDES = torch.tensor([16.0, 8.0, 8.0, 16.0]).double()
SAID = [(4.5, 3.0, 5.5, 4.0), (3.0, 3.0, 4.0, 5.0), (1.0, 1.0, 1.0, 1.0), (1.0, 1.0, 1.0, 1.0)]
WANTED = [(5.0, 3.625, 5.0, 3.875), (3.25, 2.75, 4.25, 4.75), (1.0, 1.0, 1.0, 1.0), (1.0, 1.0, 1.0, 1.0)]
LOGITS = [[1.2, -0.7, 0.3], [-2.0, 0.5, -1.0], [-1.5, -3.0, -2.2], [-4.0, -4.0, -4.0]]
POSITIVES = torch.tensor([[1.0, 1.0, 0.0, 0.0]]).double()


def around(distances) -> torch.Tensor:
    """Boxes at these distances, in strides, from points at (100, 100)."""
    left_top, right_bottom = (STRIDES[:, None] * torch.tensor(distances).double()).chunk(2, dim=-1)
    return torch.cat([100.0 - left_top, 100.0 + right_bottom], dim=-1)[None]


def scene() -> tuple[Predictions, Lesson, torch.Tensor]:
    """Four points, of which two learn, and the centerness of their targets."""
    own = torch.cat([100.0 - STRIDES[:, None].expand(-1, 2) / 2, 100.0 + STRIDES[:, None].expand(-1, 2) / 2], dim=-1)[
        None
    ]
    codes = EdgeCoder().encode(own, around(SAID))[:, :, None]
    logits = torch.tensor([LOGITS]).double()
    worth = {"quality": torch.tensor([[1.0, -0.2, 0.0, 0.0]]).double()}
    candidates = Candidates(own, torch.ones(1, 4, dtype=torch.bool))
    answers = Predictions(candidates, logits, "sigmoid", codes, EdgeCoder(), worth)
    lesson = lesson_of(torch.tensor([[2, 1, 3, 3]]), 3, around(WANTED))
    return answers, lesson, centerness(torch.tensor([WANTED]).double()) * POSITIVES


def test_centerness__has_the_published_numbers():
    distances = [(0.8, 0.6, 0.2, 0.4), (0.6, 0.5, 0.4, 0.6), (1.0, 2.0, 1.0, 2.0), (3.25, 2.75, 4.25, 4.75)]
    found = centerness(torch.tensor(distances).double())
    assert [round(value, 6) for value in found.tolist()] == [0.408248, 0.745356, 1.0, 0.665375]
    assert centerness(torch.tensor([[-1.0, 2.0, 3.0, 2.0], [0.0, 0.0, 0.0, 0.0]])).tolist() == [0.0, 0.0]


def test_loss__of_four_points_has_the_published_terms():
    answers, lesson, quality = scene()
    ones = torch.ones(1, 4).double()
    assignment = assigned(lesson.assignment.index, quality)
    focal = FocalConfig()(answers, lesson, ones)
    assert abs(float(focal[0, 0]) - 0.706585) < 1e-6
    total, count = normalize("positives", focal, ones, assignment)[""]
    terms = [total / count]
    for criterion, each, value in (
        (GiouConfig(), [0.185076, 0.125506], 0.160797),
        (IouConfig(), [0.198929, 0.129356], 0.170574),
    ):
        losses = criterion(answers, lesson, ones)
        assert [round(loss, 6) for loss in losses[0, :2].tolist()] == each
        total, count = normalize("quality", losses, quality, assignment)[""]
        assert round(float(total / count), 6) == value
        terms += [total / count] if criterion.type == "giou" else []
    worth = QualityConfig()(answers, lesson, ones)
    assert [round(loss, 6) for loss in worth[0, :2].tolist()] == [0.346058, 0.731214]
    total, count = normalize("positives", worth, POSITIVES, assignment)[""]
    terms.append(total / count)
    assert [round(float(term), 6) for term in terms] == [0.373866, 0.160797, 0.538636]
    assert round(float(sum(terms)), 6) == 1.073299


def test_quality__may_be_the_iou_of_the_predicted_box():
    answers, lesson, _ = scene()
    answers.box_codes.requires_grad_()
    losses = QualityConfig(of="iou")(answers, lesson, torch.ones(1, 4).double())
    wanted = torch.tensor([0.819608]).double()
    expected = torch.nn.functional.binary_cross_entropy_with_logits(torch.tensor([1.0]).double(), wanted)
    assert abs(float(losses[0, 0]) - float(expected)) < 1e-6
    assert not losses.requires_grad  # the target carries no gradient


def test_quality__of_nothing_is_empty():
    answers = answers_of(torch.zeros(2, 0, 3))
    empty = Predictions(
        answers.candidates,
        answers.class_logits,
        "sigmoid",
        answers.box_codes,
        EdgeCoder(),
        {"quality": torch.zeros(2, 0)},
    )
    lesson = lesson_of(torch.zeros(2, 0, dtype=torch.int64), 3)
    assert QualityConfig()(empty, lesson, torch.zeros(2, 0)).shape == (2, 0)


def test_iou__boxes_that_do_not_meet_have_a_finite_loss():
    boxes = torch.tensor([[[0.0, 0.0, 10.0, 10.0]]])
    goal = torch.tensor([[[50.0, 50.0, 60.0, 60.0]]])
    loss = IouConfig()(
        answers_of(torch.zeros(1, 1, 2), boxes=boxes), lesson_of(torch.tensor([[0]]), 2, goal), torch.ones(1, 1)
    )
    assert loss.isfinite().all()
    assert loss.item() > 10.0

"""Unbiased Teacher v2's numbers, worked out from its equations, and what the step does with them."""

from dataclasses import replace

import pytest
import torch
from lesson import answers_of, assigned, lesson_of
from torch import Tensor

from ssodkit.assigners.matchers.points import PointsConfig
from ssodkit.detectors.criteria.gaussian import GaussianConfig
from ssodkit.detectors.criteria.giou import GiouConfig
from ssodkit.detectors.criteria.l1 import L1Config
from ssodkit.detectors.criteria.listen import ListenConfig
from ssodkit.detectors.normalizers.draws import SampledConfig
from ssodkit.detectors.normalizers.measured import WeightsConfig
from ssodkit.ops.boxes import elementwise_iou
from ssodkit.ops.coding import EdgeCoder, SideCoder
from ssodkit.ops.points import centerness, side_distances
from ssodkit.plugins import BuildContext, PluginConfig
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

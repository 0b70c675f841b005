"""The dense detector with objectness beyond what every detector promises: published start, sizes, boxes and losses."""

import math
from dataclasses import replace

import pytest
import torch
from lesson import assigned, lesson_of, normalize
from pydantic import ValidationError
from tiny import TINY_OBJECTNESS, make_view
from torchvision_pair import read_config

from ssodkit.assigners.matchers.shapes import ShapesConfig
from ssodkit.detectors.anchors import AnchorConfig, make_anchors
from ssodkit.detectors.criteria.binary import BinaryConfig
from ssodkit.detectors.criteria.ciou import CiouConfig
from ssodkit.detectors.criteria.objectness import ObjectnessConfig
from ssodkit.detectors.dense_objectness import DenseObjectnessConfig
from ssodkit.detectors.heads.objectness import ObjectnessHeadConfig
from ssodkit.detectors.normalizers.levels import LevelMeansConfig
from ssodkit.nn.towers import DenseShape
from ssodkit.ops.boxes import complete_iou
from ssodkit.ops.coding import EdgeCoder
from ssodkit.plugins import BuildContext, load_plugins
from ssodkit.structures.predictions import Candidates, Features, Predictions
from ssodkit.structures.progress import Progress
from ssodkit.structures.teaching import Targets

ANCHORS = (((10, 13), (16, 30), (33, 23)), ((30, 61), (62, 45), (59, 119)), ((116, 90), (156, 198), (373, 326)))


def test_complete_iou__has_the_published_numbers():
    first = torch.tensor([[10, 10, 50, 60], [0, 0, 10, 10], [0, 0, 10, 20]]).double()
    second = torch.tensor([[20, 15, 60, 55], [20, 20, 30, 40], [0, 0, 20, 10]]).double()
    expected = torch.tensor([0.479951, -0.411689, 0.237082]).double()
    torch.testing.assert_close(complete_iou(first, second), expected, rtol=0.0, atol=1e-6)


def test_complete_iou__has_a_finite_gradient_for_boxes_without_area():
    boxes = torch.tensor([[5.0, 5.0, 5.0, 5.0]], requires_grad=True)
    complete_iou(boxes, torch.tensor([[0.0, 0.0, 10.0, 10.0]])).sum().backward()
    assert boxes.grad is not None
    assert boxes.grad.isfinite().all()


def four_cells() -> Predictions:
    """One level of stride 16 with 2 x 2 cells, one anchor of 20 x 20, three classes; as published."""
    said = [
        [0.2, -0.1, 0.3, 0.0, 1.0, 1.5, -2.0, -1.0],
        [0.0, 0.3, -0.2, 0.1, 0.5, -1.0, 0.5, -2.0],
        [-0.4, 0.2, 0.1, 0.4, -0.3, -1.5, -1.0, 0.0],
        [0.0, 0.0, 0.0, 0.0, -2.0, -3.0, -3.0, -3.0],
    ]
    numbers = torch.tensor([said]).double()
    middle = torch.tensor([[[8, 8], [24, 8], [8, 24], [24, 24]]]).double()
    own = torch.cat([middle - 10.0, middle + 10.0], dim=-1)
    spread = numbers[..., :4].sigmoid() * 2.0
    at, half = middle + (spread[..., :2] - 1.0) * 16.0, 0.5 * spread[..., 2:].square() * 20.0
    codes = EdgeCoder().encode(own, torch.cat([at - half, at + half], dim=-1))[:, :, None]
    candidates = Candidates(own, torch.ones(1, 4).bool(), lengths=(4,))
    return Predictions(candidates, numbers[..., 5:], "sigmoid", codes, EdgeCoder(), {"objectness": numbers[..., 4]})


def goals() -> torch.Tensor:
    """Pseudo-boxes in the middles of the first three cells."""
    middle = torch.tensor([[[8, 8], [24, 8], [8, 24], [24, 24]]]).double()
    half = torch.tensor([[[12, 10], [8, 9], [10, 12], [1, 1]]]).double()
    return torch.cat([middle - half, middle + half], dim=-1)


def test_criteria__of_four_cells_have_the_published_numbers():
    answers, lesson, ones = four_cells(), lesson_of(torch.tensor([[0, 1, 3, 3]]), 3, goals()), torch.ones(1, 4).double()
    boxes = CiouConfig()(answers, lesson, ones)
    torch.testing.assert_close(boxes[0, :2], torch.tensor([0.185778, 0.230237]).double(), rtol=0.0, atol=1e-6)
    classes = BinaryConfig(background=False)(answers, lesson, ones)
    assert abs(float(classes[0, 0]) - 0.641603) < 1e-6
    sure = ObjectnessConfig()(answers, lesson, ones)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        answers.extra["objectness"], torch.tensor([[0.814222, 0.769763, 0.0, 0.0]]).double(), reduction="none"
    )
    torch.testing.assert_close(sure, expected, rtol=0.0, atol=1e-6)
    assert [round(float(sure[0, place]), 6) for place in (0, 3)] == [0.499040, 0.126928]


def test_level_means__are_a_mean_of_each_level_with_its_balance():
    losses = torch.tensor([[1.0, 2.0, 4.0, 8.0, 16.0]])
    index = torch.tensor([[0, -1, 1, 2, -2]])
    answers = Predictions(
        Candidates(torch.zeros(1, 5, 4), torch.ones(1, 5).bool(), lengths=(2, 3)),
        torch.zeros(1, 5, 2),
        "sigmoid",
        torch.zeros(1, 5, 1, 4),
        EdgeCoder(),
    )
    lesson = lesson_of(torch.zeros(1, 5).long(), 2)
    lesson = replace(lesson, assignment=assigned(index, torch.zeros(1, 5)))
    weights = (index >= 0).float()
    parts = LevelMeansConfig(balance=(4.0, 0.5), per_class=True)(losses, weights, lesson, answers, 0)
    assert {name: (float(total), float(count)) for name, (total, count) in parts.items()} == {
        "/p0": (2.0, 1.0),
        "/p1": (3.0, 2.0),
    }
    everyone = LevelMeansConfig(of="all")(losses, (index >= -1).float(), lesson, answers, 0)
    assert [float(count) for _, count in everyone.values()] == [2.0, 2.0]
    assert normalize("positives", losses, weights, lesson.assignment)[""][1] == 3.0


def on_640() -> Predictions:
    maps = tuple(torch.zeros(1, 1, 640 // stride, 640 // stride) for stride in (8, 16, 32))
    view = make_view("a", [1])
    config = AnchorConfig.model_validate({"boxes": ANCHORS, "center": 0.5, "inside": "canvas"})
    anchors = make_anchors(config, Features(maps, (8, 16, 32), view))
    count = anchors.boxes.shape[1]
    return Predictions(anchors, torch.zeros(1, count, 3), "sigmoid", torch.zeros(1, count, 1, 4), EdgeCoder())


def test_shapes__a_box_has_the_published_cells_and_anchors():
    asked = on_640()
    assert asked.candidates.lengths == (19_200, 4_800, 1_200)
    ones = torch.ones(1, 1).bool()
    box = torch.tensor([[[255.0, 174.0, 345.0, 234.0]]])  # 90 x 60 around (300, 204)
    targets = Targets(box, torch.zeros(1, 1).long(), ones, ones.float(), ~ones)
    config = ShapesConfig()
    found = config.build(BuildContext(num_classes=3, detector=config))(asked, targets, Progress(0, 1))
    places, first = [], 0
    for length, side in zip(asked.candidates.lengths, (80, 40, 20), strict=True):
        for place in found.positive[0, first : first + length].nonzero()[:, 0].tolist():
            cell, anchor = divmod(place, 3)
            places.append((side, anchor, cell % side, cell // side))
        first += length
    fine = [(80, 2, 37, 25)]
    middle = [(40, anchor, *cell) for cell in ((18, 12), (19, 12), (18, 13)) for anchor in range(3)]
    coarse = [(20, anchor, *cell) for cell in ((9, 6), (8, 6), (9, 5)) for anchor in range(2)]
    assert sorted(places) == sorted(fine + middle + coarse)
    assert len(places) == 16


@pytest.mark.parametrize(("classes", "bias"), [(80, -4.880400), (20, -3.455791)])
def test_head__begins_as_published(classes: int, bias: float):
    torch.manual_seed(0)
    head = ObjectnessHeadConfig(layers=1, groups=1).build(DenseShape(4, (8, 16, 32), 3, classes))
    torch.testing.assert_close(head.start, torch.tensor([-6.684612, -5.298317, -3.912023]))
    bound = 1.0 / math.sqrt(4 * 9)  # of the convolution's own start, to which the numbers are added
    for level in head.levels:
        assert ((level.classify.bias - bias).abs() <= bound).all()
        assert (level.regress.bias.abs() <= bound).all()


@pytest.mark.parametrize(("shared", "times"), [(False, 3), (True, 1)])
def test_head__levels_may_share_their_weights(shared: bool, times: int):
    shape = DenseShape(4, (8, 16, 32), 3, 5)
    head = ObjectnessHeadConfig(layers=1, groups=1, shared=shared).build(shape)
    of_one_level = 2 * (4 * 4 * 9 + 8) + (4 * 15 * 9 + 15) * 2
    assert sum(parameter.numel() for parameter in head.parameters()) == times * of_one_level
    maps = [torch.randn(1, 4, side, side) for side in (4, 2, 1)]
    count = 3 * (16 + 4 + 1)
    boxes, valid = torch.tensor([0.0, 0.0, 8.0, 8.0]).expand(1, count, 4), torch.ones(1, count).bool()
    said = head(maps, Candidates(boxes, valid, stride=torch.full((1, count), 8.0)))
    assert said.extra["objectness"].shape == (1, count)
    means = [part.mean().item() for part in said.extra["objectness"].split([48, 12, 3], dim=1)]
    assert means == sorted(means)  # the coarser, the likelier that a cell has an object


def test_preset__has_as_many_weights_as_the_reconstruction():
    config = DenseObjectnessConfig.model_validate(read_config("dense_objectness", []))
    detector = config.build(BuildContext(num_classes=80, detector=config, load_weights=False))
    assert round(sum(parameter.numel() for parameter in detector.parameters()) / 1e6, 2) == 42.13


def test_step__asks_the_host_once(tiny_context, questions_of_a_step):
    context = tiny_context(type="dense_objectness")
    assert questions_of_a_step(context.detector.build(context)) == {"torchvision::nms": 1}  # the teacher's detections


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"anchors": [[[16.0, 24.0]]]}, "anchors is for 1 levels, but the pyramid has 3"),
        ({"anchors": [[[16.0, 24.0]], [[24.0, 36.0]], []]}, "every level needs equally many anchors"),
        ({"head": {"type": "objectness", "groups": 3}}, "groups is 3, which does not divide the 8 channels"),
    ],
)
def test_config__refuses_what_cannot_work(change, message: str):
    load_plugins()
    with pytest.raises(ValidationError, match=message):
        DenseObjectnessConfig.model_validate({**TINY_OBJECTNESS, **change})


def test_config__a_balance_is_of_the_pyramids_levels():
    load_plugins()
    stages = {"dense": {**TINY_OBJECTNESS["stages"]["dense"]}}
    normalizer = {"normalizer": {"type": "level_means", "balance": [4.0, 1.0]}}
    terms = stages["dense"]["terms"]
    for change in (
        {"terms": {**terms, "objectness": {**terms["objectness"], **normalizer}}},
        {"phases": [{"at": "50 %", "terms": {"objectness": normalizer}}]},
    ):
        with pytest.raises(ValidationError, match="`balance` is for 2 levels, but the pyramid has 3"):
            DenseObjectnessConfig.model_validate(
                {**TINY_OBJECTNESS, "stages": {"dense": {**stages["dense"], **change}}}
            )

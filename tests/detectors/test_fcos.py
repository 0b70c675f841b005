"""FCOS beyond what every detector promises: its published sizes, start, scores and recipe."""

import math

import pytest
import torch
from pydantic import ValidationError
from tiny import TINY_FCOS, TINY_UNSURE_FCOS, make_view
from torchvision_pair import read_config

from ssodkit.detectors.detections import find_by_level
from ssodkit.detectors.fcos import FcosConfig
from ssodkit.detectors.learning import assign, loss
from ssodkit.detectors.one_stage import OneStage
from ssodkit.detectors.rules import DenseDetectionRule
from ssodkit.ops.coding import EdgeCoder
from ssodkit.ops.points import side_distances
from ssodkit.ops.uncertainty import certainty
from ssodkit.plugins import BuildContext, load_plugins
from ssodkit.structures.predictions import Candidates, Predictions, Stages
from ssodkit.structures.progress import Progress
from ssodkit.structures.teaching import Supervision, Targets

PROGRESS = Progress(0, 1)


def build(config: FcosConfig, classes: int) -> OneStage:
    return config.build(BuildContext(num_classes=classes, detector=config, load_weights=False))


@pytest.fixture(scope="module")
def published() -> OneStage:
    return build(FcosConfig.model_validate(read_config("fcos", [])), 80)


def test_preset__has_as_many_weights_as_published(published):
    assert sum(parameter.numel() for parameter in published.head.parameters()) == 4_920_666
    pyramid = [*published.neck.lateral, *published.neck.output, *published.neck.extra]
    assert sum(parameter.numel() for module in pyramid for parameter in module.parameters()) == 3_868_672


def test_preset__begins_as_published(published):
    torch.testing.assert_close(published.head.towers.classify.bias, torch.full((80,), -4.595120))
    assert published.head.towers.scales.tolist() == [1.0] * 5


def test_preset__an_image_of_800_by_1344_has_22400_points_and_the_published_loss(published):
    shapes = [(100, 168), (50, 84), (25, 42), (13, 21), (7, 11)]
    config = published.config
    boxes = torch.tensor([[[100.0 + 30 * i, 100.0, 140.0 + 30 * i, 140.0] for i in range(20)]])
    targets = Targets(
        boxes, torch.zeros(1, 20).long(), torch.ones(1, 20).bool(), torch.ones(1, 20), torch.zeros(1, 20).bool()
    )
    own, level, stride = [], [], []
    for place, (step, (height, width)) in enumerate(zip((8, 16, 32, 64, 128), shapes, strict=True)):
        middle = torch.cartesian_prod(
            torch.arange(height) * step + step / 2, torch.arange(width) * step + step / 2
        ).flip(-1)
        own.append(torch.cat([middle - step / 2, middle + step / 2], dim=-1))
        level += [place] * len(middle)
        stride += [float(step)] * len(middle)
    assert len(level) == 22_400
    candidates = Candidates(
        torch.cat(own)[None], torch.ones(1, 22_400).bool(), torch.tensor([level]), torch.tensor([stride])
    )
    prior = torch.full((1, 22_400, 80), -math.log(99.0))
    said = Predictions(
        candidates, prior, "sigmoid", torch.zeros(1, 22_400, 1, 4), EdgeCoder(), {"quality": torch.zeros(1, 22_400)}
    )
    stages = Stages({"dense": said}, make_view("a", [1]).without_pixels())
    supervision = Supervision.uniform(targets, PROGRESS)
    plan = assign(published, stages, supervision)
    positives = int(plan["dense"]["class"].positive.sum())
    term = loss(published, stages, plan, supervision).terms["dense/class"]
    assert config.stages["dense"].terms["class"].normalizer.type == "positives"
    # Of 100 positives the published mean is 1.141889: each adds what it says too little, all what they say too loud.
    loud, quiet = 7.537_8e-7, 1.128_382
    expected = (22_400 * 80 - positives) * loud + positives * quiet
    torch.testing.assert_close(term.sum.item(), expected, rtol=1e-4, atol=0.0)
    assert abs(((22_400 * 80 - 100) * loud + 100 * quiet) / 100 - 1.141889) < 1e-4


def scored(logit: float, worth: float, rule: DenseDetectionRule) -> list[float]:
    candidates = Candidates(torch.tensor([[[0.0, 0.0, 8.0, 8.0]]]), torch.ones(1, 1).bool(), lengths=(1,))
    codes = torch.zeros(1, 1, 1, 4)
    said = Predictions(
        candidates, torch.tensor([[[logit]]]), "sigmoid", codes, EdgeCoder(), {"quality": torch.tensor([[worth]])}
    )
    found = find_by_level(said, torch.tensor([[64, 64]]), rule)
    return found.confidence[found.valid].tolist()


@pytest.mark.parametrize(("power", "score"), [(1.0, 0.419951), (0.5, 0.648036)])
def test_find__the_score_is_the_published_product(power: float, score: float):
    rule = DenseDetectionRule(rank={"class": power, "quality": power}, score=0.05)
    assert scored(0.3, 1.0, rule) == pytest.approx([score], abs=1e-6)


def test_find__the_threshold_is_on_the_class_alone():
    rule = DenseDetectionRule(rank={"class": 1.0, "quality": 1.0}, score=0.05)
    (score,) = scored(-2.9, -6.0, rule)  # class 0.0522
    assert score < 0.001
    assert scored(-3.0, 6.0, rule) == []  # class 0.0474


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stages.dense.matcher.ranges": [16.0]}, "`ranges` part 2 levels, but the pyramid has 3"),
        ({"test.rank": {"quality": 1.0}}, "a ranking needs a power of `class`"),
        ({"head.groups": 3}, "groups is 3, which does not divide the 8 channels"),
    ],
)
def test_config__refuses_what_cannot_work(change, message: str):
    load_plugins()
    config = FcosConfig.model_validate(TINY_FCOS).model_dump(mode="json")
    for path, value in change.items():
        *way, last = path.split(".")
        inner = config
        for key in way:
            inner = inner[key]
        inner[last] = value
    with pytest.raises(ValidationError, match=message):
        FcosConfig.model_validate(config)


def test_step__asks_the_host_once(tiny_context, questions_of_a_step):
    context = tiny_context(type="fcos")
    assert questions_of_a_step(context.detector.build(context)) == {"torchvision::nms": 1}  # the teacher's detections


def test_head__fresh_bins_say_their_middle_and_every_side_is_half_sure(tiny_context, make_view):
    context = tiny_context(**TINY_UNSURE_FCOS)
    detector = context.detector.build(context)
    said = detector.predict(detector.extract(make_view("a", [1]))).last
    boxes, own = said.decode(), said.candidates.boxes
    distances = side_distances(0.5 * (own[..., :2] + own[..., 2:]), boxes) / said.candidates.stride[..., None]
    torch.testing.assert_close(distances, torch.full_like(distances, 8.0), rtol=0.0, atol=0.5)
    assert distances.std() > 0.0
    torch.testing.assert_close(certainty(said.extra["uncertainty"]), torch.full_like(boxes, 0.5), rtol=0.0, atol=0.01)


def test_preset__of_unbiased_teacher_v2_has_the_published_outputs():
    head = build(FcosConfig.model_validate(read_config("fcos_unbiased_teacher_v2", [])), 80).head
    assert [head.towers.regress.out_channels, head.towers.doubt.out_channels] == [4 * 17, 4]
    assert head.towers.doubt.weight.std().item() == pytest.approx(0.0001, rel=0.05)
    assert head.towers.doubt.bias.tolist() == [0.0] * 4

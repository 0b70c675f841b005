"""The preset `retinanet_torchvision` against torchvision itself: same weights, same answers, same losses."""

import inspect
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet as TheirDetector
from torchvision.models.detection import retinanet_resnet50_fpn
from torchvision.models.detection.image_list import ImageList

from ssodkit.detectors.learning import assign, loss
from ssodkit.detectors.retinanet import RetinaNet, RetinaNetConfig
from ssodkit.ops.boxes import has_area
from ssodkit.plugins import BuildContext, load_plugins
from ssodkit.recipe.merge import read_tree
from ssodkit.structures.predictions import Features
from ssodkit.structures.progress import Progress
from ssodkit.structures.teaching import Assignment, Supervision, Targets
from ssodkit.structures.views import View

RECIPES = Path(__file__).parents[2] / "recipes"
CLASSES = 4
PER_LEVEL = 60
SIZES = [(128, 128), (96, 120)]
LOSS_NAMES = {"dense/class": "classification", "dense/box": "bbox_regression"}


@dataclass(frozen=True)
class Pair:
    """Both detectors with the same weights, and both forms of the same two images with their boxes."""

    ours: RetinaNet
    theirs: TheirDetector
    view: View
    images: ImageList
    targets: Targets
    their_targets: list[dict[str, Tensor]]

    def features(self) -> tuple[Features, list[Tensor]]:
        """The pyramid of theirs, in both forms."""
        maps: OrderedDict[str, Tensor] = self.theirs.backbone(self.images.tensors)
        levels = list(maps.values())
        return Features(tuple(levels), (8, 16, 32, 64, 128), self.view.without_pixels()), levels

    def their_losses(self, maps: list[Tensor]) -> dict[str, Tensor]:
        anchors = self.theirs.anchor_generator(self.images, maps)
        return self.theirs.compute_loss(self.their_targets, self.theirs.head(maps), anchors)

    def their_detections(self, maps: list[Tensor]) -> list[dict[str, Tensor]]:
        lengths = [level.shape[-2] * level.shape[-1] * 9 for level in maps]
        answers = {name: list(part.split(lengths, dim=1)) for name, part in self.theirs.head(maps).items()}
        anchors = [list(boxes.split(lengths)) for boxes in self.theirs.anchor_generator(self.images, maps)]
        return self.theirs.postprocess_detections(answers, anchors, SIZES)

    @property
    def supervision(self) -> Supervision:
        return Supervision.uniform(self.targets, Progress(0, 1))

    def plan(self, features: Features) -> Assignment:
        return assign(self.ours, self.ours.predict(features), self.supervision)["dense"]["class"]


def make_pair(dtype: torch.dtype) -> Pair:
    torch.manual_seed(0)
    theirs = retinanet_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=CLASSES, topk_candidates=PER_LEVEL, detections_per_img=100
    )
    spread_answers(theirs)
    config = make_config([f"detector.test.per_level={PER_LEVEL}", "detector.test.at_most=100"])
    ours = config.build(BuildContext(num_classes=CLASSES, detector=config, load_weights=False))
    copy_weights(theirs, ours)
    theirs.to(dtype).eval()
    ours.to(dtype).eval()

    pixels = torch.zeros(2, 3, 128, 128, dtype=torch.uint8)
    for row, (height, width) in enumerate(SIZES):
        pixels[row, :, :height, :width] = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
    view = View(pixels, torch.tensor(SIZES), torch.eye(3).repeat(2, 1, 1), torch.arange(2), torch.tensor([11, 12]))
    crops = [pixels[row, :, :height, :width].to(dtype) / 255 for row, (height, width) in enumerate(SIZES)]
    canvas = theirs.transform.batch_images([theirs.transform.normalize(crop) for crop in crops], size_divisible=32)
    boxes = torch.tensor(
        [
            [[8.0, 10.0, 60.0, 70.0], [40.0, 30.0, 110.0, 120.0], [70.0, 5.0, 100.0, 25.0]],
            [[20.0, 20.0, 52.0, 50.0], [30.0, 40.0, 115.0, 90.0], [0.0, 0.0, 0.0, 0.0]],
        ],
        dtype=dtype,
    )
    labels = torch.tensor([[0, 3, 1], [2, 1, 0]])
    valid = torch.tensor([[True, True, True], [True, True, False]])
    targets = Targets(boxes, labels, valid, valid.to(dtype), torch.zeros_like(valid))
    their_targets = [{"boxes": boxes[row][valid[row]], "labels": labels[row][valid[row]]} for row in range(2)]
    return Pair(ours, theirs, view, ImageList(canvas, SIZES), targets, their_targets)


def spread_answers(theirs: TheirDetector) -> None:
    """Random weights under which scores and boxes differ from place to place; those of a fresh network hardly do."""
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.3, 0.6)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    classes, boxes = theirs.head.classification_head, theirs.head.regression_head
    for layer, std in (
        *((module, 0.03) for tower in (classes.conv, boxes.conv) for module in tower.modules()),
        (classes.cls_logits, 0.06),
        (boxes.bbox_reg, 0.008),
    ):
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, std=std)
            nn.init.normal_(layer.bias, std=0.1)
    nn.init.constant_(classes.cls_logits.bias, -2.0)


def make_config(overrides: list[str]) -> RetinaNetConfig:
    load_plugins()
    tree = read_tree(RECIPES / "bases/detectors/retinanet_torchvision.yaml", overrides)
    return RetinaNetConfig.model_validate(tree.plain["detector"])


def copy_weights(theirs: TheirDetector, ours: RetinaNet) -> None:
    ours.backbone.network.load_state_dict(theirs.backbone.body.state_dict())
    fpn, classes, boxes = theirs.backbone.fpn, theirs.head.classification_head, theirs.head.regression_head
    for level in range(3):
        ours.neck.lateral[level].load_state_dict(fpn.inner_blocks[level][0].state_dict())
        ours.neck.output[level].load_state_dict(fpn.layer_blocks[level][0].state_dict())
    for extra, name in zip(ours.neck.extra, ("p6", "p7"), strict=True):
        extra.load_state_dict(getattr(fpn.extra_blocks, name).state_dict())
    towers = ours.head.towers
    for layers, tower in ((towers.class_layers, classes.conv), (towers.box_layers, boxes.conv)):
        for layer, other in zip(layers, tower, strict=True):
            layer.convolution.load_state_dict(other[0].state_dict())
    towers.classify.load_state_dict(classes.cls_logits.state_dict())
    towers.regress.load_state_dict(boxes.bbox_reg.state_dict())
    ours.backbone.mean = torch.tensor(theirs.transform.image_mean, dtype=torch.float64)
    ours.backbone.std = torch.tensor(theirs.transform.image_std, dtype=torch.float64)


@pytest.fixture(scope="module")
def exact() -> Pair:
    return make_pair(torch.float64)


@pytest.fixture(scope="module")
def single() -> Pair:
    return make_pair(torch.float32)


@pytest.fixture(params=["exact", "single"])
def case(request: pytest.FixtureRequest) -> tuple[Pair, Features, list[Tensor], dict[str, float]]:
    """A pair in float64 or fp32, with their pyramid in both forms, and how near the answers must be."""
    pair: Pair = request.getfixturevalue(request.param)
    near = {"rtol": 1e-8, "atol": 1e-8} if request.param == "exact" else {"rtol": 1e-4, "atol": 1e-4}
    with torch.no_grad():
        return pair, *pair.features(), near


def test_preset__has_torchvisions_numbers():
    theirs = {
        name: parameter.default
        for name, parameter in inspect.signature(TheirDetector.__init__).parameters.items()
        if isinstance(parameter.default, int | float)
    }
    config = make_config([])
    matcher = config.stages["dense"].matcher
    assert {
        "score_thresh": config.test.score,
        "nms_thresh": config.test.nms,
        "detections_per_img": config.test.at_most,
        "fg_iou_thresh": matcher.positive,
        "bg_iou_thresh": matcher.negative,
        "topk_candidates": config.test.per_level,
    }.items() <= theirs.items()


def test_extract__equals_torchvision(exact: Pair):
    with torch.no_grad():
        ours, (_, theirs) = exact.ours.extract(exact.view), exact.features()
    assert ours.strides == (8, 16, 32, 64, 128)
    assert len(ours.maps) == 5
    for level, their_level in zip(ours.maps, theirs, strict=True):
        torch.testing.assert_close(level, their_level, rtol=1e-8, atol=1e-8)
        assert level.std() > 0.05  # not all alike


def test_detect__finds_what_torchvision_finds(case):
    pair, features, maps, near = case
    with torch.no_grad():
        theirs = pair.their_detections(maps)
        ours = pair.ours.detect(pair.ours.predict(features))
    for row, found in enumerate(theirs):
        valid, stays = ours.valid[row], has_area(found["boxes"])  # theirs finds boxes in the padding, without area
        found = {name: part[stays] for name, part in found.items()}
        assert valid.sum() == len(found["boxes"]) > 20
        assert ours.labels[row][valid].tolist() == found["labels"].tolist()
        torch.testing.assert_close(ours.boxes[row][valid], found["boxes"], **near)
        torch.testing.assert_close(ours.confidence[row][valid], found["scores"], **near)
    assert len(ours.labels.unique()) == CLASSES


def test_loss__has_torchvisions_two_terms(case):
    pair, features, maps, near = case
    theirs = pair.their_losses(maps)
    with torch.no_grad():
        stages = pair.ours.predict(features, pair.supervision, proposals="training")
        losses = loss(pair.ours, stages, assign(pair.ours, stages, pair.supervision), pair.supervision)
        ours = losses.values(losses.denominators())
    plan = pair.plan(features)
    assert (plan.positive.sum(dim=1) >= 5).all()
    assert len(plan.index.unique()) >= 4  # several targets, background, and what is ignored
    assert list(ours) == list(LOSS_NAMES)
    for name, their_name in LOSS_NAMES.items():
        torch.testing.assert_close(ours[name], theirs[their_name], **near)
        assert ours[name] > 1e-3


def test_loss__of_an_image_without_objects_is_torchvisions(exact: Pair):
    with torch.no_grad():
        features, maps = exact.features()
        nothing = [
            {name: part[:row] for name, part in target.items()} for row, target in enumerate(exact.their_targets)
        ]
        keep = torch.tensor([[False, False, False], [True, False, False]])
        taught = Supervision.uniform(exact.targets.where(keep), Progress(0, 1))
        anchors = exact.theirs.anchor_generator(exact.images, maps)
        theirs = exact.theirs.compute_loss(nothing, exact.theirs.head(maps), anchors)
        stages = exact.ours.predict(features, taught)
        losses = loss(exact.ours, stages, assign(exact.ours, stages, taught), taught)
    ours = losses.values(losses.denominators())
    for name, their_name in LOSS_NAMES.items():
        torch.testing.assert_close(ours[name], theirs[their_name], rtol=1e-8, atol=1e-8)


def test_loss__has_torchvisions_gradients(exact: Pair):
    maps = list(exact.theirs.backbone(exact.images.tensors).values())
    theirs = sum(exact.their_losses(maps).values())
    stages = exact.ours.predict(exact.ours.extract(exact.view))
    losses = loss(exact.ours, stages, assign(exact.ours, stages, exact.supervision), exact.supervision)
    ours = sum(losses.values(losses.denominators()).values())
    head = exact.theirs.head
    pairs = {
        "stage 4": (exact.ours.backbone.network.layer4[2].conv3, exact.theirs.backbone.body.layer4[2].conv3),
        "pyramid": (exact.ours.neck.lateral[0], exact.theirs.backbone.fpn.inner_blocks[0][0]),
        "P7": (exact.ours.neck.extra[1], exact.theirs.backbone.fpn.extra_blocks.p7),
        "class tower": (exact.ours.head.towers.class_layers[0].convolution, head.classification_head.conv[0][0]),
        "box tower": (exact.ours.head.towers.box_layers[0].convolution, head.regression_head.conv[0][0]),
        "codes": (exact.ours.head.towers.regress, head.regression_head.bbox_reg),
    }
    our_gradients = torch.autograd.grad(ours, [mine.weight for mine, _ in pairs.values()])
    their_gradients = torch.autograd.grad(theirs, [other.weight for _, other in pairs.values()])
    for name, mine, other in zip(pairs, our_gradients, their_gradients, strict=True):
        near = {"rtol": 1e-8, "atol": 1e-8 * other.abs().max().item()}
        torch.testing.assert_close(mine, other, **near, msg=lambda text, name=name: f"{name}: {text}")
        assert mine.abs().max() > 1e-7, name

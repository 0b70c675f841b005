"""The preset `fcos_torchvision` against torchvision itself: same weights, same answers, same losses."""

import inspect
from collections import OrderedDict
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS as TheirDetector
from torchvision.models.detection import fcos_resnet50_fpn
from torchvision_pair import (
    CLASSES,
    NEAR,
    SIZES,
    Images,
    check_detections,
    check_gradients,
    check_pyramid,
    copy_features,
    make_images,
    read_config,
    spread_layer,
    spread_norms,
)

from ssodkit.detectors.fcos import FcosConfig
from ssodkit.detectors.learning import assign, loss
from ssodkit.detectors.one_stage import OneStage
from ssodkit.ops.boxes import has_area
from ssodkit.plugins import BuildContext
from ssodkit.structures.predictions import Features
from ssodkit.structures.teaching import Assignment

PER_LEVEL = 60
LOSS_NAMES = {"dense/class": "classification", "dense/box": "bbox_regression", "dense/centerness": "bbox_ctrness"}


@dataclass(frozen=True)
class Pair:
    """Both detectors with the same weights, and the images."""

    ours: OneStage
    theirs: TheirDetector
    images: Images

    def features(self) -> tuple[Features, list[Tensor]]:
        """The pyramid of theirs, in both forms."""
        maps: OrderedDict[str, Tensor] = self.theirs.backbone(self.images.canvas.tensors)
        levels = list(maps.values())
        return Features(tuple(levels), (8, 16, 32, 64, 128), self.images.view.without_pixels()), levels

    def their_losses(self, maps: list[Tensor]) -> dict[str, Tensor]:
        anchors = self.theirs.anchor_generator(self.images.canvas, maps)
        lengths = [level.shape[-2] * level.shape[-1] for level in maps]
        return self.theirs.compute_loss(self.images.their_targets, self.theirs.head(maps), anchors, lengths)

    def their_detections(self, maps: list[Tensor]) -> list[dict[str, Tensor]]:
        lengths = [level.shape[-2] * level.shape[-1] for level in maps]
        answers = {name: list(part.split(lengths, dim=1)) for name, part in self.theirs.head(maps).items()}
        anchors = [list(boxes.split(lengths)) for boxes in self.theirs.anchor_generator(self.images.canvas, maps)]
        return self.theirs.postprocess_detections(answers, anchors, SIZES)

    def plan(self, features: Features) -> Assignment:
        return assign(self.ours, self.ours.predict(features), self.images.supervision)["dense"]["class"]


def make_pair(dtype: torch.dtype) -> Pair:
    torch.manual_seed(0)
    theirs = fcos_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=CLASSES,
        topk_candidates=PER_LEVEL,
        detections_per_img=300,
        score_thresh=0.0,
    )
    spread_answers(theirs)
    config = make_config(
        [f"detector.test.per_level={PER_LEVEL}", "detector.test.score=0.0", "detector.test.at_most=300"]
    )
    ours = config.build(BuildContext(num_classes=CLASSES, detector=config, load_weights=False))
    copy_weights(theirs, ours)
    theirs.to(dtype).eval()
    ours.to(dtype).eval()
    return Pair(ours, theirs, make_images(theirs.transform, dtype, first_label=0))


def spread_answers(theirs: TheirDetector) -> None:
    """Random weights under which scores and boxes differ from place to place; those of a fresh network hardly do."""
    spread_norms(theirs)
    classes, boxes = theirs.head.classification_head, theirs.head.regression_head
    for layer, std in (
        *((module, 0.03) for tower in (classes.conv, boxes.conv) for module in tower.modules()),
        (classes.cls_logits, 0.06),
        (boxes.bbox_reg, 0.008),
        (boxes.bbox_ctrness, 0.06),
    ):
        if isinstance(layer, nn.Conv2d):
            spread_layer(layer, std)
    nn.init.constant_(classes.cls_logits.bias, -2.0)
    nn.init.constant_(boxes.bbox_reg.bias, 1.5)


def make_config(overrides: list[str]) -> FcosConfig:
    return FcosConfig.model_validate(read_config("fcos_torchvision", overrides))


def copy_weights(theirs: TheirDetector, ours: OneStage) -> None:
    copy_features(theirs, ours, levels=3)
    fpn, classes, boxes = theirs.backbone.fpn, theirs.head.classification_head, theirs.head.regression_head
    for extra, name in zip(ours.neck.extra, ("p6", "p7"), strict=True):
        extra.load_state_dict(getattr(fpn.extra_blocks, name).state_dict())
    towers = ours.head.towers
    for layers, tower in ((towers.class_layers, classes.conv), (towers.box_layers, boxes.conv)):
        for place, layer in enumerate(layers):
            layer.convolution.load_state_dict(tower[3 * place].state_dict())
            layer.norm.load_state_dict(tower[3 * place + 1].state_dict())
    towers.classify.load_state_dict(classes.cls_logits.state_dict())
    towers.regress.load_state_dict(boxes.bbox_reg.state_dict())
    ours.head.quality.load_state_dict(boxes.bbox_ctrness.state_dict())


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
    with torch.no_grad():
        return pair, *pair.features(), NEAR[torch.float64 if request.param == "exact" else torch.float32]


def test_preset__has_torchvisions_numbers():
    theirs = {
        name: parameter.default
        for name, parameter in inspect.signature(TheirDetector.__init__).parameters.items()
        if isinstance(parameter.default, int | float)
    }
    config = make_config([])
    assert {
        "nms_thresh": config.test.nms,
        "detections_per_img": config.test.at_most,
        "center_sampling_radius": config.stages["dense"].matcher.radius,
        "topk_candidates": config.test.per_level,
    }.items() <= theirs.items()
    assert (config.test.score, config.test.score_of) == (theirs["score_thresh"], "rank")


def test_extract__equals_torchvision(exact: Pair):
    with torch.no_grad():
        ours, (_, theirs) = exact.ours.extract(exact.images.view), exact.features()
    assert ours.strides == (8, 16, 32, 64, 128)
    check_pyramid(ours.maps, theirs)


def test_detect__finds_what_torchvision_finds(case):
    pair, features, maps, near = case
    with torch.no_grad():
        theirs = pair.their_detections(maps)
        ours = pair.ours.detect(pair.ours.predict(features))
    # Theirs finds boxes in the padding, too, which have no area.
    theirs = [{name: part[has_area(found["boxes"])] for name, part in found.items()} for found in theirs]
    check_detections(ours, theirs, 0, near)


def test_loss__has_torchvisions_three_terms(case):
    pair, features, maps, near = case
    theirs = pair.their_losses(maps)
    with torch.no_grad():
        stages = pair.ours.predict(features, pair.images.supervision, proposals="training")
        losses = loss(pair.ours, stages, assign(pair.ours, stages, pair.images.supervision), pair.images.supervision)
        ours = losses.values(losses.denominators())
    plan = pair.plan(features)
    assert (plan.positive.sum(dim=1) >= 5).all()
    assert len(plan.index.unique()) >= 4  # several targets and background
    assert list(ours) == list(LOSS_NAMES)
    for name, their_name in LOSS_NAMES.items():
        torch.testing.assert_close(ours[name], theirs[their_name], **near)
        assert ours[name] > 1e-3


def test_loss__has_torchvisions_gradients(exact: Pair):
    maps = list(exact.theirs.backbone(exact.images.canvas.tensors).values())
    theirs = sum(exact.their_losses(maps).values())
    stages = exact.ours.predict(exact.ours.extract(exact.images.view))
    losses = loss(exact.ours, stages, assign(exact.ours, stages, exact.images.supervision), exact.images.supervision)
    ours = sum(losses.values(losses.denominators()).values())
    head = exact.theirs.head
    layers = {
        "stage 4": (exact.ours.backbone.network.layer4[2].conv3, exact.theirs.backbone.body.layer4[2].conv3),
        "pyramid": (exact.ours.neck.lateral[0], exact.theirs.backbone.fpn.inner_blocks[0][0]),
        "P7": (exact.ours.neck.extra[1], exact.theirs.backbone.fpn.extra_blocks.p7),
        "class tower": (exact.ours.head.towers.class_layers[0].convolution, head.classification_head.conv[0]),
        "box tower": (exact.ours.head.towers.box_layers[0].convolution, head.regression_head.conv[0]),
        "codes": (exact.ours.head.towers.regress, head.regression_head.bbox_reg),
        "centerness": (exact.ours.head.quality, head.regression_head.bbox_ctrness),
    }
    check_gradients(ours, theirs, layers, least=1e-7)

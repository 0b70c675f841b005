"""`retinanet_torchvision`, its `_v2`, `fcos_torchvision` against torchvision itself: same weights, answers, losses."""

import inspect
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import (
    FCOS,
    RetinaNet,
    fcos_resnet50_fpn,
    retinanet_resnet50_fpn,
    retinanet_resnet50_fpn_v2,
)
from torchvision_pair import (
    CLASSES,
    NEAR,
    SIZES,
    Images,
    check_detections,
    check_gradients,
    check_pyramid,
    copy_weights,
    make_images,
    read_config,
    spread_layer,
    spread_norms,
)

from ssodkit.detectors.fcos import FcosConfig
from ssodkit.detectors.learning import assign, loss
from ssodkit.detectors.one_stage import OneStage, OneStageConfig
from ssodkit.detectors.retinanet import RetinaNetConfig
from ssodkit.ops.boxes import has_area
from ssodkit.plugins import BuildContext
from ssodkit.structures.predictions import Features
from ssodkit.structures.progress import Progress
from ssodkit.structures.teaching import Supervision

PER_LEVEL = 60
AT_MOST = 300


def numbers_of_retinanet(config: OneStageConfig) -> dict[str, Any]:
    matcher = config.stages["dense"].matcher
    return {"score_thresh": config.test.score, "fg_iou_thresh": matcher.positive, "bg_iou_thresh": matcher.negative}


def numbers_of_fcos(config: OneStageConfig) -> dict[str, Any]:
    assert config.test.score_of == "rank"
    return {"score_thresh": config.test.score, "center_sampling_radius": config.stages["dense"].matcher.radius}


@dataclass(frozen=True)
class Case:
    """One of torchvision's detectors, and ours of the same kind."""

    preset: str
    config: type[OneStageConfig]
    theirs: type[nn.Module]
    make_theirs: Callable[..., nn.Module]
    per_cell: int
    numbers: Callable[[OneStageConfig], dict[str, Any]]
    losses: Mapping[str, str]
    outputs: Mapping[str, float]
    """Further output layers of their box head, and how far their random weights are spread."""


TWO = {"dense/class": "classification", "dense/box": "bbox_regression"}
CASES = {
    "retinanet": Case(
        "retinanet_torchvision", RetinaNetConfig, RetinaNet, retinanet_resnet50_fpn, 9, numbers_of_retinanet, TWO, {}
    ),
    "retinanet_v2": Case(
        "retinanet_torchvision_v2",
        RetinaNetConfig,
        RetinaNet,
        retinanet_resnet50_fpn_v2,
        9,
        numbers_of_retinanet,
        TWO,
        {},
    ),
    "fcos": Case(
        "fcos_torchvision",
        FcosConfig,
        FCOS,
        fcos_resnet50_fpn,
        1,
        numbers_of_fcos,
        {**TWO, "dense/centerness": "bbox_ctrness"},
        {"bbox_ctrness": 0.06},
    ),
}


@dataclass(frozen=True)
class Pair:
    """Both detectors with the same weights, and the images."""

    case: Case
    ours: OneStage
    theirs: nn.Module
    images: Images

    def features(self) -> tuple[Features, list[Tensor]]:
        """The pyramid of theirs, in both forms."""
        maps: OrderedDict[str, Tensor] = self.theirs.backbone(self.images.canvas.tensors)
        levels = list(maps.values())
        return Features(tuple(levels), (8, 16, 32, 64, 128), self.images.view.without_pixels()), levels

    def lengths(self, maps: list[Tensor]) -> list[int]:
        return [level.shape[-2] * level.shape[-1] * self.case.per_cell for level in maps]

    def their_losses(self, maps: list[Tensor], targets: list[dict[str, Tensor]] | None = None) -> dict[str, Tensor]:
        anchors = self.theirs.anchor_generator(self.images.canvas, maps)
        lengths = [self.lengths(maps)] if self.case.theirs is FCOS else []
        return self.theirs.compute_loss(targets or self.images.their_targets, self.theirs.head(maps), anchors, *lengths)

    def their_detections(self, maps: list[Tensor]) -> list[dict[str, Tensor]]:
        lengths = self.lengths(maps)
        answers = {name: list(part.split(lengths, dim=1)) for name, part in self.theirs.head(maps).items()}
        anchors = [list(boxes.split(lengths)) for boxes in self.theirs.anchor_generator(self.images.canvas, maps)]
        return self.theirs.postprocess_detections(answers, anchors, SIZES)

    def our_losses(self, features: Features, taught: Supervision) -> dict[str, Tensor]:
        stages = self.ours.predict(features, taught, proposals="training")
        losses = loss(self.ours, stages, assign(self.ours, stages, taught), taught)
        return losses.values(losses.denominators())


@cache
def make_pair(name: str, dtype: torch.dtype) -> Pair:
    torch.manual_seed(0)
    case = CASES[name]
    theirs = case.make_theirs(
        weights=None,
        weights_backbone=None,
        num_classes=CLASSES,
        topk_candidates=PER_LEVEL,
        detections_per_img=AT_MOST,
        score_thresh=0.05,
    )
    spread_answers(case, theirs)
    config = make_config(name, [f"detector.test={{per_level: {PER_LEVEL}, at_most: {AT_MOST}, score: 0.05}}"])
    ours = config.build(BuildContext(num_classes=CLASSES, detector=config, load_weights=False))
    copy_weights(theirs, ours)
    theirs.to(dtype).eval()
    ours.to(dtype).eval()
    return Pair(case, ours, theirs, make_images(theirs.transform, dtype, first_label=0))


def spread_answers(case: Case, theirs: nn.Module) -> None:
    """Random weights under which scores and boxes differ from place to place; those of a fresh network hardly do."""
    spread_norms(theirs)
    classes, boxes = theirs.head.classification_head, theirs.head.regression_head
    for layer, std in (
        *((module, 0.03) for tower in (classes.conv, boxes.conv) for module in tower.modules()),
        (classes.cls_logits, 0.06),
        (boxes.bbox_reg, 0.008),
        *((getattr(boxes, name), std) for name, std in case.outputs.items()),
    ):
        if isinstance(layer, nn.Conv2d):
            spread_layer(layer, std)
    nn.init.constant_(classes.cls_logits.bias, -2.0)
    if case.theirs is FCOS:
        nn.init.constant_(boxes.bbox_reg.bias, 1.5)  # distances, in strides


def make_config(name: str, overrides: list[str]) -> OneStageConfig:
    return CASES[name].config.model_validate(read_config(CASES[name].preset, overrides))


def convolutions(tower: nn.Module) -> list[nn.Module]:
    return [module for module in tower.modules() if isinstance(module, nn.Conv2d)]


@pytest.fixture(params=CASES)
def exact(request: pytest.FixtureRequest) -> Pair:
    return make_pair(request.param, torch.float64)


@pytest.fixture(params=[torch.float64, torch.float32], ids=["exact", "single"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, dtype: torch.dtype) -> tuple[Pair, Features, list[Tensor], dict[str, float]]:
    """A pair in float64 or fp32, with their pyramid in both forms, and how near the answers must be."""
    pair = make_pair(request.param, dtype)
    with torch.no_grad():
        return pair, *pair.features(), NEAR[dtype]


@pytest.mark.parametrize("name", CASES)
def test_preset__has_torchvisions_numbers(name: str):
    theirs = {
        name: parameter.default
        for name, parameter in inspect.signature(CASES[name].theirs.__init__).parameters.items()
        if isinstance(parameter.default, int | float)
    }
    config = make_config(name, [])
    shared = {
        "nms_thresh": config.test.nms,
        "detections_per_img": config.test.at_most,
        "topk_candidates": config.test.per_level,
    }
    assert (shared | CASES[name].numbers(config)).items() <= theirs.items()


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


def test_loss__has_torchvisions_terms(case):
    pair, features, maps, near = case
    with torch.no_grad():
        theirs, ours = pair.their_losses(maps), pair.our_losses(features, pair.images.supervision)
        plan = assign(pair.ours, pair.ours.predict(features), pair.images.supervision)["dense"]["class"]
    assert (plan.positive.sum(dim=1) >= 5).all()
    assert len(plan.index.unique()) >= 4  # several targets, background, and what is ignored, if anything is
    assert list(ours) == list(pair.case.losses)
    for name, their_name in pair.case.losses.items():
        torch.testing.assert_close(ours[name], theirs[their_name], **near)
        assert ours[name] > 1e-3


def test_loss__of_an_image_without_objects_is_torchvisions(exact: Pair):
    with torch.no_grad():
        features, maps = exact.features()
        nothing = [
            {name: part[:row] for name, part in target.items()} for row, target in enumerate(exact.images.their_targets)
        ]
        keep = torch.tensor([[False, False, False], [True, False, False]])
        taught = Supervision.uniform(exact.images.targets.where(keep), Progress(0, 1))
        theirs, ours = exact.their_losses(maps, nothing), exact.our_losses(features, taught)
    for name, their_name in exact.case.losses.items():
        torch.testing.assert_close(ours[name], theirs[their_name], rtol=1e-8, atol=1e-8)


def test_loss__has_torchvisions_gradients(exact: Pair):
    maps = list(exact.theirs.backbone(exact.images.canvas.tensors).values())
    theirs = sum(exact.their_losses(maps).values())
    ours = sum(exact.our_losses(exact.ours.extract(exact.images.view), exact.images.supervision).values())
    towers, head = exact.ours.head.towers, exact.theirs.head
    classes, boxes = convolutions(head.classification_head.conv)[0], convolutions(head.regression_head.conv)[0]
    layers = {
        "stage 4": (exact.ours.backbone.network.layer4[2].conv3, exact.theirs.backbone.body.layer4[2].conv3),
        "pyramid": (exact.ours.neck.lateral[0], exact.theirs.backbone.fpn.inner_blocks[0][0]),
        "P7": (exact.ours.neck.extra[1], exact.theirs.backbone.fpn.extra_blocks.p7),
        "class tower": (towers.class_layers[0].convolution, classes),
        "box tower": (towers.box_layers[0].convolution, boxes),
        "codes": (towers.regress, head.regression_head.bbox_reg),
    }
    if exact.case.theirs is FCOS:
        layers["centerness"] = (exact.ours.head.quality, head.regression_head.bbox_ctrness)
    check_gradients(ours, theirs, layers, least=1e-7)

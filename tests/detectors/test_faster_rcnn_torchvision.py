"""The presets `faster_rcnn_torchvision` and its `_v2` against torchvision itself: same weights, answers and losses."""

import inspect
from collections import OrderedDict
from dataclasses import dataclass
from functools import cache

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN as TheirDetector
from torchvision.models.detection import fasterrcnn_resnet50_fpn, fasterrcnn_resnet50_fpn_v2
from torchvision.models.detection.rpn import concat_box_prediction_layers
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

from ssodkit.detectors.faster_rcnn import FasterRcnn, FasterRcnnConfig
from ssodkit.detectors.learning import assign, loss
from ssodkit.plugins import BuildContext
from ssodkit.structures.predictions import Features

EVERYTHING = 10**6
"""A sample so large that all candidates are taken on both sides."""
PRESETS = {
    "faster_rcnn_torchvision": fasterrcnn_resnet50_fpn,
    "faster_rcnn_torchvision_v2": fasterrcnn_resnet50_fpn_v2,
}
LOSS_NAMES = {
    "rpn/class": "loss_objectness",
    "rpn/box": "loss_rpn_box_reg",
    "roi/class": "loss_classifier",
    "roi/box": "loss_box_reg",
}


@dataclass(frozen=True)
class Pair:
    """Both detectors with the same weights, and the images."""

    ours: FasterRcnn
    theirs: TheirDetector
    images: Images

    def features(self) -> tuple[Features, "OrderedDict[str, Tensor]"]:
        """The pyramid of theirs, in both forms."""
        maps = self.theirs.backbone(self.images.canvas.tensors)
        return Features(tuple(maps.values()), (4, 8, 16, 32, 64), self.images.view.without_pixels()), maps

    def their_losses(self, maps: "OrderedDict[str, Tensor]") -> dict[str, Tensor]:
        """Their four losses on `maps`, the first from labels of our dtype: their own, in fp32, would round it."""
        rpn, levels = training(self.theirs.rpn), list(maps.values())
        canvas, their_targets = self.images.canvas, self.images.their_targets
        proposals, _ = rpn(canvas, maps, their_targets)
        logits, codes = concat_box_prediction_layers(*rpn.head(levels))
        anchors = rpn.anchor_generator(canvas, levels)
        labels, boxes = rpn.assign_targets_to_anchors(anchors, their_targets)
        labels = [label.to(codes.dtype) for label in labels]
        class_loss, box_loss = rpn.compute_loss(logits, codes, labels, rpn.box_coder.encode(boxes, anchors))
        _, roi = training(self.theirs.roi_heads)(maps, proposals, SIZES, their_targets)
        return {"loss_objectness": class_loss, "loss_rpn_box_reg": box_loss, **roi}


def training(part: nn.Module) -> nn.Module:
    """It samples and has losses; its batch normalization stays as it is."""
    part.train()
    for module in part.modules():
        module.train(not isinstance(module, nn.BatchNorm2d))
    return part


@cache
def make_pair(preset: str, dtype: torch.dtype) -> Pair:
    torch.manual_seed(0)
    theirs = PRESETS[preset](
        weights=None,
        weights_backbone=None,
        num_classes=CLASSES + 1,
        rpn_pre_nms_top_n_train=300,
        rpn_pre_nms_top_n_test=200,
        rpn_post_nms_top_n_train=400,
        rpn_post_nms_top_n_test=80,
        rpn_batch_size_per_image=EVERYTHING,
        rpn_positive_fraction=1.0,
        box_batch_size_per_image=EVERYTHING,
        box_positive_fraction=1.0,
    )
    spread_answers(theirs)
    spread_regions(theirs)
    ours = build_ours(preset)
    copy_weights(theirs, ours)
    theirs.to(dtype).eval()
    ours.to(dtype).eval()
    return Pair(ours, theirs, make_images(theirs.transform, dtype, first_label=1))


def spread_answers(theirs: TheirDetector) -> None:
    """Random weights under which scores and boxes differ from place to place; those of a fresh network hardly do."""
    spread_norms(theirs)
    head, predictor = theirs.rpn.head, theirs.roi_heads.box_predictor
    for layer, std in (
        *((block[0], 0.05) for block in head.conv),
        (head.cls_logits, 0.2),
        (head.bbox_pred, 0.03),
        *zip(hidden_layers(theirs), (0.03, 0.06), strict=False),
        (predictor.cls_score, 0.1),
        (predictor.bbox_pred, 0.05),
    ):
        spread_layer(layer, std)


def spread_regions(theirs: TheirDetector) -> None:
    """Where the box head has batch normalization, its statistics are those of regions, which get all classes."""
    norms = [module for module in theirs.roi_heads.box_head.modules() if isinstance(module, nn.BatchNorm2d)]
    if not norms:
        return
    for norm in norms:
        norm.momentum = 1.0
    canvas = make_images(theirs.transform, torch.float32, first_label=1).canvas
    with torch.no_grad():
        maps = theirs.eval().backbone(canvas.tensors)
        regions, _ = theirs.rpn(canvas, maps)
        hidden = theirs.roi_heads.box_head.train()(theirs.roi_heads.box_roi_pool(maps, regions, SIZES))
        classify = theirs.roi_heads.box_predictor.cls_score
        classify.bias -= classify(hidden).mean(dim=0)


def hidden_layers(theirs: TheirDetector) -> list[nn.Module]:
    return [module for module in theirs.roi_heads.box_head.modules() if isinstance(module, nn.Linear)]


def build_ours(preset: str) -> FasterRcnn:
    overrides = [
        "detector.proposals.training={per_level: 300, keep: 400}",
        "detector.proposals.test={per_level: 200, keep: 80}",
        f"detector.stages.rpn.sampler={{per_image: {EVERYTHING}, positive_share: 1.0}}",
        f"detector.stages.roi.sampler={{per_image: {EVERYTHING}, positive_share: 1.0}}",
    ]
    config = make_config(preset, overrides)
    return config.build(BuildContext(num_classes=CLASSES, detector=config, load_weights=False))


def make_config(preset: str, overrides: list[str]) -> FasterRcnnConfig:
    return FasterRcnnConfig.model_validate(read_config(preset, overrides))


@pytest.fixture
def exact() -> Pair:
    return make_pair("faster_rcnn_torchvision", torch.float64)


@pytest.fixture(
    params=[
        ("faster_rcnn_torchvision", torch.float64),
        ("faster_rcnn_torchvision", torch.float32),
        ("faster_rcnn_torchvision_v2", torch.float32),  # whose box head is slow
    ],
    ids=["exact", "single", "v2"],
)
def case(request: pytest.FixtureRequest) -> tuple[Pair, Features, "OrderedDict[str, Tensor]", dict[str, float]]:
    """A pair in float64 or fp32, with their pyramid in both forms, and how near the answers must be."""
    preset, dtype = request.param
    pair = make_pair(preset, dtype)
    with torch.no_grad():
        return pair, *pair.features(), NEAR[dtype]


@pytest.mark.parametrize("preset", PRESETS)
def test_preset__has_torchvisions_numbers(preset: str):
    theirs = {
        name: parameter.default
        for name, parameter in inspect.signature(TheirDetector.__init__).parameters.items()
        if isinstance(parameter.default, int | float)
    }
    config = make_config(preset, [])
    rpn, roi = config.stages["rpn"], config.stages["roi"]
    assert rpn.sampler is not None
    assert roi.sampler is not None
    assert {
        "rpn_pre_nms_top_n_train": config.proposals.training.per_level,
        "rpn_pre_nms_top_n_test": config.proposals.test.per_level,
        "rpn_post_nms_top_n_train": config.proposals.training.keep,
        "rpn_post_nms_top_n_test": config.proposals.test.keep,
        "rpn_nms_thresh": config.proposals.nms,
        "rpn_fg_iou_thresh": rpn.matcher.positive,
        "rpn_bg_iou_thresh": rpn.matcher.negative,
        "rpn_batch_size_per_image": rpn.sampler.per_image,
        "rpn_positive_fraction": rpn.sampler.positive_share,
        "rpn_score_thresh": 0.0,
        "box_score_thresh": config.test.score,
        "box_nms_thresh": config.test.nms,
        "box_detections_per_img": config.test.at_most,
        "box_fg_iou_thresh": roi.matcher.positive,
        "box_bg_iou_thresh": roi.matcher.negative,
        "box_batch_size_per_image": roi.sampler.per_image,
        "box_positive_fraction": roi.sampler.positive_share,
    }.items() <= theirs.items()


@pytest.mark.parametrize("preset", PRESETS)
def test_extract__equals_torchvision(preset: str):
    pair = make_pair(preset, torch.float64)
    with torch.no_grad():
        ours, (_, theirs) = pair.ours.extract(pair.images.view), pair.features()
    check_pyramid(ours.maps, list(theirs.values()))


def test_predict__proposes_what_torchvision_proposes(case):
    pair, features, maps, near = case
    with torch.no_grad():
        theirs, _ = pair.theirs.rpn.eval()(pair.images.canvas, maps)
        ours = pair.ours.predict(features).by_name["roi"].candidates
    assert ours.valid.sum(dim=1).tolist() == [80, 80]
    for row, boxes in enumerate(theirs):
        torch.testing.assert_close(ours.boxes[row][ours.valid[row]], boxes, **near)


def test_detect__finds_what_torchvision_finds(case):
    pair, features, maps, near = case
    with torch.no_grad():
        proposals, _ = pair.theirs.rpn.eval()(pair.images.canvas, maps)
        theirs, _ = pair.theirs.roi_heads.eval()(maps, proposals, SIZES)
        ours = pair.ours.detect(pair.ours.predict(features))
    check_detections(ours, theirs, 1, near)


def test_loss__has_torchvisions_four_terms(case):
    pair, features, maps, near = case
    theirs = pair.their_losses(maps)
    with torch.no_grad():
        stages = pair.ours.predict(features, pair.images.supervision, proposals="training")
        plan = assign(pair.ours, stages, pair.images.supervision)
        losses = loss(pair.ours, stages, plan, pair.images.supervision)
        ours = losses.values(losses.denominators())
    assert plan["rpn"]["class"].positive.sum() >= 10
    assert plan["roi"]["class"].positive.sum() >= 10
    assert len(plan["roi"]["class"].index.unique()) >= 4  # several targets, and background
    for name, their_name in LOSS_NAMES.items():
        torch.testing.assert_close(ours[name], theirs[their_name], **near)
        assert ours[name] > 1e-3


def test_loss__has_torchvisions_gradients(exact: Pair):
    maps = exact.theirs.backbone(exact.images.canvas.tensors)
    theirs = sum(exact.their_losses(maps).values())
    stages = exact.ours.predict(exact.ours.extract(exact.images.view), exact.images.supervision, proposals="training")
    losses = loss(exact.ours, stages, assign(exact.ours, stages, exact.images.supervision), exact.images.supervision)
    ours = sum(losses.values(losses.denominators()).values())
    layers = {
        "stage 4": (exact.ours.backbone.network.layer4[2].conv3, exact.theirs.backbone.body.layer4[2].conv3),
        "pyramid": (exact.ours.neck.lateral[0], exact.theirs.backbone.fpn.inner_blocks[0][0]),
        "objectness": (exact.ours.rpn.objectness, exact.theirs.rpn.head.cls_logits),
        "anchor codes": (exact.ours.rpn.codes, exact.theirs.rpn.head.bbox_pred),
        "first layer": (exact.ours.roi.first, hidden_layers(exact.theirs)[0]),
    }
    check_gradients(ours, theirs, layers, least=1e-4)

"""The preset `faster_rcnn_torchvision` against torchvision itself: same weights, same answers, same losses."""

import inspect
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN as TheirDetector
from torchvision.models.detection import fasterrcnn_resnet50_fpn
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import concat_box_prediction_layers

from ssodkit.detectors.faster_rcnn import FasterRcnn, FasterRcnnConfig
from ssodkit.detectors.learning import assign, loss
from ssodkit.plugins import BuildContext, load_plugins
from ssodkit.recipe.merge import read_tree
from ssodkit.structures.predictions import Features
from ssodkit.structures.progress import Progress
from ssodkit.structures.teaching import Supervision, Targets
from ssodkit.structures.views import View

RECIPES = Path(__file__).parents[2] / "recipes"
CLASSES = 4
EVERYTHING = 10**6
"""A sample so large that all candidates are taken on both sides."""
SIZES = [(128, 128), (96, 120)]
LOSS_NAMES = {
    "rpn/class": "loss_objectness",
    "rpn/box": "loss_rpn_box_reg",
    "roi/class": "loss_classifier",
    "roi/box": "loss_box_reg",
}


@dataclass(frozen=True)
class Pair:
    """Both detectors with the same weights, and both forms of the same two images with their boxes."""

    ours: FasterRcnn
    theirs: TheirDetector
    view: View
    images: ImageList
    targets: Targets
    their_targets: list[dict[str, Tensor]]

    def features(self) -> tuple[Features, "OrderedDict[str, Tensor]"]:
        """The pyramid of theirs, in both forms."""
        maps = self.theirs.backbone(self.images.tensors)
        return Features(tuple(maps.values()), (4, 8, 16, 32, 64), self.view.without_pixels()), maps

    def their_losses(self, maps: "OrderedDict[str, Tensor]") -> dict[str, Tensor]:
        """Their four losses on `maps`, the first from labels of our dtype: their own, in fp32, would round it."""
        rpn, levels = self.theirs.rpn.train(), list(maps.values())
        proposals, _ = rpn(self.images, maps, self.their_targets)
        logits, codes = concat_box_prediction_layers(*rpn.head(levels))
        anchors = rpn.anchor_generator(self.images, levels)
        labels, boxes = rpn.assign_targets_to_anchors(anchors, self.their_targets)
        labels = [label.to(codes.dtype) for label in labels]
        class_loss, box_loss = rpn.compute_loss(logits, codes, labels, rpn.box_coder.encode(boxes, anchors))
        _, roi = self.theirs.roi_heads.train()(maps, proposals, SIZES, self.their_targets)
        return {"loss_objectness": class_loss, "loss_rpn_box_reg": box_loss, **roi}

    @property
    def supervision(self) -> Supervision:
        return Supervision.uniform(self.targets, Progress(0, 1))


def make_pair(dtype: torch.dtype) -> Pair:
    torch.manual_seed(0)
    theirs = fasterrcnn_resnet50_fpn(
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
    ours = build_ours()
    copy_weights(theirs, ours)
    theirs.to(dtype).eval()
    ours.to(dtype).eval()

    pixels = torch.zeros(2, 3, 128, 128, dtype=torch.uint8)
    for row, (height, width) in enumerate(SIZES):
        pixels[row, :, :height, :width] = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
    keys = torch.tensor([11, 12])
    view = View(pixels, torch.tensor(SIZES), torch.eye(3).repeat(2, 1, 1), torch.arange(2), keys)
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
    their_targets = [{"boxes": boxes[row][valid[row]], "labels": labels[row][valid[row]] + 1} for row in range(2)]
    return Pair(ours, theirs, view, ImageList(canvas, SIZES), targets, their_targets)


def spread_answers(theirs: TheirDetector) -> None:
    """Random weights under which scores and boxes differ from place to place; those of a fresh network hardly do."""
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.3, 0.6)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    head, layers, predictor = theirs.rpn.head, theirs.roi_heads.box_head, theirs.roi_heads.box_predictor
    for layer, std in (
        (head.conv[0][0], 0.05),
        (head.cls_logits, 0.2),
        (head.bbox_pred, 0.03),
        (layers.fc6, 0.03),
        (layers.fc7, 0.06),
        (predictor.cls_score, 0.1),
        (predictor.bbox_pred, 0.05),
    ):
        nn.init.normal_(layer.weight, std=std)
        nn.init.normal_(layer.bias, std=0.1)


def build_ours() -> FasterRcnn:
    overrides = [
        "detector.proposals.training={per_level: 300, keep: 400}",
        "detector.proposals.test={per_level: 200, keep: 80}",
        f"detector.stages.rpn.sampler={{per_image: {EVERYTHING}, positive_share: 1.0}}",
        f"detector.stages.roi.sampler={{per_image: {EVERYTHING}, positive_share: 1.0}}",
    ]
    config = make_config(overrides)
    return config.build(BuildContext(num_classes=CLASSES, detector=config, load_weights=False))


def make_config(overrides: list[str]) -> FasterRcnnConfig:
    load_plugins()
    tree = read_tree(RECIPES / "bases/detectors/faster_rcnn_torchvision.yaml", overrides)
    return FasterRcnnConfig.model_validate(tree.plain["detector"])


def copy_weights(theirs: TheirDetector, ours: FasterRcnn) -> None:
    ours.backbone.network.load_state_dict(theirs.backbone.body.state_dict())
    for level in range(4):
        ours.neck.lateral[level].load_state_dict(theirs.backbone.fpn.inner_blocks[level][0].state_dict())
        ours.neck.output[level].load_state_dict(theirs.backbone.fpn.layer_blocks[level][0].state_dict())
    ours.rpn.shared.load_state_dict(theirs.rpn.head.conv[0][0].state_dict())
    ours.rpn.objectness.load_state_dict(theirs.rpn.head.cls_logits.state_dict())
    ours.rpn.codes.load_state_dict(theirs.rpn.head.bbox_pred.state_dict())
    ours.roi.first.load_state_dict(theirs.roi_heads.box_head.fc6.state_dict())
    ours.roi.second.load_state_dict(theirs.roi_heads.box_head.fc7.state_dict())
    ours.backbone.mean = torch.tensor(theirs.transform.image_mean, dtype=torch.float64)
    ours.backbone.std = torch.tensor(theirs.transform.image_std, dtype=torch.float64)
    scores, boxes = theirs.roi_heads.box_predictor.cls_score, theirs.roi_heads.box_predictor.bbox_pred
    with torch.no_grad():  # background is their first column and our last; it has no boxes in ours
        ours.roi.classify.weight.copy_(scores.weight.roll(-1, dims=0))
        ours.roi.classify.bias.copy_(scores.bias.roll(-1, dims=0))
        ours.roi.regress.weight.copy_(boxes.weight[4:])
        ours.roi.regress.bias.copy_(boxes.bias[4:])


@pytest.fixture(scope="module")
def exact() -> Pair:
    return make_pair(torch.float64)


@pytest.fixture(scope="module")
def single() -> Pair:
    return make_pair(torch.float32)


@pytest.fixture(params=["exact", "single"])
def case(request: pytest.FixtureRequest) -> tuple[Pair, Features, "OrderedDict[str, Tensor]", dict[str, float]]:
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


def test_extract__equals_torchvision(exact: Pair):
    with torch.no_grad():
        ours, (_, theirs) = exact.ours.extract(exact.view), exact.features()
    assert len(ours.maps) == 5
    for level, their_level in zip(ours.maps, theirs.values(), strict=True):
        torch.testing.assert_close(level, their_level, rtol=1e-8, atol=1e-8)
        assert level.std() > 0.05  # not all alike


def test_predict__proposes_what_torchvision_proposes(case):
    pair, features, maps, near = case
    with torch.no_grad():
        theirs, _ = pair.theirs.rpn.eval()(pair.images, maps)
        ours = pair.ours.predict(features).by_name["roi"].candidates
    assert ours.valid.sum(dim=1).tolist() == [80, 80]
    for row, boxes in enumerate(theirs):
        torch.testing.assert_close(ours.boxes[row][ours.valid[row]], boxes, **near)


def test_detect__finds_what_torchvision_finds(case):
    pair, features, maps, near = case
    with torch.no_grad():
        proposals, _ = pair.theirs.rpn.eval()(pair.images, maps)
        theirs, _ = pair.theirs.roi_heads.eval()(maps, proposals, SIZES)
        ours = pair.ours.detect(pair.ours.predict(features))
    for row, found in enumerate(theirs):
        valid = ours.valid[row]
        assert valid.sum() == len(found["boxes"]) > 20
        assert ours.labels[row][valid].tolist() == (found["labels"] - 1).tolist()
        torch.testing.assert_close(ours.boxes[row][valid], found["boxes"], **near)
        torch.testing.assert_close(ours.confidence[row][valid], found["scores"], **near)
    assert len(ours.labels.unique()) == CLASSES


def test_loss__has_torchvisions_four_terms(case):
    pair, features, maps, near = case
    theirs = pair.their_losses(maps)
    with torch.no_grad():
        stages = pair.ours.predict(features, pair.supervision, proposals="training")
        plan = assign(pair.ours, stages, pair.supervision)
        losses = loss(pair.ours, stages, plan, pair.supervision)
        ours = losses.values(losses.denominators())
    assert plan["rpn"]["class"].positive.sum() >= 10
    assert plan["roi"]["class"].positive.sum() >= 10
    assert len(plan["roi"]["class"].index.unique()) >= 4  # several targets, and background
    for name, their_name in LOSS_NAMES.items():
        torch.testing.assert_close(ours[name], theirs[their_name], **near)
        assert ours[name] > 1e-3


def test_loss__has_torchvisions_gradients(exact: Pair):
    maps = exact.theirs.backbone(exact.images.tensors)
    theirs = sum(exact.their_losses(maps).values())
    stages = exact.ours.predict(exact.ours.extract(exact.view), exact.supervision, proposals="training")
    losses = loss(exact.ours, stages, assign(exact.ours, stages, exact.supervision), exact.supervision)
    ours = sum(losses.values(losses.denominators()).values())
    pairs = {
        "stage 4": (exact.ours.backbone.network.layer4[2].conv3, exact.theirs.backbone.body.layer4[2].conv3),
        "pyramid": (exact.ours.neck.lateral[0], exact.theirs.backbone.fpn.inner_blocks[0][0]),
        "objectness": (exact.ours.rpn.objectness, exact.theirs.rpn.head.cls_logits),
        "anchor codes": (exact.ours.rpn.codes, exact.theirs.rpn.head.bbox_pred),
        "first layer": (exact.ours.roi.first, exact.theirs.roi_heads.box_head.fc6),
    }
    our_gradients = torch.autograd.grad(ours, [mine.weight for mine, _ in pairs.values()])
    their_gradients = torch.autograd.grad(theirs, [other.weight for _, other in pairs.values()])
    for name, mine, other in zip(pairs, our_gradients, their_gradients, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-8, atol=1e-8, msg=lambda text, name=name: f"{name}: {text}")
        assert mine.abs().max() > 1e-4, name

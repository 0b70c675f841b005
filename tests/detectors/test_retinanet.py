from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from ssodkit.detectors.anchors import make_anchors
from ssodkit.detectors.learning import assign, loss, predict_together
from ssodkit.detectors.one_stage import OneStage
from ssodkit.detectors.retinanet import RetinaNetConfig
from ssodkit.ops.coding import BoxCoder
from ssodkit.plugins import BuildContext, load_plugins
from ssodkit.recipe.merge import read_tree
from ssodkit.structures.predictions import Candidates, Features, Predictions
from ssodkit.structures.progress import Progress
from ssodkit.structures.teaching import BACKGROUND, Supervision

BASES = Path(__file__).parents[2] / "recipes" / "bases" / "detectors"
PROGRESS = Progress(0, 10)
SQUARE = {"sides": [[20.0], [30.0], [44.0]], "ratios": [1.0]}
FAM3D = {"type": "fam3d", "layers": 1, "groups": 2}


def preset(name: str, *overrides: str) -> RetinaNetConfig:
    load_plugins()
    return RetinaNetConfig.model_validate(read_tree(BASES / f"{name}.yaml", overrides).plain["detector"])


def build(config: RetinaNetConfig, classes: int = 10) -> OneStage:
    torch.manual_seed(0)
    return config.build(BuildContext(num_classes=classes, detector=config, load_weights=False))


@pytest.fixture
def detector(tiny_context) -> OneStage:
    detector = build(tiny_context(type="retinanet").detector, classes=3)
    with torch.no_grad():
        detector.head.towers.classify.weight.normal_(std=0.7)
        detector.head.towers.regress.weight.normal_(std=0.3)
    return detector


def test_preset__has_the_published_numbers():
    config = preset("retinanet")
    assert config.backbone.strides == (8, 16, 32)
    assert (config.backbone.frozen_stages, config.backbone.batch_norm) == (1, "affine")
    assert (config.neck.channels, config.neck.extra_levels, config.neck.extra_from) == (256, 2, "output")
    assert not config.neck.extra_relu
    head, rule = config.head, config.stages["dense"]
    assert (head.type, head.layers, head.groups, head.level_scales) == ("plain", 4, 32, True)
    assert (head.code.center_std, head.code.side_std, head.code.limits_shrinking) == (0.1, 0.2, True)
    assert (rule.matcher.positive, rule.matcher.negative, rule.matcher.best_from) == (0.5, 0.4, 0.0)
    assert rule.matcher.best_learns == "that_target"
    focal, giou = rule.terms["class"], rule.terms["box"]
    assert (focal.criterion.type, focal.criterion.balance, focal.criterion.focus) == ("focal", 0.25, 2.0)
    assert (focal.normalizer.type, focal.weight, focal.quality) == ("positives_per_image", 1.0, "unused")
    assert (giou.criterion.type, giou.normalizer.type, giou.weight) == ("giou", "positives", 2.0)
    assert (config.test.score, config.test.nms, config.test.per_level, config.test.at_most) == (0.05, 0.6, 1000, 100)
    assert config.test.clip


def test_preset__of_consistent_teacher_has_the_published_numbers():
    config = preset("retinanet_fam3d")
    assert config.anchors.sides == ((64.0,), (128.0,), (256.0,), (512.0,), (1024.0,))
    assert (config.anchors.ratios, config.anchors.center) == ((1.0,), 0.0)
    assert (config.head.type, config.head.shrink, config.head.shifts_levels) == ("fam3d", 4, True)
    rule = config.stages["dense"]
    matcher, focal, giou = rule.matcher, rule.terms["class"], rule.terms["box"]
    assert (matcher.type, matcher.candidates_per_target, matcher.iou_weight) == ("adaptive", 13, 2.0)
    assert (matcher.distance_weight, matcher.distance_base, matcher.balance, matcher.focus) == (0.001, 10.0, 0.25, 2.0)
    assert (focal.criterion.type, focal.normalizer.type, focal.quality, focal.weight) == (
        "focal",
        "quality",
        "unused",
        1.0,
    )
    assert (giou.criterion.type, giou.normalizer.type, giou.quality, giou.weight) == ("giou", "quality", "weight", 2.0)
    assert (config.test.score, config.test.nms, config.test.per_level, config.test.at_most) == (0.05, 0.6, 1000, 100)
    assert not config.test.clip


def test_preset__has_the_published_anchors(make_view):
    config = preset("retinanet")
    maps = tuple(torch.zeros(1, 1, 1, 1, dtype=torch.float64) for _ in range(5))
    anchors = make_anchors(config.anchors, Features(maps, (8, 16, 32, 64, 128), make_view("a", [1])))
    sides = (anchors.boxes[0, :9, 2:] - anchors.boxes[0, :9, :2]).tolist()
    wide = [(45.254834, 22.627417), (57.017518, 28.508759), (71.837571, 35.918786)]
    square = [(side, side) for side in (32.0, 40.317474, 50.796834)]
    high = [(height, width) for width, height in wide]
    assert [tuple(round(side, 6) for side in pair) for pair in sides] == wide + square + high
    assert (anchors.boxes[..., :2] == -anchors.boxes[..., 2:]).all()  # around the corner of their cell
    torch.testing.assert_close(anchors.boxes[0, -1], anchors.boxes[0, 8] * 16.0)
    anchor, target = torch.tensor([[0.0, 0.0, 32.0, 32.0]]), torch.tensor([[4.0, 2.0, 40.0, 30.0]])
    code = config.head.code.coder.encode(anchor.double(), target.double())[0].tolist()
    assert [round(number, 6) for number in code] == [1.875, 0.0, 0.588915, -0.667657]


def test_preset__matches_as_published(make_targets):
    boxes = [(0, 0, 32, 32), (16, 0, 48, 32), (32, 32, 64, 64), (8, 8, 40, 40), (100, 100, 132, 132)]
    anchors = Candidates(torch.tensor([boxes]).float(), torch.ones(1, 5, dtype=torch.bool))
    asked = Predictions(anchors, torch.zeros(1, 5, 1), "sigmoid", torch.zeros(1, 5, 1, 4), BoxCoder())
    config = preset("retinanet")
    matcher = config.stages["dense"].matcher.build(BuildContext(num_classes=1, detector=config))
    found = matcher(asked, make_targets([[(4, 4, 36, 36, 0), (60, 60, 90, 90, 0)]]), PROGRESS)
    assert found.index.tolist() == [[0, BACKGROUND, 1, 0, BACKGROUND]]  # the third at an IoU of 0.008386
    assert round(found.quality[0, 0].item(), 6) == 0.620253
    # A box without area overlaps nothing: all anchors share its best IoU of 0, and none learns from it.
    sliver = matcher(asked, make_targets([[(60, 60, 60, 90, 0)]]), PROGRESS)
    assert sliver.index.tolist() == [[BACKGROUND] * 5]


def test_build__begins_as_published():
    detector = build(preset("retinanet"), classes=2)
    towers = detector.head.towers
    torch.testing.assert_close(towers.classify.bias, torch.full((18,), -4.595120))
    assert towers.regress.bias.abs().max() == 0.0
    assert towers.scales.tolist() == [1.0] * 5
    assert [layer.convolution.bias for layer in (*towers.class_layers, *towers.box_layers)] == [None] * 8
    assert {layer.norm.num_groups for layer in (*towers.class_layers, *towers.box_layers)} == {32}
    for weight in (towers.classify.weight, towers.regress.weight, towers.class_layers[3].convolution.weight):
        assert abs(weight.std().item() - 0.01) < 0.0005
    lateral = detector.neck.lateral[2].weight  # 2048 to 256: Xavier's bound, not that of the inputs alone
    assert 0.95 < lateral.abs().max().item() / (6.0 / (2048 + 256)) ** 0.5 <= 1.0
    learns = {name for name, parameter in detector.backbone.network.named_parameters() if parameter.requires_grad}
    assert "layer2.0.bn1.weight" in learns
    assert not any(name.startswith(("conv1", "bn1", "layer1")) for name in learns)


@pytest.mark.parametrize("name", ["retinanet", "retinanet_torchvision", "retinanet_small"])
def test_preset__builds_and_finds_something_to_say(name: str, make_view):
    detector = build(preset(name)).eval()
    with torch.no_grad():
        found = detector.detect(detector.predict(detector.extract(make_view("a", [1]))), score=0.005)
    assert found.valid.any()  # everything has about the first probability, 0.01


def test_preset__of_the_small_detector_has_few_weights():
    assert sum(parameter.numel() for parameter in build(preset("retinanet_small")).parameters()) == 287_046


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda tree: tree["stages"].update(rpn=tree["stages"].pop("dense")),
            "the stages of retinanet are dense, not rpn",
        ),
        (lambda tree: tree["head"].update(groups=7), "groups is 7, which does not divide the 256 channels"),
        (
            lambda tree: tree.update(head={"type": "fam3d"}),
            "one box per cell, but there are 9 anchors: give `anchors` one",
        ),
    ],
)
def test_config__refuses_what_cannot_work(change, message: str):
    load_plugins()
    tree = read_tree(BASES / "retinanet.yaml").plain["detector"]
    change(tree)
    with pytest.raises(ValidationError, match=message):
        RetinaNetConfig.model_validate(tree)


def test_config__refuses_anchors_for_other_levels():
    with pytest.raises(ValidationError, match=r"anchors\.sides is for 5 levels, but the pyramid has 4"):
        preset("retinanet", "detector.neck.extra_levels=1")


def test_predict__candidates_say_level_stride_and_how_many(detector, make_view):
    dense = detector.predict(detector.extract(make_view("a", [1, 2]))).last.candidates
    assert dense.lengths == (256, 64, 16)
    assert dense.level[0].bincount().tolist() == [256, 64, 16]
    assert dense.stride[0].unique_consecutive().tolist() == [4.0, 8.0, 16.0]


@pytest.mark.parametrize("anchors", [1, 2, 6])
def test_predict__has_any_number_of_anchors_per_cell_in_the_order_of_the_anchors(tiny_context, make_view, anchors: int):
    ratios = [0.5, 1.0, 2.0] if anchors == 6 else [1.0]
    sides = [[20.0] * (anchors // len(ratios))] * 3
    detector = build(tiny_context(type="retinanet", anchors={"sides": sides, "ratios": ratios}).detector, classes=3)
    features = detector.extract(make_view("a", [1]))
    dense = detector.predict(features).last
    assert dense.class_logits.shape == (1, 336 * anchors, 3)
    assert dense.box_codes.shape == (1, 336 * anchors, 1, 4)
    # The last anchor of the cell in row 1, column 2 of the finest level: by hand from the output maps.
    answer = detector.head.towers(features.maps[0], 0)
    logits = detector.head.towers.classify(answer.hidden[1])[0, :, 1, 2]
    codes = detector.head.towers.regress(answer.hidden[3])[0, :, 1, 2]
    place = (16 + 2) * anchors + anchors - 1
    torch.testing.assert_close(dense.class_logits[0, place], logits[-3:])
    torch.testing.assert_close(dense.box_codes[0, place, 0], codes[-4:])


def test_predict__each_level_has_its_own_scale(detector, make_view):
    features = detector.extract(make_view("a", [1]))
    before = detector.predict(features).last.box_codes
    with torch.no_grad():
        detector.head.towers.scales[1] = 3.0
    factor = detector.predict(features).last.box_codes / before
    expected = torch.tensor([1.0, 3.0, 1.0]).repeat_interleave(torch.tensor([256, 64, 16]))
    torch.testing.assert_close(factor, expected[None, :, None, None].expand(factor.shape))


def test_fam3d__decodes_to_resampled_boxes_through_which_all_gradients_flow(tiny_context, make_view):
    detector = build(tiny_context(type="retinanet", anchors=SQUARE, head=FAM3D).detector, classes=3)
    features = detector.extract(make_view("a", [1]))
    dense = detector.predict(features).last
    aligned = []
    detector.head.alignment.register_forward_hook(lambda module, arguments, answer: aligned.extend(answer))
    boxes = detector.predict(features).last.decode()
    pixels = [stride * level.flatten(2).mT for stride, level in zip((4, 8, 16), aligned, strict=True)]
    torch.testing.assert_close(boxes, torch.cat(pixels, dim=1), rtol=1e-5, atol=1e-4)
    dense.decode().square().sum().backward()
    alignment, towers = detector.head.alignment, detector.head.towers
    for part in (alignment.shifts, alignment.level_weights, alignment.reduce, towers.regress):
        assert part.weight.grad.abs().max() > 0.0
    assert towers.scales.grad.abs().max() > 0.0


def test_fam3d__without_shifts_is_the_plain_head_with_its_towers(tiny_context, make_view):
    heads = {}
    for kind in ("plain", "fam3d"):
        context = tiny_context(type="retinanet", anchors=SQUARE, head={**FAM3D, "type": kind})
        heads[kind] = build(context.detector, classes=3)
    heads["fam3d"].load_state_dict(heads["plain"].state_dict(), strict=False)
    with torch.no_grad():
        for parameter in heads["fam3d"].head.alignment.parameters():
            parameter.zero_()
    view = make_view("a", [1])
    plain, fam3d = (heads[kind].predict(heads[kind].extract(view)).last for kind in ("plain", "fam3d"))
    assert torch.equal(plain.class_logits, fam3d.class_logits)
    torch.testing.assert_close(plain.decode(), fam3d.decode(), rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("box", [{"type": "giou"}, {"type": "l1"}])
@pytest.mark.parametrize("head", ["plain", "fam3d"])
def test_loss__either_box_criterion_teaches_either_head(tiny_context, make_view, make_targets, head: str, box):
    context = tiny_context(type="retinanet", anchors=SQUARE, head={**FAM3D, "type": head})
    terms = {**context.detector.stages["dense"].terms}
    tree = context.detector.model_dump(mode="json")
    tree["stages"]["dense"]["terms"]["box"] = {**terms["box"].model_dump(mode="json"), "criterion": box}
    detector = build(RetinaNetConfig.model_validate(tree), classes=3)
    view, targets = make_view("a", [1]), make_targets([[(4, 4, 28, 40, 0)]])
    supervision = Supervision.uniform(targets, PROGRESS)
    optimizer, first = torch.optim.SGD(detector.parameters(), lr=0.02), None
    for _ in range(15):
        stages = predict_together(detector, [view], [supervision])[0].stages
        losses = loss(detector, stages, assign(detector, stages, supervision), supervision)
        value = losses.values(losses.denominators())["dense/box"]
        first = value if first is None else first
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(detector.parameters(), 1.0)
        optimizer.step()
    assert 0.0 < value < 0.95 * first


def test_step__asks_the_host_once(detector, questions_of_a_step):
    assert questions_of_a_step(detector) == {"torchvision::nms": 1}  # the teacher's detections

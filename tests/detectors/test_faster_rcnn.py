from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from tiny import TINY_UNSURE_FASTER_RCNN

from ssodkit.detectors.faster_rcnn import FasterRcnn, FasterRcnnConfig
from ssodkit.detectors.learning import assign, loss, predict_together
from ssodkit.detectors.portable.parts import suppress_by_torch
from ssodkit.ops.boxes import pairwise_iou
from ssodkit.plugins import BuildContext, load_plugins
from ssodkit.recipe.merge import read_tree
from ssodkit.structures.predictions import Candidates
from ssodkit.structures.progress import Progress
from ssodkit.structures.teaching import Supervision, Targets

BASES = Path(__file__).parents[2] / "recipes" / "bases" / "detectors"
PROGRESS = Progress(0, 10)


@pytest.fixture
def detector(tiny_context) -> FasterRcnn:
    context = tiny_context()
    return sharpened(context.detector.build(context))


def sharpened(detector: FasterRcnn) -> FasterRcnn:
    """Answers that differ from place to place: those of a fresh network hardly do."""
    with torch.no_grad():
        for layer, std in (
            (detector.rpn.objectness, 0.5),
            (detector.rpn.codes, 0.1),
            (detector.roi.classify, 1.0),
            (detector.roi.regress, 0.5),
        ):
            layer.weight.normal_(std=std)
    return detector


def preset(name: str) -> FasterRcnnConfig:
    load_plugins()
    return FasterRcnnConfig.model_validate(read_tree(BASES / f"{name}.yaml").plain["detector"])


def learn(detector: FasterRcnn, view, supervision) -> dict[str, torch.Tensor]:
    stages = predict_together(detector, [view], [supervision])[0].stages
    losses = loss(detector, stages, assign(detector, stages, supervision), supervision)
    return losses.values(losses.denominators())


def test_preset__has_the_published_numbers():
    config = preset("faster_rcnn")
    assert config.anchors.sides == ((32.0,), (64.0,), (128.0,), (256.0,), (512.0,))
    assert config.anchors.ratios == (0.5, 1.0, 2.0)
    assert not config.anchors.rounded
    assert (config.proposals.training.per_level, config.proposals.training.keep) == (2000, 1000)
    assert (config.proposals.test.per_level, config.proposals.test.keep) == (1000, 1000)
    assert config.proposals.nms == 0.7
    assert (config.roi.cells, config.roi.samples, config.roi.aligned) == (7, 0, True)
    assert (config.roi.finest_side, config.roi.levels, config.roi.width) == (56.0, 4, 1024)
    assert config.roi.boxes_per_class
    assert (config.roi.code.center_std, config.roi.code.side_std) == (0.1, 0.2)
    assert (config.rpn.code.center_std, config.rpn.code.side_std) == (1.0, 1.0)
    assert config.rpn.code.limits_shrinking
    assert config.proposals.append_targets
    rpn, roi = config.stages["rpn"], config.stages["roi"]
    assert (rpn.matcher.positive, rpn.matcher.negative, rpn.matcher.best_from) == (0.7, 0.3, 0.3)
    assert (rpn.sampler.per_image, rpn.sampler.positives) == (256, 128)
    assert (roi.matcher.positive, roi.matcher.negative, roi.matcher.best_from) == (0.5, 0.5, None)
    assert (roi.sampler.per_image, roi.sampler.positives) == (512, 128)
    assert {term.criterion.type for rule in (rpn, roi) for term in [rule.terms["box"]]} == {"l1"}
    assert {rule.terms["box"].criterion.beta for rule in (rpn, roi)} == {0.0}
    assert (config.test.score, config.test.nms, config.test.at_most) == (0.05, 0.5, 100)


def test_preset__of_unbiased_teacher_has_the_published_numbers():
    config = preset("faster_rcnn_unbiased_teacher")
    rpn, roi = config.stages["rpn"], config.stages["roi"]
    assert (rpn.sampler.per_image, rpn.sampler.positives) == (256, 64)
    assert (roi.sampler.per_image, roi.sampler.positives) == (512, 128)
    assert [rpn.terms[term].normalizer.type for term in ("class", "box")] == ["quota"] * 2
    assert [roi.terms[term].normalizer.type for term in ("class", "box")] == ["sampled"] * 2
    assert (roi.terms["class"].criterion.type, roi.terms["class"].criterion.focus) == ("softmax", 1.5)
    assert [rule.terms["box"].criterion.beta for rule in (rpn, roi)] == [0.0, 0.0]
    assert rpn.matcher.best_from == 0.0  # detectron2's best anchors need no overlap of 0.3
    assert (config.proposals.training.per_level, config.proposals.training.keep) == (2000, 1000)
    assert config.roi.boxes_per_class
    assert config.proposals.append_targets


def test_preset__of_stac_has_the_published_numbers():
    config = preset("faster_rcnn_stac")
    rpn, roi = config.stages["rpn"], config.stages["roi"]
    assert (rpn.sampler.per_image, roi.sampler.per_image, roi.sampler.positives) == (256, 64, 16)
    assert [rpn.terms[term].normalizer.type for term in ("class", "box")] == ["quota"] * 2
    assert [roi.terms[term].normalizer.type for term in ("class", "box")] == ["sampled"] * 2
    assert [rule.terms["box"].criterion.beta for rule in (rpn, roi)] == [pytest.approx(1 / 9), 0.0]
    assert rpn.matcher.best_from == 0.3
    training, test = config.proposals.training, config.proposals.test
    assert (training.per_level, training.keep, test.per_level, test.keep) == (2000, 2000, 1000, 1000)


@pytest.mark.parametrize("name", ["faster_rcnn", "faster_rcnn_torchvision", "faster_rcnn_small"])
def test_preset__builds_and_finds_something_to_say(name: str, make_view):
    config = preset(name)
    detector = config.build(BuildContext(num_classes=2, detector=config, load_weights=False)).eval()
    with torch.no_grad():
        found = detector.detect(detector.predict(detector.extract(make_view("a", [1]))))
    assert found.valid.any()


def test_preset__of_the_small_detector_has_0_4_million_weights():
    config = preset("faster_rcnn_small")
    detector = config.build(BuildContext(num_classes=10, detector=config))
    assert sum(parameter.numel() for parameter in detector.parameters()) == 383_548


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda stages: stages.pop("rpn"), "the stages of faster_rcnn are rpn and roi, not roi"),
        (lambda stages: stages["rpn"].update(one_class=False), "stages.rpn.one_class must be true"),
    ],
)
def test_config__refuses_stages_that_cannot_work(change, message: str):
    load_plugins()
    tree = read_tree(BASES / "faster_rcnn.yaml").plain["detector"]
    change(tree["stages"])
    with pytest.raises(ValidationError, match=message):
        FasterRcnnConfig.model_validate(tree)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"anchors": {}}, "anchors.sides is for 5 levels, but the pyramid has 2"),
        ({"roi": {"levels": 3}}, "roi.levels is 3, but the pyramid has 2"),
    ],
)
def test_config__refuses_levels_that_the_pyramid_has_not(tiny_context, fields, message: str):
    with pytest.raises(ValidationError, match=message):
        tiny_context(**fields)


def test_predict__proposals_lie_in_the_image_and_have_no_gradient(detector, make_view):
    view = make_view("a", [1])
    view = replace(view, sizes=torch.tensor([[40, 56]]))
    proposals = detector.predict(detector.extract(view)).last.candidates
    boxes = proposals.boxes[proposals.valid]
    assert len(boxes) > 5
    assert not boxes.requires_grad
    assert boxes.min() >= 0.0
    assert boxes[:, 2].max() <= 56.0
    assert boxes[:, 3].max() <= 40.0


def test_predict__a_teacher_gets_proposals_and_a_student_a_sample(detector, make_view):
    features = detector.extract(make_view("a", [1]))
    teacher = detector.predict(features, proposals="training").last
    student = detector.predict(features, Supervision.uniform(Targets.empty(1), PROGRESS), proposals="training").last
    assert teacher.plan is None
    assert teacher.candidates.boxes.shape[1] == detector.config.proposals.training.keep
    assert student.plan is not None
    assert student.candidates.boxes.shape[1] == detector.stage_rules["roi"].sampler.per_image


def test_score_regions__answers_as_the_last_stage_does(detector, make_view):
    features = detector.extract(make_view("a", [1, 2]))
    roi = detector.predict(features).last
    backwards = Candidates(roi.candidates.boxes.flip(1), roi.candidates.valid.flip(1))
    again = detector.score_regions(features, backwards)
    torch.testing.assert_close(again.class_logits.flip(1), roi.class_logits)
    torch.testing.assert_close(again.box_codes.flip(1), roi.box_codes)
    assert roi.class_logits.std() > 0.1


@pytest.mark.parametrize("boxes_per_class", [True, False])
def test_predict__has_one_regression_or_one_per_class(tiny_context, make_view, boxes_per_class: bool):
    roi = {"cells": 2, "samples": 1, "levels": 1, "width": 8, "boxes_per_class": boxes_per_class}
    context = tiny_context(roi=roi)
    detector = context.detector.build(context)
    codes = detector.predict(detector.extract(make_view("a", [1]))).last.box_codes
    assert codes.shape[2:] == ((3, 4) if boxes_per_class else (1, 4))


def test_step__draws_from_the_keys_alone(detector, make_view, make_targets):
    view, targets = make_view("a", [1, 2]), make_targets([[(4, 4, 28, 40, 0)], [(30, 20, 56, 50, 2)]])
    supervision = Supervision.uniform(targets, PROGRESS)
    state = torch.random.get_rng_state()
    first = learn(detector, view, supervision)
    assert torch.equal(torch.random.get_rng_state(), state)
    again = learn(detector, view, supervision)
    other = learn(detector, replace(view, keys=view.keys + 1), supervision)
    assert first["rpn/class"].item() == again["rpn/class"].item() != other["rpn/class"].item()


def test_step__asks_the_host_six_times(detector, questions_of_a_step):
    # Teacher: proposals, regions, what is above the threshold, detections. Student: proposals, regions.
    assert questions_of_a_step(detector) == {"torchvision::nms": 3, "tolist": 2, "aten::nonzero": 1}


def test_step__with_batch_normalization_learns_what_it_finds_in_the_test(tiny_context, make_view, make_targets):
    roi = {"cells": 3, "samples": 1, "levels": 2, "finest_side": 20.0, "width": 16, "convolutions": 2, "layers": 1}
    neck = {"channels": 8, "extra_levels": 0, "norm": "batch"}
    context = tiny_context(neck=neck, rpn={"layers": 2}, roi=roi)
    detector = context.detector.build(context)
    view, targets = make_view("a", [1, 2]), make_targets([[(4, 4, 28, 40, 0)], [(30, 20, 56, 50, 2)]])
    optimizer = torch.optim.SGD(detector.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    for step in range(160):
        losses = learn(detector, replace(view, keys=view.keys + step), Supervision.uniform(targets, PROGRESS))
        optimizer.zero_grad()
        sum(losses.values()).backward()
        torch.nn.utils.clip_grad_norm_(detector.parameters(), 5.0)
        optimizer.step()
    detector.eval()
    with torch.no_grad():
        found = detector.detect(detector.predict(detector.extract(view)))
    assert found.labels[:, 0].tolist() == [0, 2]
    assert pairwise_iou(found.boxes[:, :1], targets.boxes[:, :1]).min() > 0.5


@pytest.mark.parametrize("score_of", ["class", "rank"])
def test_portable__ranks_by_what_the_test_rule_names(tiny_context, make_view, score_of):
    test = {"score": 0.2, "nms": 0.5, "rank": {"class": 0.5, "certainty": 1.0}, "score_of": score_of, "at_most": 40}
    context = tiny_context(**{**TINY_UNSURE_FASTER_RCNN, "test": test})
    detector = sharpened(context.detector.build(context)).eval()
    torch.nn.init.normal_(detector.roi.doubt.weight, std=1.0)
    view = make_view("a", [1])
    with torch.no_grad():
        found = detector.detect(detector.predict(detector.extract(view)))
        answer = detector.portable(suppress_by_torch, 0.2)(view.pixels.float(), view.sizes[0])
    count = int(found.valid.sum())
    assert count == (answer.scores > 0.0).sum() > 5
    torch.testing.assert_close(answer.scores[0, :count], found.confidence[0, :count])
    torch.testing.assert_close(answer.boxes[0, :count], found.boxes[0, :count], atol=1e-3, rtol=0)
    assert torch.equal(answer.labels[0, :count], found.labels[0, :count])

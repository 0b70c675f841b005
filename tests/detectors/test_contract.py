"""What every detector promises, whatever it is made of."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import pytest
import torch
from pages import DETECTOR_PAGE, forgetting, write_blocks
from tiny import TINY_UNSURE_FASTER_RCNN, TINY_UNSURE_FCOS
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ssodkit.detectors.base import Detector
from ssodkit.detectors.learning import assign, loss, predict_together
from ssodkit.ops.boxes import has_area, pairwise_iou
from ssodkit.plugins import load_plugins, members
from ssodkit.structures.geometry import carry_boxes
from ssodkit.structures.predictions import Candidates, stage_of
from ssodkit.structures.progress import Progress
from ssodkit.structures.records import map_tensors
from ssodkit.structures.teaching import Supervision, Targets
from ssodkit.structures.views import mirrored

PROGRESS = Progress(0, 10)
ONE_ANCHOR = {"sides": [[20.0], [30.0], [44.0]], "ratios": [1.0], "center": 0.5}
CASES = {
    "faster_rcnn": {"type": "faster_rcnn"},
    "plain": {"type": "retinanet"},
    "distances": {"type": "fcos"},
    "objectness": {"type": "dense_objectness"},
    "dino": {"type": "dino"},
    "five_points": {"type": "five_points"},
    "unsure fcos": TINY_UNSURE_FCOS,
    "unsure faster_rcnn": TINY_UNSURE_FASTER_RCNN,
    "fam3d": {
        "type": "retinanet",
        "anchors": ONE_ANCHOR,
        "head": {"type": "fam3d", "layers": 1, "groups": 2, "shrink": 2},
    },
    "fam2d": {
        "type": "retinanet",
        "anchors": ONE_ANCHOR,
        "head": {"type": "fam3d", "layers": 1, "groups": 2, "shrink": 2, "shifts_levels": False},
    },
}
OUTSIDE = {"five_points"}
"""Not in the package, but on a page of docs/."""
ANSWERS_REGIONS = ["faster_rcnn", "unsure faster_rcnn", "five_points"]
DRAWS_REGIONS = ["faster_rcnn", "unsure faster_rcnn"]
SPREAD = {
    "objectness": 0.5,
    "codes": 0.1,
    "classify": 0.7,
    "regress": 0.4,
    "quality": 0.3,
    "doubt": 0.4,
    "level_weights": 0.2,
    "shifts": 0.2,
    "move.layers.2": 0.4,
    "attention.offsets": 0.3,
    "attention.weights": 0.3,
}
"""Name of an output layer -> deviation under which answers differ from place to place; fresh ones hardly do."""


@pytest.fixture(scope="module", autouse=True)
def detector_of_the_page(tmp_path_factory) -> Iterator[None]:
    """What docs/add_a_detector.md tells a newcomer to write."""
    folder = tmp_path_factory.mktemp("page")
    write_blocks(folder, DETECTOR_PAGE)
    with forgetting("five_points"):
        load_plugins(["five_points.py"], folder)
        yield


@pytest.fixture(params=CASES)
def make_detector(request, tiny_context):
    """num_classes, whether answers are spread -> a tiny detector of each kind."""

    def make(num_classes: int = 3, spread: bool = True) -> Detector:
        context = tiny_context(num_classes, **CASES[request.param])
        detector = context.detector.build(context)
        with torch.no_grad():
            for name, module in detector.named_modules():
                deviation = next((SPREAD[end] for end in SPREAD if name.endswith(end)), None)
                if spread and deviation is not None and isinstance(module, nn.Conv2d | nn.Linear):
                    module.weight.normal_(std=deviation)
        return detector

    return make


@pytest.fixture
def detector(make_detector) -> Detector:
    return make_detector()


def learn(detector: Detector, view, supervision) -> dict[str, torch.Tensor]:
    stages = predict_together(detector, [view], [supervision])[0].stages
    losses = loss(detector, stages, assign(detector, stages, supervision), supervision)
    return losses.values(losses.denominators())


def test_class_layers__are_all_that_depends_on_the_number_of_classes(make_detector):
    few, many = make_detector(3), make_detector(5)
    shapes = {name: tensor.shape for name, tensor in few.state_dict().items()}
    other = {name: tensor for name, tensor in many.state_dict().items() if tensor.shape != shapes[name]}
    layers = many.class_layers(5)
    assert {name.rpartition(".")[0] for name in other} == set(layers)
    for name, tensor in other.items():
        rows = layers[name.rpartition(".")[0]]
        assert rows.flatten().sort().values.tolist() == list(range(rows.numel()))  # an output speaks of one class
        assert (len(rows), 2 * rows.shape[1]) == (5, len(tensor) - shapes[name][0])


def test_cases__are_all_detectors_and_heads():
    load_plugins()
    ours = {
        slot: {name for name, config in members(slot).items() if config.__module__.startswith("ssodkit.")}
        for slot in ("detector", "dense_head")
    }
    assert ours["detector"] == {case["type"] for case in CASES.values()} - OUTSIDE
    assert ours["dense_head"] <= CASES.keys()


def test_extract__normalizes_and_leaves_the_padding_at_zero(detector, make_view):
    seen = []
    detector.backbone.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    view = make_view("a", [1])
    view = replace(view, sizes=torch.tensor([[40, 56]]))
    features = detector.extract(view)
    (images,) = seen
    expected = (view.pixels[:, :, :40, :56].float() / 255.0 - 0.5) / 0.25
    torch.testing.assert_close(images[:, :, :40, :56], expected)
    assert (images[:, :, 40:] == 0.0).all()
    assert (images[:, :, :, 56:] == 0.0).all()
    assert features.view.pixels.numel() == 0


def test_extract__a_mirrored_view_is_zero_in_its_padding_on_the_left(detector, make_view):
    view = replace(make_view("weak", [1, 2]), sizes=torch.tensor([[64, 48], [64, 64]]))
    seen: list[torch.Tensor] = []
    hook = detector.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    for one in (view, mirrored(view)):
        detector.extract(one)
    hook.remove()
    assert torch.equal(seen[1], seen[0].flip(-1))
    assert not seen[1][0, :, :, :16].any()


def test_predict__a_row_does_not_depend_on_its_batch(detector, make_view, make_targets):
    view = make_view("a", [1, 2, 3])
    targets = make_targets([[(4, 4, 28, 40, 0)], [(30, 20, 56, 50, 2), (2, 2, 30, 30, 1)], []])
    supervision = Supervision.uniform(targets, PROGRESS)
    for taught in (None, supervision):
        together = detector.predict(detector.extract(view), taught, proposals="training")[1:2]
        alone = detector.predict(detector.extract(view[1:2]), taught and taught[1:2], proposals="training")
        for name, expected in alone.by_name.items():
            answer = together.by_name[name]
            assert torch.equal(answer.candidates.valid, expected.candidates.valid)
            torch.testing.assert_close(answer.candidates.boxes, expected.candidates.boxes, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(answer.class_logits, expected.class_logits, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(answer.box_codes, expected.box_codes, rtol=1e-4, atol=1e-4)
    found = detector.detect(alone)
    assert found.valid.any()
    torch.testing.assert_close(detector.detect(together).boxes, found.boxes, rtol=1e-4, atol=1e-3)


def on_a_gpu_of_no_numbers(mode: FakeTensorMode, tensor: torch.Tensor) -> torch.Tensor:
    """A tensor that knows its shape and its device alone."""
    with mode:
        return mode.from_tensor(tensor.detach()).to("cuda")


@pytest.mark.parametrize("make_detector", [name for name in CASES if name not in DRAWS_REGIONS], indirect=True)
def test_loss__is_made_on_a_gpu_with_every_tensor_there(detector, make_view, make_targets):
    """Operators refuse tensors of two devices, and answers that the host would have to wait for, as suppression has."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    move = partial(on_a_gpu_of_no_numbers, mode)
    for module in detector.modules():
        for name, parameter in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(move(parameter), requires_grad=parameter.requires_grad))
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, move(buffer))
    targets = make_targets([[(4, 4, 28, 40, 0)], [(30, 20, 56, 50, 2)]])
    for taught in (targets, replace(targets, all_teach=False)):
        supervision = Supervision.uniform(map_tensors(taught, move), PROGRESS)
        with mode:
            values = learn(detector, map_tensors(make_view("a", [1, 2]), move), supervision)
        assert {value.device.type for value in values.values()} == {"cuda"}


def test_predict__stages_provide_what_the_config_says(detector, make_view):
    features = detector.extract(make_view("a", [1]))
    taught = detector.predict(features, Supervision.uniform(Targets.empty(1), PROGRESS))
    provided = detector.config.stage_provides
    stages = [stage_of(name) for name in taught.by_name]
    assert list(dict.fromkeys(stages)) == list(detector.stage_rules) == list(provided)
    for stage, predictions in zip(stages, taught.by_name.values(), strict=True):
        assert ("predictions" in provided[stage]) == (predictions.plan is None)
        assert ("places" in provided[stage]) == predictions.candidates.lie


@pytest.mark.parametrize("make_detector", ANSWERS_REGIONS, indirect=True)
def test_score_regions__is_differentiable(detector, make_view):
    features = detector.extract(make_view("a", [1]))
    regions = Candidates(torch.tensor([[[4.0, 4.0, 40.0, 40.0]]]), torch.ones(1, 1, dtype=torch.bool))
    detector.score_regions(features, regions).decode(torch.tensor([[1]])).sum().backward()
    assert detector.backbone.stem.weight.grad.abs().max() > 0.0


@pytest.mark.parametrize("make_detector", ANSWERS_REGIONS, indirect=True)
def test_score_regions__carried_to_a_mirrored_view_and_back_are_the_same(detector, make_view):
    view = make_view("a", [1])
    mirrored = replace(view, homography=torch.tensor([[[-1.0, 0.0, 64.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]]))
    features = detector.extract(view)
    found = detector.detect(detector.predict(features))
    there = carry_boxes(found.boxes, view, mirrored)
    back = carry_boxes(there, mirrored, view)
    assert not torch.allclose(there, back)
    answer, expected = (
        detector.score_regions(features, Candidates(boxes, found.valid)) for boxes in (back, found.boxes)
    )
    assert expected.candidates.valid.any()
    torch.testing.assert_close(answer.class_logits, expected.class_logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("make_detector", ANSWERS_REGIONS, indirect=True)
def test_score_regions__of_what_is_not_valid_are_zero(detector, make_view):
    features = detector.extract(make_view("a", [1, 2]))
    boxes = torch.tensor([[[4.0, 4.0, 40.0, 40.0], [8.0, 8.0, 20.0, 20.0]]]).repeat(2, 1, 1)
    valid = torch.tensor([[True, False], [False, False]])
    logits = detector.score_regions(features, Candidates(boxes, valid)).class_logits
    assert (logits != 0.0).all(dim=-1).tolist() == valid.tolist()
    nothing = Candidates(torch.zeros(2, 0, 4), torch.zeros(2, 0, dtype=torch.bool))
    assert detector.score_regions(features, nothing).class_logits.shape[:2] == (2, 0)


def test_loss__every_weight_has_a_gradient_and_learns_where_there_is_a_target(detector, make_view, make_targets):
    supervision = Supervision.uniform(make_targets([[(4, 4, 28, 40, 0)], [(30, 20, 56, 50, 2)]]), PROGRESS)
    sum(learn(detector, make_view("a", [1, 2]), supervision).values()).backward()
    for name, parameter in detector.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0.0, name


def test_loss__of_joined_views_is_that_of_separate_ones(detector, make_view, make_targets):
    views = [make_view("labeled", [1]), make_view("strong", [2, 3])]
    targets = [make_targets([[(4, 4, 28, 40, 0)]]), make_targets([[], [(30, 20, 56, 50, 2), (2, 2, 30, 30, 1)]])]
    supervisions = [Supervision.uniform(taught, PROGRESS) for taught in targets]
    values = {}
    for joined in ("always", "never"):
        together = predict_together(detector, views, supervisions, joined=joined)
        losses = [
            loss(detector, mine.stages, assign(detector, mine.stages, taught), taught)
            for mine, taught in zip(together, supervisions, strict=True)
        ]
        values[joined] = [part.values(part.denominators()) for part in losses]
    for always, never in zip(values["always"], values["never"], strict=True):
        for name in never:
            torch.testing.assert_close(always[name], never[name], rtol=1e-4, atol=1e-6)
            assert never[name] > 0.0, name


def test_loss__without_targets_has_no_box_term_and_all_gradients(detector, make_view):
    values = learn(detector, make_view("a", [1, 2]), Supervision.uniform(Targets.empty(2), PROGRESS))
    sum(values.values()).backward()
    assert all(parameter.grad is not None for parameter in detector.parameters())
    for name, value in values.items():
        stage, term, *_ = name.split("/")
        learns = detector.stage_rules[stage_of(stage)].terms[term].criterion.teaches_background
        assert (value > 0.0) == (learns and "own_plan" not in detector.config.stage_provides[stage_of(stage)]), name


def test_loss__learns_to_find_what_it_is_taught(make_detector, make_view, make_targets):
    detector = make_detector(spread=False)
    view, targets = make_view("a", [1, 2]), make_targets([[(4, 4, 28, 40, 0)], [(30, 20, 56, 50, 2)]])
    supervision = Supervision.uniform(targets, PROGRESS)
    if detector.config.type == "dino":  # of transformers SGD makes nothing
        optimizer = torch.optim.AdamW(detector.parameters(), lr=0.005)
    else:
        optimizer = torch.optim.SGD(detector.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    for step in range(80):
        keyed = replace(view, keys=view.keys + step)
        losses = learn(detector, keyed, supervision)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        torch.nn.utils.clip_grad_norm_(detector.parameters(), 5.0)
        optimizer.step()
    with torch.no_grad():
        found = detector.detect(detector.predict(detector.extract(view)))
    assert found.labels[:, 0].tolist() == [0, 2]
    assert pairwise_iou(found.boxes[:, :1], targets.boxes[:, :1]).min() > 0.5


@pytest.mark.parametrize(
    "boxes",
    [
        [],
        [(4, 4, 28, 40, 0)],
        [(20, 30, 21, 31, 1)],
        [(0, 0, 64, 64, 2)],
        [(30, 0, 31, 64, 1), (30, 0, 31, 64, 1)],
        [(x, y, x + 6, y + 9, (x + y) % 3) for x in range(0, 54, 3) for y in range(0, 51, 3)][:300],
    ],
    ids=["none", "one", "a pixel", "the image", "a line twice", "300"],
)
def test_step__on_any_boxes_losses_and_gradients_are_finite(detector, make_view, make_targets, boxes):
    values = learn(detector, make_view("a", [1, 2]), Supervision.uniform(make_targets([boxes, []]), PROGRESS))
    assert all(value.isfinite() for value in values.values())
    sum(values.values()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in detector.parameters())


@pytest.mark.parametrize("classes", [1, 3])
def test_step__works_on_no_image_and_one_class(make_detector, make_view, classes: int):
    detector = make_detector(classes)
    view = make_view("a", [1])[:0]
    losses = learn(detector, view, Supervision.uniform(Targets.empty(0), PROGRESS))
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in detector.parameters())
    assert detector.detect(detector.predict(detector.extract(view))).boxes.shape[0] == 0
    one = make_view("a", [1])
    found = detector.detect(detector.predict(detector.extract(one)))
    assert found.valid.any()
    assert found.labels.max() < classes


def test_detect__finds_boxes_with_area_best_first_and_none_in_the_padding(detector, make_view):
    view = make_view("a", [1, 2])
    view = replace(view, sizes=torch.tensor([[40, 56], [64, 64]]))
    found = detector.detect(detector.predict(detector.extract(view)))
    assert found.valid.any(dim=1).all()
    assert has_area(found.boxes)[found.valid].all()
    assert (found.confidence.diff(dim=1) <= 0.0).all()
    assert (found.boxes <= view.sizes.flip(-1).repeat(1, 2)[:, None]).all()
    assert (found.boxes >= 0.0).all()


def test_state_dict__makes_the_same_detector(make_detector, make_view):
    detector, other = make_detector(), make_detector()
    with torch.no_grad():
        for parameter in detector.parameters():
            parameter.add_(0.01)
    view = make_view("a", [1])
    expected = detector.predict(detector.extract(view)).last
    assert not torch.equal(other.predict(other.extract(view)).last.class_logits, expected.class_logits)
    other.load_state_dict(detector.state_dict())
    answer = other.predict(other.extract(view)).last
    assert torch.equal(answer.class_logits, expected.class_logits)
    assert torch.equal(answer.box_codes, expected.box_codes)


def test_predict__does_not_depend_on_train_mode(detector, make_view):
    view = make_view("a", [1])
    trains = detector.train().predict(detector.extract(view)).last
    tests = detector.eval().predict(detector.extract(view)).last
    assert torch.equal(trains.class_logits, tests.class_logits)


def test_step__runs_under_autocast_with_losses_and_boxes_in_fp32(make_detector, make_view, make_targets):
    detector = make_detector(spread=False)  # else rounding chooses between much unlike answers
    supervision = Supervision.uniform(make_targets([[(4, 4, 28, 40, 0)]]), PROGRESS)
    with torch.autocast("cpu", torch.bfloat16):
        view = make_view("a", [1])
        losses = learn(detector, view, supervision)
        stages = detector.predict(detector.extract(view))
        found = detector.detect(stages)
    assert stages.last.class_logits.dtype == torch.bfloat16
    assert stages.last.decode().dtype == stages.last.candidates.boxes.dtype == found.boxes.dtype == torch.float32
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    exact = learn(detector, view, supervision)
    for name, value in losses.items():
        torch.testing.assert_close(value, exact[name], rtol=0.1, atol=0.02)


def test_step__weights_that_are_not_finite_reach_the_losses_and_crash_nothing(detector, make_view, make_targets):
    supervision = Supervision.uniform(make_targets([[(4, 4, 28, 40, 0)]]), PROGRESS)
    with torch.no_grad():
        detector.backbone.stem.weight[0, 0, 0, 0] = torch.nan
    losses = learn(detector, make_view("a", [1]), supervision)
    assert not all(value.isfinite() for value in losses.values())
    assert not detector.detect(detector.predict(detector.extract(make_view("a", [1])))).valid.any()

"""DINO's own: its size, its proposals, and what its denoising queries learn."""

from dataclasses import replace

import pytest
import torch

from ssodkit.detectors.denoising import DenoisingConfig, make_noise
from ssodkit.detectors.dino import DinoConfig
from ssodkit.detectors.learning import assign, loss, predict_together
from ssodkit.ops.coding import FrameCoder
from ssodkit.plugins import BuildContext, load_plugins
from ssodkit.recipe.check import load_recipe
from ssodkit.structures.progress import Progress
from ssodkit.structures.teaching import BACKGROUND, IGNORE, Supervision, Targets

PROGRESS = Progress(0, 10)
BOXES = [[(4, 4, 28, 40, 0), (30, 20, 56, 50, 2)], [(10, 8, 34, 44, 1)], []]


@pytest.fixture
def detector(tiny_context):
    context = tiny_context(type="dino")
    return context.detector.build(context)


@pytest.fixture
def noise(detector, make_view):
    """Supervision, settings -> the denoising queries of three images of 64 pixels."""

    def make(supervision: Supervision, **settings):
        frames = torch.tensor([[0.0, 0.0, 64.0, 64.0]]).expand(3, -1)
        rule = detector.rule("denoising", PROGRESS)
        keys = make_view("a", [1, 2, 3]).keys
        return make_noise(DenoisingConfig(**settings), rule, supervision, frames, keys, num_classes=3)

    return make


def test_parameters__are_as_many_as_the_published_model_has():
    load_plugins()
    recipe = load_recipe("coco/supervised_dino")
    config = recipe.detector
    backbone = config.backbone.model_copy(update={"weights": "random", "frozen_stages": 0})
    config = config.model_copy(update={"backbone": backbone})
    assert isinstance(config, DinoConfig)
    with torch.device("meta"):
        dino = config.build(BuildContext(num_classes=80, detector=config, load_weights=False))

    def count(module: torch.nn.Module) -> int:
        return sum(parameter.numel() for parameter in module.parameters())

    assert count(dino.neck) == 5_639_168
    assert [count(layer) for layer in dino.encoder.layers] == [1_282_176] * 6
    assert [count(layer) for layer in dino.decoder.layers] == [1_545_856] * 6
    assert count(dino.decoder.position) == 197_120
    assert count(dino.propose) == 66_304
    assert count(dino.proposal_head.classify) == 20_560
    assert count(dino.proposal_head.move) == 132_612
    unused_names = 2 * 256  # the published table of names has 82 rows for 80 classes
    assert count(dino) - count(dino.backbone) == 23_430_056 - unused_names
    assert count(dino) == 46_938_088 - unused_names


def test_predict__proposes_places_at_cells_that_are_not_at_the_border(detector, make_view):
    view = make_view("a", [1])
    encoder = detector.predict(detector.extract(view)).by_name["encoder"]
    assert encoder.class_logits.shape[1] == detector.config.queries
    tokens = detector.encoder(detector.extract(view).maps, (4, 8, 16), view.sizes)
    distance = (encoder.box_codes[0, :, 0, None, :2] - tokens.centers[0]).abs().amax(dim=-1)
    assert distance.amin(dim=1).max() < 1e-5  # at first boxes do not move
    sides = encoder.box_codes[0, :, 0, 2:].unique().tolist()
    assert all(min(abs(side - expected) for expected in (0.05, 0.1, 0.2)) < 1e-6 for side in sides)


def test_predict__an_image_with_fewer_cells_than_queries_has_as_many(tiny_context, make_view):
    context = tiny_context(type="dino", queries=1000)
    detector = context.detector.build(context)
    found = detector.detect(detector.predict(detector.extract(make_view("a", [1]))))
    assert found.valid.any()
    stages = detector.predict(detector.extract(make_view("a", [1])))
    assert stages.last.class_logits.shape[1] == 16 * 16 + 8 * 8 + 4 * 4


def test_predict__denoising_changes_nothing_about_the_other_queries(detector, make_view, make_targets):
    features = detector.extract(make_view("a", [1, 2, 3]))
    plain = detector.predict(features)
    taught = detector.predict(features, Supervision.uniform(make_targets(BOXES), PROGRESS))
    for name, expected in plain.by_name.items():
        torch.testing.assert_close(taught.by_name[name].class_logits, expected.class_logits)
        torch.testing.assert_close(taught.by_name[name].box_codes, expected.box_codes)
    assert [name for name in taught.by_name if name not in plain.by_name] == ["denoising.1", "denoising.2"]


def test_predict__a_denoising_group_does_not_see_another(detector, make_view, make_targets, monkeypatch):
    features = detector.extract(make_view("a", [1, 2, 3]))
    supervision = Supervision.uniform(make_targets(BOXES), PROGRESS)
    answers = []
    for change in (0.0, 0.2):

        def made(*arguments, change=change):
            noise = make_noise(*arguments)
            return replace(noise, boxes=noise.boxes + change * (noise.slots.group == 0)[..., None])

        monkeypatch.setattr("ssodkit.detectors.dino.make_noise", made)
        answers.append(detector.predict(features, supervision).by_name["denoising.2"].class_logits[0])
    same = (answers[0] == answers[1]).all(dim=-1)
    assert same.tolist() == [False] * 4 + [True] * 8


def test_make_noise__positive_queries_learn_from_their_targets_and_negative_ones_nothing(noise, make_targets):
    supervision = Supervision.uniform(make_targets(BOXES), PROGRESS)
    made = noise(supervision, queries=4, label_noise=0.0)
    assert made.plan["class"] is made.plan["l1"]
    index = made.plan["class"].index
    assert index[0].tolist() == [0, 1, BACKGROUND, BACKGROUND] * 2
    assert index[1].tolist() == [0, BACKGROUND] * 4
    assert index[2].tolist() == [IGNORE] * 8
    assert made.labels[0].tolist() == [0, 2, 0, 2] * 2
    targets = FrameCoder().encode(torch.tensor([[0.0, 0.0, 64.0, 64.0]]).expand(2, -1), supervision.classes.boxes[0])
    shift = (made.boxes[0].view(2, 2, 2, 4)[..., :2] - targets[:, :2]).abs() / (0.25 * targets[:, 2:] * 0.4 * 2)
    assert shift[:, 0].max() <= 1.0


def test_make_noise__renames_a_quarter_of_the_queries(noise, make_targets):
    supervision = Supervision.uniform(make_targets([[(4, 4, 28, 40, 2)]] * 3), PROGRESS)
    made = noise(supervision, queries=2000, label_noise=0.5)
    share = (made.labels != 2).float().mean()  # a third of the new names is the old one
    assert abs(share - 0.25 * 2 / 3) < 0.02


def test_make_noise__targets_of_no_weight_and_crowds_make_no_query(noise, make_targets):
    targets = make_targets(BOXES)
    targets.weight[0, 0] = 0.0
    targets.crowd[1, 0] = True
    index = noise(Supervision.uniform(targets, PROGRESS), queries=2).plan["class"].index
    assert index[0].tolist() == [1, BACKGROUND] * 2
    assert index[1].tolist() == index[2].tolist() == [IGNORE] * 4


def test_make_noise__boxes_are_taught_by_their_own_set(noise, make_targets):
    classes = make_targets(BOXES)
    boxes = replace(classes, weight=classes.weight * torch.tensor([[1.0, 0.0]]))
    made = noise(Supervision(classes, classes, boxes, PROGRESS), queries=2)
    assert made.plan["class"].index[0].tolist() == [0, 1, BACKGROUND, BACKGROUND]
    assert made.plan["l1"].index[0].tolist() == [0, IGNORE, BACKGROUND, IGNORE]


def test_loss__more_targets_than_queries_teach_as_many(detector, make_view, make_targets):
    many = [(x, y, x + 12, y + 10, (x + y) % 3) for x in range(0, 48, 6) for y in range(0, 48, 6)]
    supervision = Supervision.uniform(make_targets([many]), PROGRESS)
    stages = predict_together(detector, [make_view("a", [1])], [supervision])[0].stages
    plan = assign(detector, stages, supervision)
    assert plan["decoder.2"]["class"].positive.sum() == detector.config.queries
    assert stages.by_name["denoising.1"].candidates.valid.sum() == 2 * len(many)
    losses = loss(detector, stages, plan, supervision)
    assert all(value.isfinite() for value in losses.values(losses.denominators()).values())


def test_step__asks_the_host_once_for_each_stream(detector, questions_of_a_step):
    assert questions_of_a_step(detector) == {"ssodkit::least_cost": 2}  # labeled and unlabeled; detecting asks nothing


def test_config__without_denoising_has_no_such_stage(tiny_context, make_view, make_targets):
    stages = {name: rule for name, rule in tiny_context(type="dino").detector.stages.items() if name != "denoising"}
    context = tiny_context(type="dino", denoising=None, stages=stages)
    detector = context.detector.build(context)
    supervision = Supervision.uniform(Targets.empty(1), PROGRESS)
    answered = detector.predict(detector.extract(make_view("a", [1])), supervision)
    assert list(answered.by_name) == ["encoder", "decoder.1", "decoder.2"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"neck": {"channels": 24, "groups": 4}, "transformer": {"heads": 5}}, "a multiple of 4 and of 5 heads"),
        ({"denoising": None}, "the stages of dino are encoder and decoder, not encoder and denoising and decoder"),
    ],
)
def test_config__what_does_not_fit_is_refused(tiny_context, fields, said: str):
    with pytest.raises(ValueError, match=said):
        tiny_context(type="dino", **fields)


def test_config__who_plans_itself_has_no_matcher_and_the_others_have_one(tiny_context):
    stages = tiny_context(type="dino").detector.model_dump()["stages"]
    with_matcher = {**stages, "denoising": {**stages["denoising"], "matcher": {"type": "hungarian"}}}
    without = {**stages, "decoder": {**stages["decoder"], "matcher": None}}
    with pytest.raises(ValueError, match=r"stages\.denoising knows what its candidates learn from"):
        tiny_context(type="dino", stages=with_matcher)
    with pytest.raises(ValueError, match=r"stages\.decoder\.matcher cannot be null"):
        tiny_context(type="dino", stages=without)

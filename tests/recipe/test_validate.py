"""Mistakes in a recipe's keys and values: each has its place, and says what is wanted."""

from collections.abc import Callable

import pytest

from ssodkit.errors import RecipeError
from ssodkit.recipe.check import load_recipe
from ssodkit.recipe.read import parse_yaml
from ssodkit.recipe.validate import locate

Refused = Callable[..., list[str]]


@pytest.mark.parametrize(
    ("old", "new", "mistake"),
    [
        ("steps: 100", "steps: ten", "40:10 engine.steps: must be a whole number, not 'ten'"),
        ("steps: 100", "steps: 10.5", "40:10 engine.steps: must be a whole number, not 10.5"),
        ("steps: 100", "steps: 0", "40:10 engine.steps: must be at least 1, not 0"),
        ("steps: 100", "steps: ~", "40:10 engine.steps: must be a whole number, not null"),
        ("steps: 100", "steps: {a: 1}", "40:10 engine.steps: must be a whole number, not a mapping"),
        ("percent: 2.5", "percent: 101", "6:12 data.percent: must be at most 100.0, not 101"),
        ("percent: 2.5", "percent: 0", "6:12 data.percent: must be above 0.0, not 0"),
        ("percent: 2.5", "percent: [1]", "6:12 data.percent: must be a number, not a list"),
        ("name: toy", "name: 5", "1:7 name: must be text, not 5; put it in quotes if it is meant as text"),
        (
            "name: toy",
            "name: a b",
            "1:7 name: run folders are called like it: letters, digits, '.', '_' and '-' only, not 'a b'",
        ),
        (
            "name: toy",
            "name: toy\nevaluation: {thresholds: [0.05, 1.5]}",
            "2:33 evaluation.thresholds.1: must be below 1.0, not 1.5",
        ),
        ("part: val", "part: test", "5:30 data.test.part: must be 'train' or 'val', not 'test'"),
        ("labeled: {weak: []}", "labeled: weak", "9:12 views.labeled: must be a mapping of keys, not 'weak'"),
        (
            "draws_as: weak",
            "draws_as: []",
            "12:40 views.unlabeled.strong.draws_as: must be text, not a list; put it in",
        ),
        ("drops: [60", "drops: [160 %", "41:58 engine.lr.drops.0: '160 %' is no step number: an integer, a share of"),
        ("drops: [60, 80 %, never]", "drops: 60", "41:57 engine.lr.drops: must be a list, not 60"),
        ("draws: 5", "draws: 1", "34:14 method.scorers.1.draws: must be at least 2, not 1"),
        ("percent: 2.5", "percent: .inf", "6:12 data.percent: must be finite, not Infinity"),
        ("percent: 2.5", "percent: 1e400", "6:12 data.percent: must be finite, not Infinity"),
        ("percent: 2.5", "percent: .nan", "6:12 data.percent: must be finite, not NaN"),
        ("percent: 2.5", "percent: true", "6:12 data.percent: must be a number, not true"),
        ("percent: 2.5", "percent: '2.5'", "6:12 data.percent: must be a number, not '2.5'"),
        ("steps: 100", "steps: true", "40:10 engine.steps: must be a whole number, not true"),
        ("below: 0.02", "below: .nan", "38:39 method.selector.boxes.below: must be a number or `.inf`, not nan"),
        ("unlabeled_weight: 4.0", "unlabeled_weight: true", "30:21 method.unlabeled_weight: write a schedule as {type"),
        (
            "unlabeled_weight: 4.0",
            "unlabeled_weight: -1",
            "30:21 method.unlabeled_weight: must be at least 0.0, not -1",
        ),
        (
            "name: toy",
            'name: "toy\\n"',
            "1:7 name: run folders are called like it: letters, digits, '.', '_' and '-' o",
        ),
        ("name: toy", "name: toy\nseed: 1e3", "2:7 seed: must be a whole number, not 1000.0"),
    ],
)
def test_validate__a_wrong_value_is_shown_with_what_is_wanted(refused: Refused, old: str, new: str, mistake: str):
    lines = refused(old, new)
    assert len(lines) == 1
    assert lines[0].startswith(mistake)


@pytest.mark.parametrize(
    ("old", "new", "mistake"),
    [
        ("  steps: 100", "  stepz: 100", "engine.stepz: unknown key; did you mean 'steps'?"),
        ("data:\n", "dataa: 1\ndata:\n", "dataa: unknown key; did you mean 'data'?"),
        ("part: train", "prt: train", "data.train.prt: unknown key of 'digits'; did you mean 'part'?"),
        ("draws_as", "draw_as", "views.unlabeled.strong.draw_as: unknown key; did you mean 'draws_as'?"),
        (
            "positive: 0.5",
            "positve: 0.5",
            "detector.stages.roi.matcher.positve: unknown key of 'toy_plain'; did you mean 'positive'?",
        ),
        (
            "per_image: 512",
            "per_img: 512",
            "detector.stages.roi.sampler.per_img: unknown key; did you mean 'per_image'?",
        ),
        ("draws: 5", "drawz: 5", "method.scorers.1.drawz: unknown key of 'toy_jitter'; did you mean 'draws'?"),
        (
            "asks: {score",
            "asks: {zzz: 1, score",
            "method.scorers.1.asks.zzz: unknown key; one of: above, at_most, score",
        ),
        ("warmup: 10", "warm: 10", "engine.lr.warm: unknown key of 'toy_drops'; did you mean 'warmup'?"),
    ],
)
def test_validate__an_unknown_key_names_the_nearest(refused: Refused, old: str, new: str, mistake: str):
    assert mistake in [line.partition(" ")[2] for line in refused(old, new)]


def test_validate__an_unknown_key_is_told_from_the_fields_that_its_type_has(refused: Refused):
    lines = refused("  lr: {type: toy_drops, value: 1e-2, warmup: 10", "  lr: {type: step, before: 1, after: 2, aat: 1")
    assert "41:41 engine.lr.aat: unknown key of 'step'; did you mean 'at'?" in lines


@pytest.mark.parametrize(
    ("old", "new", "mistakes"),
    [
        ("name: toy", "seed: 1", ["1:1 name: is missing"]),
        ("  steps: 100\n", "", ["39:1 engine.steps: is missing"]),
        ("part: val", "seed: 1", ["5:3 data.test.part: is missing"]),
        ("type: toy_sure", "", ["32:7 method.scorers.0.type: say which instance_scorer is meant; one of: "]),
        (
            "type: digits, part: val",
            "part: val",
            ["5:3 data.test.type: say which is meant; one of: coco, voc, "],
        ),
        (
            "    roi:\n      matcher: {type: toy_plain, positive: 0.5}",
            "    roi:",
            ["22:5 detector.stages.roi.matcher: is m"],
        ),
    ],
)
def test_validate__a_missing_key_points_at_the_mapping_that_lacks_it(
    refused: Refused, old: str, new: str, mistakes: list[str]
):
    lines = refused(old, new)
    assert [line[: len(mistake)] for line, mistake in zip(lines, mistakes, strict=True)] == mistakes


@pytest.mark.parametrize(
    ("old", "new", "mistake"),
    [
        (
            "{type: digits, part: train}",
            "{type: digit}",
            "4:17 data.train.type: there is no 'digit' here; did you mean 'di",
        ),
        (
            "type: toy_plain",
            "type: toy_plane",
            "23:23 detector.stages.roi.matcher.type: there is no matcher 'toy_plane'; ",
        ),
        ("type: toy_plain", "type: 5", "23:23 detector.stages.roi.matcher.type: there is no matcher '5'; one of: "),
        (
            "unlabeled_weight: 4.0",
            "unlabeled_weight: high",
            "30:21 method.unlabeled_weight: write a schedule as {type: NAME",
        ),
    ],
)
def test_validate__an_unknown_type_names_the_nearest(refused: Refused, old: str, new: str, mistake: str):
    assert [line[: len(mistake)] for line in refused(old, new)] == [mistake]


def test_validate__a_name_that_cannot_be_one_is_refused_at_its_place(refused: Refused):
    assert refused("        class: {taught_by: classes", "        roi/class: {taught_by: classes") == [
        "26:9 detector.stages.roi.terms.roi/class: a key here must match the pattern ^[a-z][a-z0-9_]*$, not 'roi/class'"
    ]


def test_validate__of_a_word_or_a_mapping_only_the_written_form_is_reported(refused: Refused):
    folds = "  folds: {}\n  batch: {{labeled"
    assert refused("  batch: {labeled", folds.format("stak")) == [
        "7:10 data.folds: must be 'stac' or 'soft_teacher', not 'stak'"
    ]
    assert refused("  batch: {labeled", folds.format("{type: list, fil: a.json}")) == [
        "7:3 data.folds.file: is missing",
        "7:23 data.folds.fil: unknown key of 'list'; did you mean 'file'?",
    ]


def test_validate__what_a_model_finds_wrong_among_its_fields_has_the_place_of_the_wrong_one(refused: Refused):
    text = "view 'strong' draws as 'storng', which is no other view of its stream"
    assert refused("draws_as: weak", "draws_as: storng") == [f"12:40 views.unlabeled.strong.draws_as: {text}"]


def test_validate__what_a_model_finds_wrong_with_itself_has_the_place_of_its_mapping(refused: Refused):
    assert refused("below: 0.02", "below: 0.02, above: 0.1") == [
        "38:12 method.selector.boxes: give either `above` or `below`"
    ]


def test_validate__several_mistakes_are_shown_together_by_place(refused: Refused):
    lines = refused("name: toy", "name: toy\nsed: 1", ("engine.steps=-1", "data.percent=0"))
    assert lines == [
        "--set data.percent=0: data.percent: must be above 0.0, not 0",
        "--set engine.steps=-1: engine.steps: must be at least 1, not -1",
        "2:1 sed: unknown key; did you mean 'seed'?",
    ]


def test_validate__an_override_beside_a_missing_key_is_not_blamed(refused: Refused):
    assert refused("  steps: 100\n", "", ("engine.precision=bf16",)) == ["39:1 engine.steps: is missing"]


def test_locate__steps_over_what_was_not_written():
    tree = parse_yaml("a: {b: [x, {c: 1}]}", "f", [])
    assert tree is not None
    assert locate(tree, ("a", "some_tag", "b", 1, "c"))[0] == ("a", "b", 1, "c")
    path, node = locate(tree, ("a", "b", "transforms", 0, "type"))
    assert (path, node.value) == (("a", "b", 0), "x")
    assert locate(tree, ("a", "b", 7)) == (("a", "b"), tree.value["a"].value["b"])


def test_validate__numbers_that_no_training_can_have_are_refused():
    overrides = (
        "data.fold=4294967296",
        "data.train.seed=4294967296",
        "detector.anchors.ratios=[0]",
        "detector.anchors.sides=[[-5], [.nan]]",
        "detector.backbone.channels=[0, 8]",
        "engine.lr.value=-0.1",
        "engine.optimizer.weight_decay=.inf",
        "evaluation.thresholds=[.nan]",
        "method.scorers.0.scale=.inf",
        "method.selector.classes.above=.nan",
        "method.teacher.momentum=.nan",
        "method.unlabeled_weight.before=-1",
        "seed=true",
    )
    with pytest.raises(RecipeError) as refusal:
        load_recipe("soft_teacher", overrides)
    assert [line.split(": ", 1)[1] for line in str(refusal.value).splitlines()] == [
        "data.fold: must be below 4294967296, not 4294967296",
        "data.train.seed: must be below 4294967296, not 4294967296",
        "detector.anchors.ratios.0: must be at least 0.01, not 0",
        "detector.anchors.sides.0.0: must be at least 1.0, not -5",
        "detector.anchors.sides.1.0: must be finite, not NaN",
        "detector.backbone.channels.0: must be at least 1, not 0",
        "engine.lr.value: must be at least 0.0, not -0.1",
        "engine.optimizer.weight_decay: must be finite, not Infinity",
        "evaluation.thresholds.0: must be finite, not NaN",
        "method.scorers.0.scale: must be finite, not Infinity",
        "method.selector.classes.above: must be finite, not NaN",
        "method.teacher.momentum: must be finite, not NaN",
        "method.unlabeled_weight.before: must be at least 0.0, not -1",
        "seed: must be a whole number, not true",
    ]


@pytest.mark.parametrize(
    ("override", "mistake"),
    [
        ("method.teacher.momentum=2", "method.teacher.momentum: must be at most 1.0, and this schedule reaches 2"),
        ("engine.lr={type: step, before: 0, after: 1e9, at: 3}", "engine.lr: must be at most 100.0, and this schedule"),
        ("engine.optimizer={type: sgd, momentum: 0, nesterov: true}", "engine.optimizer: `nesterov` looks ahead along"),
        ("engine.optimizer={type: adamw, betas: [0.9, 1.5]}", "engine.optimizer.betas.1: must be below 1.0, not 1.5"),
        ("method.selector.classes.above=1.5", "method.selector.classes: no confidence is above 1.5: they lie between"),
        ("engine.steps=1" + "0" * 400, "engine.steps: this whole number has more than 64 bits; no field takes one"),
        ("engine.steps=1" + "0" * 5000, "engine.steps: this whole number has more than 64 bits; no field takes one"),
        ('name="\\ud800"', "name: this text holds the character U+D800, which no file can hold"),
    ],
)
def test_validate__what_cannot_work_is_refused(override: str, mistake: str):
    with pytest.raises(RecipeError) as refusal:
        load_recipe("soft_teacher", [override])
    (line,) = str(refusal.value).splitlines()
    assert mistake in line

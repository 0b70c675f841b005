"""Whether parts fit together: refused before a network exists, with what would mend it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from ssodkit.errors import RecipeError
from ssodkit.recipe.check import load_recipe
from ssodkit.recipe.fit import walk
from ssodkit.recipe.model import Recipe

SHIPPED = Path(__file__).parents[2] / "recipes"
Load = Callable[..., Recipe]
Refused = Callable[..., list[str]]

NO_SCORERS = ("method.scorers=[]", "method.selector.boxes.score=confidence")


def test_check_fit__the_toy_recipe_fits(load_changed: Load):
    assert load_changed().name == "toy"


def test_check_fit__a_scorer_needs_what_the_detector_does_not_provide(refused: Refused):
    assert refused("type: toy_two_stage", "type: toy_dense") == [
        "33:7 method.scorers.1: 'toy_jitter' needs 'exact_regions', which 'toy_dense' does not provide; "
        "provided by: detector 'faster_rcnn', detector 'toy_two_stage'; without this need: 'toy_sure'"
    ]


def test_check_fit__a_matcher_may_need_what_only_some_stages_provide(refused: Refused):
    mistakes = refused("type: toy_plain, positive: 0.5", "type: toy_adaptive")
    assert len(mistakes) == 1
    assert mistakes[0].startswith(
        "23:7 detector.stages.roi.matcher: 'toy_adaptive' needs 'predictions', which the stage 'roi' of "
        "'toy_two_stage' does not provide; provided by: stage 'rpn'; without this need: "
    )


@pytest.mark.parametrize(
    ("matcher", "needs"), [("adaptive", "'predictions' and 'strides'"), ("one_to_many", "'predictions'")]
)
def test_check_fit__a_matcher_that_reads_answers_cannot_serve_the_box_head_but_the_rpn(matcher: str, needs: str):
    with pytest.raises(RecipeError) as refusal:
        load_recipe("supervised", [f"detector.stages.roi.matcher={{type: {matcher}}}"])
    text = (
        f"detector.stages.roi.matcher: '{matcher}' needs {needs}, which the stage 'roi' of 'faster_rcnn' does "
        "not provide; provided by: stage 'rpn'; without this need: "
    )
    assert text in str(refusal.value)
    assert "'max_iou'" in str(refusal.value).partition(text)[2]
    recipe = load_recipe("supervised", [f"detector.stages.rpn.matcher={{type: {matcher}}}"])
    assert recipe.detector.stages["rpn"].matcher.type == matcher


def test_check_fit__what_asks_about_any_region_is_refused_on_retinanet():
    detector = SHIPPED / "bases" / "detectors" / "retinanet_small.yaml"
    tree = yaml.safe_load(detector.read_text(encoding="utf-8"))["detector"]
    with pytest.raises(RecipeError) as refusal:
        load_recipe("soft_teacher", [f"detector={json.dumps(tree)}"])
    lines = [line.split(" ", 1)[1] for line in str(refusal.value).splitlines()]
    assert sorted(line for line in lines if "exact_regions" in line) == [
        "method.candidate_scorers.0: 'background_score' needs 'exact_regions', which 'retinanet' does not provide; "
        "provided by: detector 'faster_rcnn'; 'background_score' needs it only as it is set here",
        "method.scorers.0: 'box_jitter' needs 'exact_regions', which 'retinanet' does not provide; "
        "provided by: detector 'faster_rcnn'",
    ]


def test_check_fit__a_score_that_nobody_writes_names_the_scorer_that_would(refused: Refused):
    assert refused(overrides=("method.scorers=[]",)) == [
        "38:20 method.selector.boxes.score: reads the score 'toy_jitter', which no scorer writes; "
        "scores here: confidence; add `- {type: toy_jitter}` to method.scorers, or choose one of these"
    ]


def test_check_fit__a_score_that_the_method_gives_names_the_setting():
    selector = "method.selector={type: label_distribution, places: {score: agreement, above: 0.9}}"
    with pytest.raises(RecipeError) as refusal:
        load_recipe("mean_teacher", [selector])
    assert "reads the score 'agreement', which no scorer writes" in str(refusal.value)
    assert str(refusal.value).endswith("; name further views in `method.ensemble`")
    load_recipe("mean_teacher", [selector, "views.unlabeled.still=[]", "method.ensemble={views: [still]}"])


def test_check_fit__a_score_whose_scorer_the_detector_cannot_serve_is_not_advised():
    with pytest.raises(RecipeError) as refusal:
        load_recipe("consistent_teacher", ["method.selector={type: fixed, score: box_jitter, below: 0.02}"])
    assert str(refusal.value).endswith(
        "method.selector.score: reads the score 'box_jitter', which no scorer writes; scores here: confidence; "
        "'box_jitter' would, but 'retinanet' lacks its 'exact_regions': choose one of these"
    )


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "method.unlabeled_terms={roi: 0.5}",
            "method.unlabeled_terms.roi: no stage or loss term has this name; one of: dense, class, box, dense/class, ",
        ),
        (
            "method.unlabeled_terms={dense/klass: {normalizer: two_means}}",
            "method.unlabeled_terms.dense/klass: no stage or loss term has this name; did you mean 'dense/class'?",
        ),
        (
            "method.unlabeled_terms={box: {normalizer: quota}}",
            "method.unlabeled_terms.box: 'quota' needs 'sampler', which the stage 'dense' of 'retinanet'",
        ),
        (
            "method.unlabeled_terms={class: {normalizer: {type: level_means, balance: [1.0]}}}",
            "method.unlabeled_terms.class: the normalizer's `balance` is for 1 levels, but the pyramid has 2",
        ),
        (
            "method.unlabeled_terms={class: {criterion: {type: softmax}}}",
            "method.unlabeled_terms.class: 'softmax' needs 'softmax', which the stage 'dense' of 'retinanet'",
        ),
        (
            "method.unlabeled_terms={class: {criterion: {type: giou}}}",
            "method.unlabeled_terms.class: 'giou' teaches the answer 'box', but this term 'class' (in the stage",
        ),
        (
            "method.unlabeled_terms={dense: {quality: target}}",
            "method.unlabeled_terms.dense: `quality: target` has no effect on 'giou'; take `weight`, or leave it out",
        ),
        (
            "method.unlabeled_normalizers={roi/class: two_means}",
            "method.unlabeled_normalizers: this is part of `unlabeled_terms` now: write {roi/class: {normalizer: ",
        ),
        (
            "detector.stages.roi={matcher: {type: max_iou}, terms: {}}",
            "detector: the stages of retinanet are dense, not dense and roi",
        ),
    ],
)
def test_check_fit__a_stage_that_the_detector_lacks_is_refused_with_those_it_has(override: str, said: str):
    with pytest.raises(RecipeError) as refusal:
        load_recipe("mean_teacher", [override])
    assert said in str(refusal.value)


def test_check_fit__a_misspelled_score_names_the_nearest(refused: Refused):
    assert refused("score: toy_jitter", "score: toy_jiter") == [
        "38:20 method.selector.boxes.score: reads the score 'toy_jiter', which no scorer writes; "
        "scores here: confidence, toy_sure, toy_jitter; did you mean 'toy_jitter'?"
    ]


def test_check_fit__a_scorer_reads_only_what_was_written_before_it(refused: Refused):
    assert refused("    - {type: toy_sure}\n", "    - {type: toy_sure, asks: {score: toy_jitter}}\n") == [
        "32:38 method.scorers.0.asks.score: reads the score 'toy_jitter', which no scorer before it writes; "
        "scores here: confidence; change the order of the scorers"
    ]


def test_check_fit__confidence_always_exists(load_changed: Load):
    assert load_changed(overrides=NO_SCORERS).method.selector.boxes.score == "confidence"


def test_check_fit__a_view_that_the_method_needs_is_missing(refused: Refused):
    assert refused("    weak: []\n    strong: {transforms: [], draws_as: weak}", "    week: []") == [
        "10:3 views.unlabeled: the method 'toy_method' needs a view 'strong' of the unlabeled images; views here: week",
        "10:3 views.unlabeled: the method 'toy_method' needs a view 'weak' of the unlabeled images; views here: week",
    ]


def test_check_fit__a_method_that_learns_from_unlabeled_images_needs_some(refused: Refused):
    assert refused("unlabeled: 8", "unlabeled: 0") == [
        "7:34 data.batch.unlabeled: the method 'toy_method' learns from unlabeled images; give a step at least 1, not 0"
    ]


def test_check_fit__a_method_without_unlabeled_images_needs_none(load_changed: Load):
    recipe = load_changed("unlabeled: 8", "unlabeled: 0", ("method={type: toy_baseline}",))
    assert recipe.data.batch.unlabeled == 0


def test_check_fit__a_method_that_names_no_term_of_the_detector_is_refused():
    with pytest.raises(RecipeError) as refusal:
        load_recipe("soft_teacher", ["method.unlabeled_terms.roi/bix=0", "method.unlabeled_terms.rio=0.5"])
    assert [line.split(": ", 1)[1] for line in str(refusal.value).splitlines()] == [
        "method.unlabeled_terms.rio: no stage or loss term has this name; did you mean 'roi'?",
        "method.unlabeled_terms.roi/bix: no stage or loss term has this name; did you mean 'roi/box'?",
    ]


def test_check_ensemble__a_view_that_is_not_there_is_named_where_it_was_asked_for():
    with pytest.raises(
        RecipeError, match=r"method\.ensemble\.views: there is no view 'mirored' .* did you mean 'mirrored'\?"
    ):
        load_recipe("bccd/mean_teacher", ["method.ensemble.views=[mirored]"])


@pytest.mark.parametrize("views", ["[strong]", "[mirrored, mirrored]"])
def test_check_ensemble__views_are_further_ones_each_once(views: str):
    with pytest.raises(RecipeError, match=r"`views` are further ones, each once: leave out '(strong|mirrored)'"):
        load_recipe("bccd/mean_teacher", [f"method.ensemble.views={views}"])


def test_check_fit__at_least_one_view_of_labeled_images_is_needed(refused: Refused):
    assert refused("labeled: {weak: []}", "labeled: {}") == [
        "9:3 views.labeled: give at least one view of the labeled images, such as `weak: []`"
    ]


def test_check_fit__frozen_layers_need_weights(refused: Refused, load_changed: Load):
    assert refused("weights: local, ", "") == [
        "15:3 detector.backbone: 'toy_backbone' freezes layers that have random weights; "
        "give it weights, or freeze nothing"
    ]
    load_changed("weights: local, frozen_stages: 1", "frozen_stages: 0")


@pytest.mark.parametrize("steps", [100, 61])
def test_check_fit__a_step_number_before_the_end_is_right(load_changed: Load, steps: int):
    assert load_changed(overrides=(f"engine.steps={steps}",)).engine.steps == steps


def test_check_fit__a_peak_that_nobody_measures_is_refused(refused: Refused):
    lines = refused(overrides=("engine.patience=3", "evaluation.checkpoint=best"))
    assert [line.split(": ")[1] for line in lines] == ["engine.patience", "engine.patience", "evaluation.checkpoint"]
    assert lines[2].endswith("name them, such as `data.validation: {type: held_out, percent: 20}`, or take `last`")
    assert lines[0].endswith("it counts evaluations on the way, and there are none: set engine.evaluate_every")


def test_check_fit__a_step_number_at_or_beyond_the_end_is_refused_with_its_place(refused: Refused):
    cure = "write a share of the run such as `33 %`, or `never`, or lengthen the run"
    assert refused(overrides=("engine.steps=60",)) == [
        f"41:58 engine.lr.drops.0: step 60 is not before the run's end (engine.steps is 60); {cure}"
    ]
    assert refused(overrides=("engine.steps=10",)) == [
        f"41:46 engine.lr.warmup: step 10 is not before the run's end (engine.steps is 10); {cure}",
        f"41:58 engine.lr.drops.0: step 60 is not before the run's end (engine.steps is 10); {cure}",
    ]


def test_check_fit__a_step_number_behind_an_alias_or_in_a_nested_schedule_is_found(refused: Refused):
    mistakes = refused("unlabeled_weight: 4.0", "unlabeled_weight: {type: step, before: 0, after: 4, at: 100}")
    assert [mistake.partition(":")[0] + mistake.partition(" ")[2][:28] for mistake in mistakes] == [
        "30method.unlabeled_weight.at: "
    ]


def test_check_fit__a_number_of_steps_that_is_no_moment_may_exceed_the_run(load_changed: Load):
    """The head start of a running mean makes it rise more slowly, however short the run is."""
    recipe = load_changed(overrides=("engine.lr={type: running_mean, cap: 0.01, warmup: 500}",))
    assert recipe.engine.steps < 500


def test_check_fit__shares_fit_runs_of_any_length(load_changed: Load):
    shares = ("engine.lr.warmup=10 %", "engine.lr.drops=[60 %, 100 %, never]")
    for steps in (1, 2, 7):
        assert load_changed(overrides=(*shares, f"engine.steps={steps}")).engine.steps == steps


def test_check_fit__an_answer_that_no_term_teaches_is_refused(refused: Refused):
    mistakes = refused(
        "box: {taught_by: boxes, criterion: {type: l1}", "box: {taught_by: boxes, criterion: {type: softmax}"
    )
    text = (
        "25:7 detector.stages.roi.terms: no term teaches the stage's answer 'box'; give it one with a criterion that "
        "does: ciou, giou, iou, l1"
    )
    assert [mistake[: len(text)] for mistake in mistakes] == [text]


def test_check_fit__a_criterion_for_another_form_of_answer_is_refused(refused: Refused):
    assert refused("criterion: {type: softmax}", "criterion: {type: focal}") == [
        "26:37 detector.stages.roi.terms.class.criterion: 'focal' needs 'sigmoid', which the stage 'roi' of "
        "'toy_two_stage' does not provide; provided by: stage 'rpn'; without this need: 'softmax'"
    ]


def test_check_fit__a_normalizer_that_counts_draws_needs_a_sampler():
    with pytest.raises(RecipeError) as refusal:
        load_recipe("supervised_retinanet", ["detector.stages.dense.terms.box.normalizer=quota"])
    assert ": 'quota' needs 'sampler', which the stage 'dense' of 'retinanet' does not provide; " in str(refusal.value)


def test_check_fit__detections_are_ranked_by_answers_that_there_are():
    with pytest.raises(RecipeError) as refusal:
        load_recipe("supervised_retinanet", ["detector.test.rank={class: 1.0, quality: 1.0}"])
    said = "detector.test.rank.quality: the stage 'dense' has no such answer; answers to rank by: class"
    assert said in str(refusal.value)


def test_check_fit__terms_have_any_name_and_null_takes_one_away(load_changed: Load):
    terms = "detector.stages.roi.terms"
    renamed = "{taught_by: boxes, criterion: {type: giou}, normalizer: positives}"
    roi = load_changed(overrides=(f"{terms}.box=null", f"{terms}.overlap={renamed}")).detector.stages["roi"]
    assert list(roi.terms) == ["class", "overlap"]


def test_check_fit__everything_that_does_not_fit_is_shown_together(refused: Refused):
    overrides = ("engine.steps=60", "method.scorers=[]", "data.batch.unlabeled=0", "detector.backbone.weights=null")
    assert len(refused(overrides=overrides)) == 4


def test_walk__finds_configs_in_mappings_and_tuples_by_their_keys(load_changed: Load):
    paths = {path for path, _ in walk(load_changed())}
    assert {(), ("detector", "stages", "roi", "matcher"), ("method", "scorers", 1, "asks"), ("engine", "lr")} <= paths


def test_check_fit__keys_of_a_stage_need_what_they_speak_of(refused: Refused):
    roi = "the stage 'roi' of 'toy_two_stage' does not provide, but"
    overrides = ("detector.stages.roi.one_class=true", "detector.stages.roi.crossing=ignore")
    assert [line.split(": ", 1)[1] for line in refused(overrides=overrides)] == [
        f"detector.stages.roi.crossing: `ignore` needs 'strides', which {roi}: stage 'rpn'; leave it out",
        f"detector.stages.roi.one_class: `true` needs 'no_classes', which {roi}: nothing installed; leave it out",
    ]


@pytest.mark.parametrize(
    ("name", "override", "mistake"),
    [
        ("supervised", "detector.stages.roi.one_class=true", "`true` needs 'no_classes', which the stage 'roi' of"),
        ("supervised_retinanet", "detector.stages.dense.one_class=true", "`true` needs 'no_classes', which the stage"),
        ("supervised", "detector.stages.roi.crossing=ignore", "`ignore` needs 'strides', which the stage 'roi' of"),
        ("mean_teacher", "method.teacher.proposals=test", "`test` needs 'proposals', which 'retinanet' does not provi"),
        ("mean_teacher", "method.teacher.proposals=640", "`640` needs 'proposals', which 'retinanet' does not provide"),
        ("supervised", "detector.neck.extra_relu=true", "`extra_relu` has no effect without two `extra_levels` or"),
        ("supervised", "detector.stages.roi.matcher.best_learns=its_own", "`best_learns` has no effect without"),
        ("supervised", "detector.stages.roi.terms.box.quality=target", "`quality: target` has no effect on 'l1'; take"),
    ],
)
def test_check_fit__a_key_without_effect_is_refused(name: str, override: str, mistake: str):
    with pytest.raises(RecipeError) as refusal:
        load_recipe(name, [override])
    assert f": {mistake}" in str(refusal.value)
    assert len(str(refusal.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("changes", "mistake"),
    [
        (
            ["engine.lr=100", "engine.lr_for_images=1", "data.batch={labeled: 2, unlabeled: 0}"],
            "engine.lr_for_images: for the 2 images of a step, the learning rate reaches 200, which is above 100",
        ),
        (
            ["engine.lr=2", "engine.optimizer={type: adamw, weight_decay: 0.1, backbone_lr: 6}"],
            "engine.optimizer.weight_decay: times the learning rate, which reaches 12, it is above 1: weights would g",
        ),
    ],
)
def test_check_fit__what_multiplies_the_learning_rate_is_in_range(changes: list[str], mistake: str):
    with pytest.raises(RecipeError) as refusal:
        load_recipe("supervised", changes)
    assert mistake in str(refusal.value)

"""Every shipped recipe is loaded and checked, and editors find its schema."""

import os
import re
from pathlib import Path

import pytest
import yaml
from two_steps import take_two_steps

from ssodkit.data.batch_plan import derive_batch
from ssodkit.methods.imitation import ImitationConfig
from ssodkit.methods.pseudo_label import PseudoLabelConfig
from ssodkit.recipe.check import first_stage, load_recipe
from ssodkit.recipe.merge import read_tree
from ssodkit.recipe.read import shipped_recipes
from ssodkit.recipe.show import dump_recipe
from ssodkit.structures.progress import Progress

RECIPES = Path(__file__).parents[1] / "recipes"
FILES = sorted(RECIPES.rglob("*.yaml"))
NAMES = [path.relative_to(RECIPES).with_suffix("").as_posix() for path in FILES if "bases" not in path.parts]
AT_LEAST = 27
EMBEDDED = [name for name in NAMES if "/" not in name]
PAPERS = [name for name in NAMES if name.startswith(("coco/", "voc/"))]


def test_recipes__are_found():
    assert len(NAMES) >= AT_LEAST
    assert len(EMBEDDED) >= 8
    assert shipped_recipes() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_recipes__every_shipped_recipe_is_right(name: str, tmp_path: Path):
    recipe = load_recipe(name)
    here = dump_recipe(load_recipe(RECIPES / f"{name}.yaml"))
    # The installed recipes name each other; those of a checkout beside them are other files.
    assert re.sub(rf"{RECIPES.resolve()}/([\w/]+)\.yaml", r"\1", here) == dump_recipe(recipe)
    saved = tmp_path / "recipe.yaml"
    saved.write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(saved) == recipe


@pytest.mark.parametrize("name", NAMES)
def test_recipes__every_command_shares_a_step_by_as_many_processes_as_it_says(name: str):
    recipe = load_recipe(name)
    said = re.findall(r"--nproc-per-node (\d+)", (RECIPES / f"{name}.yaml").read_text(encoding="utf-8"))
    worlds = [derive_batch(recipe.data.batch, int(count)).world for count in said]
    assert worlds == [int(count) for count in said]


@pytest.mark.parametrize("name", NAMES)
def test_recipes__every_shipped_recipe_takes_two_steps_at_a_tiny_size(name: str):
    recipe = load_recipe(name)
    is_small = recipe.detector.backbone.type == "small"
    changes = [] if is_small else ["detector.backbone.name=test_resnet", "detector.neck.channels=32"]
    if "roi" in recipe.detector.stages:
        changes += ["detector.roi.width=16"]
    if isinstance(recipe.method, PseudoLabelConfig | ImitationConfig):
        changes += ["method.unlabeled_weight=1.0"]
    if "decoder" in recipe.detector.stages:
        changes += ["detector.queries=50"]
    if isinstance(recipe.method, PseudoLabelConfig):  # whatever a new network says is taught
        changes += ["method.teacher.score=0.0"]
        changes += {
            "fixed": ["method.selector.above=0.0", "method.selector.ignore_from=null"],
            "gmm": [],
            "label_distribution": [
                "method.selector.reliable=10",
                "method.selector.uncertain=10",
                "method.selector.least=0",
                "method.selector.floor=0",
            ],
            "soft_teacher": ["method.selector.objectness.above=0.0", "method.selector.classes.above=0.0"],
        }[recipe.method.selector.type]
        if recipe.method.scorers:
            changes += ["method.scorers.0.asks.above=0.0", "method.selector.boxes.below=10.0"]
        elif recipe.method.teacher.scores:
            changes += ["method.selector.boxes.above=0.0"]
    take_two_steps(load_recipe(name, changes))


def test_recipes__csd_is_one_line_in_another_methods_recipe():
    tiny = ["detector.roi.width=16", "method.teacher.score=0.0", "method.unlabeled_weight=1.0"]
    tiny += [f"method.selector.{name}.above=0.0" for name in ("objectness", "classes")]
    tiny += ["method.scorers.0.asks.above=0.0", "method.selector.boxes.below=10.0"]
    recipe = load_recipe("soft_teacher", [*tiny, "method.consistencies=[{type: flip, foreground: none}]"])
    losses = take_two_steps(recipe)
    assert losses.keys() > {"unlabeled/roi/class", "consistency/flip/class", "consistency/flip/box"}
    assert losses["consistency/flip/class"] > 0.0


@pytest.mark.parametrize("steps", [2, 3, 10])
@pytest.mark.parametrize("name", EMBEDDED)
def test_recipes__an_embedded_recipe_runs_for_any_number_of_steps(name: str, steps: int):
    assert load_recipe(name, [f"engine.steps={steps}"]).engine.steps == steps


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(RECIPES).as_posix())
def test_recipes__the_first_line_points_editors_at_the_schema(path: Path):
    schema = Path(os.path.relpath(RECIPES / "recipe.schema.json", path.parent)).as_posix()
    assert path.read_text(encoding="utf-8").splitlines()[0] == f"# yaml-language-server: $schema={schema}"


def test_recipes__stac_learns_at_the_published_rates_in_both_stages():
    for name, rates in {
        "coco/stac": {0: 0.0033, 500: 0.00665, 1000: 0.01, 119_999: 0.01, 120_000: 0.001, 160_000: 0.0001},
        "coco/supervised_stac": {0: 0.0033, 500: 0.00665, 1000: 0.01, 120_000: 0.001, 179_999: 0.0001},
        "voc/stac": {0: 0.001, 59_999: 0.001, 60_000: 0.0003, 120_000: 0.00009, 159_999: 0.00009},
        "voc/supervised_stac": {0: 0.001, 59_999: 0.001, 60_000: 0.0001, 79_999: 0.0001},
    }.items():
        engine = load_recipe(name).engine
        seen = {step: engine.lr.at(Progress(step, engine.steps)) for step in rates}
        assert seen == pytest.approx(rates), name
        assert engine.lr_for_images == load_recipe(name).data.batch.slots


def test_recipes__stac_labels_at_original_size_where_it_follows_the_paper():
    sizes = {name: load_recipe(name).data.unlabeled.made_at for name in ("stac", "coco/stac", "voc/stac")}
    assert sizes == {"stac": "test", "coco/stac": "original", "voc/stac": "original"}


def test_recipes__both_stages_of_stac_have_one_detector():
    for name in ("stac", "coco/stac", "voc/stac"):
        recipe = load_recipe(name)
        first = first_stage(recipe)
        assert first is not None
        assert first.detector == recipe.detector
        assert first.views.labeled == recipe.views.labeled
        assert first.views.test == recipe.views.test


def test_recipes__learn_at_the_published_rates():
    at_the_end = {179_989: 0.01, 179_992: 0.001, 179_997: 1e-4, 179_999: 1e-4}
    published = {
        "coco/mean_teacher": {0: 1e-5, 250: 0.005005, 499: 0.00998, 500: 0.01, 179_999: 0.01},
        "coco/consistent_teacher": {0: 1e-5, 500: 0.01, 179_999: 0.01},
        "coco/consistent_teacher_2x8": {0: 5e-6, 500: 0.005, 179_999: 0.005},
        "coco/consistent_teacher_additional": {0: 1e-5, 479_999: 0.01, 480_000: 0.001, 640_000: 1e-4, 719_999: 1e-4},
        "coco/supervised_fcos": {0: 0.003333, 500: 0.01, 59_999: 0.01, 60_000: 0.001, 80_000: 1e-4, 89_999: 1e-4},
        "coco/supervised_objectness": {0: 0.0, 277: 0.005, 554: 0.01, 55_443: 0.01},
        "coco/supervised_retinanet": {0: 1e-5, 119_999: 0.01, 120_000: 0.001, 160_000: 1e-4, 179_999: 1e-4},
        "coco/unbiased_teacher": {0: 1e-5, 100: 0.001009, 500: 0.005005, 1000: 0.01} | at_the_end,
        "coco/unbiased_teacher_additional": {0: 1e-5, 1000: 0.01, 359_999: 0.01},
        # Not published: ours, counted from the end of the steps on labels alone.
        "coco/humble_teacher": {0: 1e-5, 1000: 0.01, 139_999: 0.01, 140_000: 0.001, 180_000: 1e-4, 199_999: 1e-4},
        "coco/humble_teacher_additional": {0: 1e-5, 329_999: 0.01, 330_000: 0.001, 410_000: 1e-4, 449_999: 1e-4},
        "voc/humble_teacher": {0: 1e-5, 1000: 0.01, 37_999: 0.01, 38_000: 0.001, 47_999: 0.001},
        "coco/semi_detr": {0: 1e-4, 119_999: 1e-4},
        "coco/semi_detr_additional": {0: 1e-4, 119_999: 1e-4, 120_000: 1e-5, 160_000: 1e-6, 239_999: 1e-6},
        "voc/semi_detr": {0: 1e-4, 79_999: 1e-4},
        "coco/unbiased_teacher_v2": {0: 1e-5, 1000: 0.01, 179_999: 0.01},
        "coco/unbiased_teacher_v2_faster_rcnn": {0: 1e-5, 1000: 0.01, 179_999: 0.01},
        "voc/mean_teacher": {0: 1e-5, 500: 0.01, 71_999: 0.01},
        "voc/consistent_teacher": {0: 1e-5, 500: 0.01, 71_999: 0.01},
        "voc/unbiased_teacher": {0: 1e-5, 1000: 0.01} | at_the_end,
    }
    for name, rates in published.items():
        engine = load_recipe(name).engine
        seen = {step: engine.lr.at(Progress(step, engine.steps)) for step in rates}
        assert seen == pytest.approx(rates, abs=5e-7), name
        assert engine.steps == max(rates) + 1, name


@pytest.mark.parametrize(
    ("name", "weights", "momenta"),
    [
        ("coco/mean_teacher", {0: 2.0, 179_999: 2.0}, {0: 0.0, 1: 0.5, 1999: 0.9995, 180_000: 0.9995}),
        ("voc/mean_teacher", {0: 2.0, 71_999: 2.0}, {0: 0.0, 1: 0.5, 1999: 0.9995, 72_000: 0.9995}),
        ("coco/consistent_teacher", {0: 0.0, 9_999: 0.0, 10_000: 2.0}, {1: 0.5, 1999: 0.9995, 180_000: 0.9995}),
        ("coco/consistent_teacher_2x8", {9_999: 0.0, 10_000: 1.0}, {1: 0.5, 4999: 0.9998, 180_000: 0.9998}),
        ("coco/consistent_teacher_additional", {9_999: 0.0, 10_000: 2.0}, {1: 0.5, 4999: 0.9998, 720_000: 0.9998}),
        ("voc/consistent_teacher", {999: 0.0, 1_000: 2.0}, {1: 0.5, 1999: 0.9995, 72_000: 0.9995}),
        # The copy before step B is the one after update B: the last whose momentum is 0.
        ("coco/unbiased_teacher", {1_999: 0.0, 2_000: 4.0}, {1_999: 0.0, 2_000: 0.0, 2_001: 0.9996}),
        ("coco/unbiased_teacher_additional", {89_999: 0.0, 90_000: 2.0}, {90_000: 0.0, 90_001: 0.9996}),
        ("coco/unbiased_teacher_v2_faster_rcnn", {1_999: 0.0, 2_000: 1.0}, {2_000: 0.0, 2_001: 0.9996}),
        ("coco/dense_teacher", {5_000: 0.0, 7_500: 0.5, 10_000: 1.0}, {3_001: 0.0, 3_002: 0.9996}),
        ("coco/dense_teacher_additional", {20_000: 0.0, 30_000: 0.5, 40_000: 1.0}, {10_001: 0.0, 10_002: 0.9996}),
        ("voc/unbiased_teacher", {29_999: 0.0, 30_000: 2.0}, {30_000: 0.0, 30_001: 0.999}),
        ("coco/humble_teacher", {19_999: 0.0, 20_000: 0.5}, {20_000: 0.0, 20_001: 0.999}),
        ("coco/humble_teacher_additional", {89_999: 0.0, 90_000: 0.5}, {90_000: 0.0, 90_001: 0.999}),
        ("voc/humble_teacher", {7_999: 0.0, 8_000: 0.5}, {8_000: 0.0, 8_001: 0.999}),
    ],
)
def test_recipes__unlabeled_weight_and_teacher_follow_the_published_schedules(name, weights, momenta):
    recipe = load_recipe(name)
    steps, method = recipe.engine.steps, recipe.method
    assert {step: method.unlabeled_weight.at(Progress(step, steps)) for step in weights} == weights
    seen = {updates: method.teacher.momentum.at(Progress(updates, steps)) for updates in momenta}
    assert seen == pytest.approx(momenta, abs=1e-12)
    rests = any(one in name for one in ("unbiased", "humble", "dense"))  # until the burn-in's end
    assert method.uses_unlabeled(Progress(0, steps)) == (not rests)
    assert recipe.evaluation.result == "teacher"


@pytest.mark.parametrize(
    ("name", "slots", "clip", "decay", "precision"),
    [
        ("coco/mean_teacher", (8, 32), 20.0, "all", "fp16"),
        ("coco/consistent_teacher", (8, 32), 20.0, "all", "fp32"),
        ("coco/consistent_teacher_2x8", (8, 8), 20.0, "all", "fp32"),
        ("coco/consistent_teacher_additional", (8, 32), 20.0, "all", "fp32"),
        ("coco/unbiased_teacher", (32, 32), None, "all", "fp32"),
        ("coco/unbiased_teacher_additional", (32, 32), None, "all", "fp32"),
        ("coco/stac", (8, 8), None, "weights", "fp32"),
        ("coco/supervised_retinanet", (8, 0), 20.0, "all", "fp32"),
        ("coco/supervised_fcos", (16, 0), None, "weights", "fp32"),
        ("coco/supervised_fam3d", (8, 0), 20.0, "all", "fp32"),
        ("voc/mean_teacher", (8, 32), 20.0, "all", "fp32"),
        ("voc/consistent_teacher", (8, 32), 20.0, "all", "fp32"),
        ("voc/unbiased_teacher", (8, 8), None, "all", "fp32"),
        ("voc/stac", (1, 1), None, "weights", "fp32"),
        ("coco/humble_teacher", (8, 8), None, "all", "fp32"),
        ("voc/humble_teacher", (8, 8), None, "all", "fp32"),
        ("coco/unbiased_teacher_v2", (8, 8), None, "weights", "fp32"),
        ("coco/unbiased_teacher_v2_faster_rcnn", (32, 32), None, "all", "fp32"),
    ],
)
def test_recipes__batches_and_optimizers_are_the_published_ones(name, slots, clip, decay, precision):
    recipe = load_recipe(name)
    engine, batch = recipe.engine, recipe.data.batch
    assert (batch.labeled, batch.unlabeled) == slots
    assert (engine.clip_norm, engine.precision) == (clip, precision)
    optimizer = engine.optimizer
    assert (optimizer.type, optimizer.momentum, optimizer.weight_decay, optimizer.decay) == ("sgd", 0.9, 1e-4, decay)


@pytest.mark.parametrize(
    ("name", "slots", "unlabeled_weight"),
    [("coco/semi_detr", (8, 32), 4.0), ("coco/semi_detr_additional", (32, 32), 2.0), ("voc/semi_detr", (8, 32), 4.0)],
)
def test_recipes__semi_detr_changes_all_at_once_after_half_of_the_run(name, slots, unlabeled_weight):
    recipe = load_recipe(name)
    engine, method, detector = recipe.engine, recipe.method, recipe.detector
    batch, optimizer = recipe.data.batch, engine.optimizer
    assert (batch.labeled, batch.unlabeled) == slots
    assert engine.lr_for_images == sum(slots)
    assert (optimizer.type, optimizer.weight_decay, optimizer.decay) == ("adamw", 1e-4, "all")
    assert (optimizer.backbone_lr, engine.clip_norm) == (0.1, 0.1)
    (consistency,) = method.consistencies
    (denoising,) = method.unlabeled_terms.values()
    half = engine.steps // 2
    for step, matcher, nms, weights in (
        (0, "one_to_many", 0.6, (unlabeled_weight, 10 * unlabeled_weight, 0.0)),
        (half - 1, "one_to_many", 0.6, (unlabeled_weight, 10 * unlabeled_weight, 0.0)),
        (half, "hungarian", None, (unlabeled_weight, 0.0, 1.0)),
        (engine.steps - 1, "hungarian", None, (unlabeled_weight, 0.0, 1.0)),
    ):
        now = Progress(step, engine.steps)
        assert {detector.stages[stage].at(now).matcher.type for stage in ("encoder", "decoder")} == {matcher}
        assert detector.test.at(now).nms == nms
        schedules = (method.unlabeled_weight, consistency.weight, denoising.weight)
        assert tuple(schedule.at(now) for schedule in schedules) == weights
    momenta = {0: 0.0, 1: 0.5, 9: 0.9, 998: 0.998999, 999: 0.999, 5000: 0.999}
    seen = {updates: method.teacher.momentum.at(Progress(updates, engine.steps)) for updates in momenta}
    assert seen == pytest.approx(momenta, abs=1e-6)
    assert (method.teacher.score, method.teacher.nms) == (0.01, 0.6)
    assert (method.selector.above, method.selector.deviations, method.selector.at_most) == (0.4, 1.0, 300)
    assert recipe.evaluation.result == "student"


def test_recipes__the_dense_detector_learns_from_mosaics_as_published():
    recipe = load_recipe("coco/supervised_objectness")
    batch, optimizer, views = recipe.data.batch, recipe.engine.optimizer, recipe.views
    assert (batch.labeled, batch.same_orientation, recipe.engine.lr_for_images) == (64, False, 64)
    assert recipe.method.loss_scale == batch.labeled  # sums over images, where our losses are means
    assert (optimizer.momentum, optimizer.nesterov, optimizer.weight_decay, optimizer.decay) == (
        0.937, True, 5e-4, "weights",
    )  # fmt: skip
    assert recipe.engine.steps == round(300 * int(0.1 * 118_287) / batch.labeled)
    assert (views.labeled_mosaic.side, views.labeled_mosaic.probability, views.labeled_mosaic.fill) == (640, 1.0, 114)
    assert (views.minimum_visible, views.labeled["labeled"].fill) == (0.1, 114)
    jitter, hsv, flip = views.labeled["labeled"].transforms
    assert (jitter.side, jitter.factor, jitter.shift) == (640, (0.1, 1.9), 0.1)
    assert (hsv.hue, hsv.saturation, hsv.value, flip.probability) == (0.015, 0.7, 0.4, 0.5)
    assert recipe.evaluation.thresholds[0] == recipe.detector.test.score == 0.001


def test_recipes__test_images_have_the_published_sizes():
    sizes = {
        "coco": (800, 1333),
        "voc": (600, 1000),
        "voc/unbiased_teacher": (600, 1333),
        "voc/dense_teacher": (600, 1333),
    }
    sizes |= {"coco/supervised_objectness": (640, 640), "voc/semi_detr": (800, 1333)}
    for name in PAPERS:
        expected = sizes.get(name) or sizes[name.split("/")[0]]
        (resize,) = load_recipe(name).views.test.transforms
        assert (resize.short, resize.long) == ((expected[0], expected[0]), expected[1]), name


@pytest.mark.parametrize("name", ["humble_teacher", "soft_teacher", "stac", "unbiased_teacher"])
def test_recipes__the_views_of_voc_differ_from_cocos_in_sizes_alone(name: str):
    def without_sizes(value: object) -> object:
        if isinstance(value, dict):
            return (
                "resize" if value.get("type") == "resize" else {key: without_sizes(one) for key, one in value.items()}
            )
        return [without_sizes(one) for one in value] if isinstance(value, list) else value

    coco, voc = (read_tree(RECIPES / "bases" / "views" / f"{name}{where}.yaml").plain for where in ("", "_voc"))
    assert without_sizes(coco) == without_sizes(voc)
    assert coco != voc


def test_views__without_an_upright_are_those_of_photographs_and_vertical_flips():
    """The two bases repeat each other, as lists of transforms are not merged."""

    def upright(value):
        """What stands in the file, without vertical flips."""
        if isinstance(value, dict):
            return {key: upright(each) for key, each in value.items()}
        if isinstance(value, list):
            return [upright(each) for each in value if not isinstance(each, dict) or "direction" not in each]
        return value

    folder = Path(__file__).parents[1] / "recipes" / "bases" / "views"
    files = [folder / f"{name}.yaml" for name in ("photographs", "any_way_up")]
    photographs, other = (yaml.safe_load(file.read_text(encoding="utf-8"))["views"] for file in files)
    further = [other["unlabeled"].pop(name) for name in ("upside_down", "turned")]
    assert [len(each) for each in further] == [1, 2]
    assert upright(other) == photographs
    assert other != photographs

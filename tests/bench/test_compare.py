import json
import shutil
from pathlib import Path

import pytest

from ssodkit.bench import compare as comparison
from ssodkit.bench.verdict import choice, verdict
from ssodkit.data.batch_plan import derive_batch
from ssodkit.engine.checkpoint import read_run
from ssodkit.errors import RecipeError, TrainingError
from ssodkit.recipe.check import load_recipe

SHORTER = ("engine.steps=2", "engine.evaluate_every=null", "watch.gallery.images=0", "evaluation.images=4")


@pytest.fixture(scope="module")
def recipe(watched):
    """Two steps of Soft Teacher."""
    return load_recipe("soft_teacher", (*watched, *SHORTER))


@pytest.fixture(scope="module")
def compared(recipe, tmp_path_factory):
    """The folder of a comparison on one draw, and what it said."""
    run = tmp_path_factory.mktemp("compared") / "run"
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("SSODKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield run, comparison.compare(recipe, run, device="cpu")


def result(run):
    return json.loads((run / "result.json").read_text())


def test_compare__the_control_has_the_same_labels_and_steps_and_nothing_unlabeled(compared):
    run, _ = compared
    ours, control = result(run), result(run / "control")
    assert (ours["fold"], ours["step"], ours["seed"]) == (control["fold"], control["step"], control["seed"])
    assert control["pseudo_labels"] is None
    assert set(control["thresholds"]["0.05"]) == {"student", "teacher"}
    own, other = (load_recipe(folder / "recipe.yaml") for folder in (run, run / "control"))
    assert other.detector == own.detector
    assert other.method.teacher == own.method.teacher
    assert other.data.batch.unlabeled == 0


def test_compare__says_the_difference_of_what_the_two_scored(compared):
    run, said = compared
    ours, control = result(run), result(run / "control")
    assert said == json.loads((run / "comparison.json").read_text())
    assert said["difference"] == pytest.approx(ours["teacher"]["AP"] - control["teacher"]["AP"])
    assert said["per_class"]["3"]["AP"] == ours["per_class"]["teacher"]["3"]["AP"]
    assert said["interval_over"] == "test images"


def test_compare__what_was_chosen_stands_for_the_run(compared, tmp_path):
    finished, said = compared
    assert json.loads((finished / "choice.json").read_text()) == said["chosen"]
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (run / "choice.json").write_text('{"run": "control", "network": "student", "AP": 0.5, "by": "test"}')
    recipe, checkpoint = read_run(run)
    assert (recipe.name, recipe.evaluation.result) == ("soft_teacher_supervised", "student")
    assert checkpoint == run / "control" / "checkpoints" / "last"
    (run / "choice.json").write_text("{}")
    with pytest.raises(TrainingError, match=r"choice.json is damaged. Delete it, and the run's own network is used"):
        read_run(run)


def scored(**networks):
    """A result with these AP."""
    scores = {name: {"AP": average} for name, average in networks.items()}
    return {**scores, "thresholds": {"0.05": scores}, "result": "teacher"}


def test_choose__takes_the_best_of_all_networks():
    pair = [scored(student=0.4, teacher=0.5), scored(student=0.6, teacher=0.3)]
    assert comparison.choose(pair) == {"run": "control", "network": "student", "AP": 0.6, "by": "test"}
    assert comparison.choose([scored(student=None, teacher=0.0)] * 2)["run"] == "."


def test_choose__goes_by_validation_images_where_there_are_any():
    ours, control = scored(student=0.4, teacher=0.5), scored(student=0.6, teacher=0.3)
    pair = [
        {**ours, "validation": {"student": 0.2, "teacher": 0.7}},
        {**control, "validation": {"student": 0.6, "teacher": 0.1}},
    ]
    assert comparison.choose(pair) == {"run": ".", "network": "teacher", "AP": 0.7, "by": "validation"}


def test_choose__a_recipe_can_name_the_network_that_stands():
    pair = [scored(student=0.4, teacher=0.5), scored(student=0.6, teacher=0.3)]
    ours, control = (comparison.choose(pair, stands) for stands in ("run", "control"))
    assert ours == {"run": ".", "network": "teacher", "AP": 0.5, "by": "recipe"}
    assert control == {"run": "control", "network": "teacher", "AP": 0.3, "by": "recipe"}
    assert choice(control) == (
        "predict, label, eval and load use the teacher of the control, as evaluation.stands says."
    )


def test_compare__goes_on_where_it_was_stopped(compared, tmp_path):
    finished, said = compared
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    shutil.rmtree(run / "control")
    (run / "choice.json").unlink()
    (run / "comparison.json").write_text('{"control": "supervised", "draws": 1}')
    before = (run / "result.json").stat().st_mtime_ns
    again = comparison.resume(run, "cpu")
    assert again == said
    assert (run / "result.json").stat().st_mtime_ns == before  # what was finished was not trained again


def test_compare__draws_have_folds_and_seeds_of_their_own(recipe):
    run = Path("run")
    pairs = comparison.pairs_of(run, recipe, 3)
    assert [(pair.run, pair.recipe.data.fold, pair.recipe.seed) for pair in pairs] == [
        (run, 1, 0),
        (run / "draws" / "2", 2, 1),
        (run / "draws" / "3", 3, 2),
    ]
    assert all(
        (pair.control.data.fold, pair.control.seed) == (pair.recipe.data.fold, pair.recipe.seed) for pair in pairs
    )


@pytest.mark.parametrize("name", ["coco/soft_teacher", "coco/mean_teacher", "coco/unbiased_teacher", "mean_teacher"])
def test_control_of__fewer_images_a_step_do_not_lower_the_learning_rate(name):
    factors = []
    for recipe in (load_recipe(name), comparison.control_of(load_recipe(name))):
        plan = derive_batch(recipe.data.batch, 1, None, recipe.engine.lr_for_images)
        factors.append(plan.lr_factor)
    assert factors[0] == factors[1]


def test_control_of__a_recipe_that_learns_from_labels_alone_is_refused():
    with pytest.raises(RecipeError, match="it is its own control"):
        comparison.control_of(load_recipe("supervised"))


@pytest.mark.parametrize(
    ("interval", "draws", "said"),
    [
        ([0.01, 0.03], 5, "The unlabeled images helped: +2.0 AP, 95 % interval +1.0 to +3.0 over 5 draws."),
        ([-0.01, 0.05], 5, "It is not shown that the unlabeled images help: +2.0 AP"),
        ([-0.05, -0.01], 1, "The unlabeled images did harm: +2.0 AP"),
        (None, 1, "+2.0 AP with the unlabeled images; too few test images to say how sure that is."),
    ],
)
def test_verdict__says_what_the_interval_allows(interval, draws, said):
    over = "draws" if draws > 1 else "test images"
    facts = {
        "difference": 0.02,
        "interval": interval,
        "draws": draws,
        "redrawn": draws > 1,
        "interval_over": over,
        "test_images": 72,
    }
    assert verdict(facts).startswith(said)
    assert ("--folds 5" in verdict(facts)) == (draws == 1 and interval is not None)


@pytest.mark.parametrize("redrawn", [True, False])
def test_verdict__draws_of_the_same_labels_are_called_so(redrawn):
    facts = {"difference": 0.02, "interval": [0.01, 0.03], "draws": 5, "redrawn": redrawn, "interval_over": "draws"}
    assert ("All draws have the same labels, and another seed" in verdict(facts)) != redrawn


def test_choice__a_score_on_the_images_that_chose_is_said_to_be_too_good():
    chosen = {"run": "control", "network": "student", "AP": 0.4217, "by": "test"}
    assert choice(chosen).startswith(
        "predict, label, eval and load use the student of the control: 42.2 AP on the test"
    )
    assert "too good" in choice(chosen)
    assert "too good" not in choice({**chosen, "by": "validation"})

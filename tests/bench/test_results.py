"""Result files: what a run leaves, read back equal; what is no result is refused by name, and the others are read."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ssodkit.bench import results
from ssodkit.bench.results import CellResult, collect, read_result, read_results, write_result
from ssodkit.bench.suite import Cell
from ssodkit.engine.checkpoint import read_recipe
from ssodkit.errors import TrainingError
from ssodkit.recipe.check import load_recipe
from ssodkit.recipe.model import Recipe
from ssodkit.recipe.show import recipe_hash


def make_cell(recipe: Recipe) -> Cell:
    return Cell(
        "mine", recipe.data.share, recipe.data.fold, recipe.seed, recipe, recipe_hash(recipe), recipe.engine.steps
    )


@pytest.fixture
def cell(watched_run: Path) -> Cell:
    return make_cell(read_recipe(watched_run))


@pytest.fixture
def folder(watched_run: Path, cell: Cell, tmp_path: Path) -> Path:
    """A folder with the result of the tiny run."""
    write_result(collect(watched_run), tmp_path / "results" / f"{cell.name}.json")
    return tmp_path / "results"


def change(folder: Path, cell: Cell, **changes: Any) -> Path:
    """The result file with other values; a value of None takes the key away."""
    path = folder / f"{cell.name}.json"
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    return path


def test_collect__a_run_says_how_it_was_made(watched_run: Path, cell: Cell):
    result = collect(watched_run)
    assert result.recipe_hash == cell.hash
    assert Recipe.model_validate(result.recipe) == cell.recipe
    fold = result.fold
    assert (fold.mode, fold.percent, fold.fold, fold.images, len(fold.hash)) == ("soft_teacher", 20.0, 1, 4, 16)
    assert result.device.startswith("cpu")
    assert (result.seed, result.processes, result.precision, result.result) == (0, 1, "fp32", "teacher")
    assert {"python", "torch", "ssodkit"} <= set(result.versions)
    assert result.seconds > 0
    assert result.images_per_second is not None
    assert result.images_per_second > 0
    assert result.memory_gb is not None
    assert result.memory_gb > 0


def test_collect__every_evaluation_scores_both_networks_at_both_thresholds(watched_run: Path):
    result = collect(watched_run)
    assert [(one.step, one.set) for one in result.evaluations] == [(2, "test"), (4, "test")]
    for evaluation in result.evaluations:
        assert list(evaluation.thresholds) == ["0.05", "0.001"]
        for networks in evaluation.thresholds.values():
            assert set(networks) == {"student", "teacher"}
            assert {"AP", "AP50", "AP75", "AP_S", "AR_100"} <= set(networks["teacher"])
    assert [health.step for health in result.health] == [2, 4]


def test_collect__the_last_evaluation_is_what_the_run_calls_its_result(watched_run: Path):
    written = json.loads((watched_run / "result.json").read_text())
    result = collect(watched_run)
    assert result.steps == 4
    assert result.threshold == "0.05"
    assert result.score("AP") == written["teacher"]["AP"]
    assert result.score("AP", "student") == written["student"]["AP"]
    assert result.score("AP50", threshold="0.001") == written["thresholds"]["0.001"]["teacher"]["AP50"]
    assert {name: scores.AP for name, scores in result.per_class["teacher"].items()} == {
        name: scores["AP"] for name, scores in written["per_class"]["teacher"].items()
    }


def test_score__what_was_not_scored_is_none(watched_run: Path):
    result = collect(watched_run)
    assert result.score("Ap") is None
    assert result.score("AP", "uncle") is None
    assert result.score("AP", threshold="0.5") is None


@pytest.mark.parametrize("missing", ["result.json", "metrics.jsonl"])
def test_collect__a_run_that_is_not_finished_is_refused(watched_run: Path, tmp_path: Path, missing: str):
    run = tmp_path / "run"
    shutil.copytree(watched_run, run, ignore=shutil.ignore_patterns("checkpoints"))
    (run / missing).unlink()
    with pytest.raises(TrainingError, match="is no finished run"):
        collect(run)


@pytest.mark.parametrize("line", ["[]", "{}", '{"kind": "evaluation"}', '{"kind": "step", "images_per_second": "x"}'])
def test_collect__a_log_that_no_run_wrote_is_refused(watched_run: Path, tmp_path: Path, line: str):
    run = shutil.copytree(watched_run, tmp_path / "run")
    with (run / "metrics.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(TrainingError, match=r"or metrics\.jsonl beside it is not what a run of this version writes"):
        collect(run)


def test_collect__a_result_of_another_version_says_what_it_lacks(watched_run: Path, tmp_path: Path):
    run = tmp_path / "run"
    shutil.copytree(watched_run, run, ignore=shutil.ignore_patterns("checkpoints"))
    content = json.loads((run / "result.json").read_text())
    del content["sources"]
    (run / "result.json").write_text(json.dumps(content))
    with pytest.raises(TrainingError, match=r"result\.json .* it has no 'sources'"):
        collect(run)


def test_write_result__is_read_back_equal(watched_run: Path, folder: Path, cell: Cell):
    path = folder / f"{cell.name}.json"
    assert read_result(path) == collect(watched_run)
    assert [file.name for file in folder.iterdir()] == [path.name]


def test_read_results__finds_a_result_by_the_hash_of_its_recipe(folder: Path, cell: Cell):
    for found in (read_results(folder), read_results(folder, [cell])):
        assert list(found.results) == [cell.hash]
        assert found.of([cell])[cell.hash].recipe_hash == cell.hash
        assert found.refused == ()


def test_read_results__in_brief_are_the_last_scores_without_what_went_before(folder: Path, cell: Cell):
    (whole,) = read_results(folder, [cell]).results.values()
    (brief,) = read_results(folder, [cell], brief=True).results.values()
    assert (brief.recipe, brief.health, brief.evaluations) == ({}, (), whole.evaluations[-1:])
    assert brief.score("AP", "teacher", "0.05") == whole.score("AP")
    assert (
        brief.model_copy(update={name: getattr(whole, name) for name in ("recipe", "health", "evaluations")}) == whole
    )


def test_read_results__of_no_folder_and_of_an_empty_one_are_none(tmp_path: Path, cell: Cell):
    for folder in (tmp_path / "nowhere", tmp_path):
        found = read_results(folder, [cell])
        assert (found.results, found.refused) == ({}, ())


def test_read_results__files_of_other_recipes_are_not_opened(folder: Path, cell: Cell):
    (folder / "other-2.5pct-fold1-seed0-0123456789abcdef.json").write_text("no JSON")
    found = read_results(folder, [cell])
    assert (list(found.results), found.refused) == ([cell.hash], ())
    assert len(read_results(folder).refused) == 1


BROKEN = {
    "a file that was cut off": ('{"format": 1, "recipe": {', "cannot be read as JSON"),
    "bytes": ("\udcff", "cannot be read as JSON"),
    "a list": ("[1, 2]", "is no result file: it names no format"),
    "COCO results": ('{"images": [], "annotations": []}', "is no result file: it names no format"),
    "a file of another program": ('{"format": 1, "score": 3}', "is no result file: recipe: Field required"),
    "a newer file": ('{"format": 99}', "was written by a newer ssodkit (format 99, this one knows up to 1)"),
    "a format that never was": ('{"format": 0}', "has the format 0, which no ssodkit wrote"),
}


@pytest.mark.parametrize(("text", "reason"), BROKEN.values(), ids=BROKEN.keys())
def test_read_results__what_is_no_result_is_refused_by_name_and_harms_no_other(
    folder: Path, cell: Cell, text: str, reason: str
):
    path = folder / "soft_teacher-broken.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    found = read_results(folder, [cell])
    assert list(found.results) == [cell.hash]
    (sentence,) = found.refused
    assert sentence.startswith(str(path))
    assert reason in sentence


def test_read_results__a_result_under_another_cells_name_is_refused(folder: Path, cell: Cell):
    path = folder / f"{cell.name}.json"
    other = path.rename(folder / f"{cell.recipe.name}-20pct-fold2-seed1-0123456789abcdef.json")
    found = read_results(folder, [cell])
    assert found.results == {}
    (sentence,) = found.refused
    assert sentence.startswith(f"{other} holds the result of the recipe {cell.hash}")


def test_read_results__a_result_without_an_evaluation_of_the_test_set_is_refused(folder: Path, cell: Cell):
    path = folder / f"{cell.name}.json"
    evaluations = json.loads(path.read_text())["evaluations"]
    change(folder, cell, evaluations=[{**one, "set": "validation"} for one in evaluations])
    (sentence,) = read_results(folder, [cell]).refused
    assert "the last evaluation is not of the test set" in sentence


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"fold": {"mode": "stac", "percent": 20, "fold": 1, "images": 4}}, "fold.hash: Field required"),
        ({"seed": 7}, "seed 0 instead of 7"),
        ({"seconds": float("inf")}, "seconds: Input should be a finite number"),
        (
            {"evaluations": [{"step": 4, "set": "test", "thresholds": {"0.05": {"teacher": {"AP": 57.0}}}}]},
            "equal to 1",
        ),
    ],
)
def test_read_results__what_does_not_fit_the_recipe_is_refused(
    folder: Path, cell: Cell, changes: dict[str, Any], reason: str
):
    path = change(folder, cell, **changes)
    found = read_results(folder, [cell])
    assert (found.results, len(found.refused)) == ({}, 1)
    assert found.refused[0].startswith(str(path))
    assert reason in found.refused[0]


def test_read_results__a_recipe_that_was_replaced_is_refused(folder: Path, cell: Cell):
    recipe = cell.recipe.model_dump(mode="json")
    change(folder, cell, recipe={**recipe, "engine": {**recipe["engine"], "steps": 7}})
    assert "is not the result of the recipe in it: length 7 instead of " in read_results(folder, [cell]).refused[0]
    change(folder, cell, recipe={**recipe, "engine": {**recipe["engine"], "steps": 7, "patience": 2}})
    assert read_results(folder).refused == ()  # its training may have ended before
    del recipe["evaluation"]
    change(folder, cell, recipe=recipe)
    assert "holds no whole recipe: it has no 'evaluation'" in read_results(folder, [cell]).refused[0]


def test_read_results__a_recipe_that_is_no_longer_understood_is_refused(folder: Path, cell: Cell):
    old = cell.recipe.model_dump(mode="json")
    old["method"]["selector"]["no_such_field"] = 1
    hash_then = "fedcba9876543210"
    change(folder, cell, recipe=old, recipe_hash=hash_then).rename(folder / f"soft_teacher-{hash_then}.json")
    other = make_cell(cell.recipe.model_copy(update={"seed": 5}))
    found = read_results(folder, [other])
    assert found.results == {}
    (sentence,) = found.refused
    assert sentence.startswith(str(folder / f"soft_teacher-{hash_then}.json"))
    assert "this version does not understand: method.selector" in sentence


@pytest.mark.parametrize("lost", ["data", "seed", "method"])
def test_read_results__a_recipe_without_its_parts_is_refused(folder: Path, cell: Cell, lost: str):
    recipe = cell.recipe.model_dump(mode="json")
    del recipe[lost]
    change(folder, cell, recipe=recipe)
    (sentence,) = read_results(folder).refused
    assert f"it has no '{lost}'" in sentence


def test_read_results__a_field_with_a_default_that_was_added_since_changes_nothing(folder: Path, cell: Cell):
    """As a version without `data.labeled.at_most`, `data.shots` and `watch.pictures` would have written it."""
    recipe = load_recipe(
        "soft_teacher", ["seed=3", "data.fold=4", "data.percent=5", "watch.pictures=8", "engine.steps=4"]
    )
    today = make_cell(recipe)
    old = recipe.model_dump(mode="json")
    del old["data"]["labeled"]["at_most"], old["data"]["shots"], old["watch"]["pictures"]
    content = json.loads((folder / f"{cell.name}.json").read_text())
    hash_then = "0123456789abcdef"
    fold = {**content["fold"], "percent": 5, "fold": 4}
    written = {**content, "recipe": old, "recipe_hash": hash_then, "fold": fold, "seed": 3}
    (folder / f"soft_teacher-5pct-fold4-seed3-{hash_then}.json").write_text(json.dumps(written))
    found = read_results(folder, [today, cell])
    assert found.refused == ()
    assert found.of([today, cell]).keys() == {today.hash, cell.hash}
    assert found.results[today.hash].recipe_hash == hash_then
    assert read_results(folder).results.keys() == {today.hash, cell.hash}


def test_read_result__older_formats_walk_through_all_migrations(
    folder: Path, cell: Cell, monkeypatch: pytest.MonkeyPatch
):
    """As two formats before the first would be read: the device had another name, then the processes were not said."""
    path = folder / f"{cell.name}.json"
    today = read_result(path)
    content = json.loads(path.read_text())
    content["gpu"] = content.pop("device")
    del content["processes"]
    path.write_text(json.dumps({**content, "format": -1}))

    def rename_device(old: dict[str, Any]) -> dict[str, Any]:
        return {**{key: value for key, value in old.items() if key != "gpu"}, "device": old["gpu"], "format": 0}

    def count_processes(old: dict[str, Any]) -> dict[str, Any]:
        return {**old, "processes": 1, "format": 1}

    monkeypatch.setattr(results, "MIGRATIONS", {-1: rename_device, 0: count_processes})
    assert read_result(path) == today


def test_cell_result__is_of_the_format_that_is_written():
    assert CellResult.model_fields["format"].default == results.FORMAT

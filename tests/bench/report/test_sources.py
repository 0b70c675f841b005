import json
import shutil
from pathlib import Path

import pytest

from ssodkit.bench.report.sources import read_sources, short_names
from ssodkit.bench.results import collect, write_result
from ssodkit.bench.suite import cells_of
from ssodkit.errors import RecipeError, TrainingError

SUITE = """\
name: mine
about: Two methods.
warning: These numbers mean nothing.
folds: [1, 2]
set: SETTINGS
methods:
  - {recipe: supervised, title: Labeled only}
  - {recipe: soft_teacher, title: Soft Teacher, baseline: supervised}
"""


@pytest.fixture
def suite(tmp_path, watched_run) -> Path:
    """A suite one of whose cells is the run, but for the fold's seed."""
    path = tmp_path / "mine.yaml"
    path.write_text(SUITE.replace("SETTINGS", json.dumps({"engine.steps": 4})))
    return path


def test_short_names__as_many_parts_as_it_takes():
    assert short_names([Path("/a/one"), Path("/a/two")]) == ["one", "two"]
    assert short_names([Path("/a/one"), Path("/b/one")]) == ["a/one", "b/one"]
    assert short_names([Path("/runs/cell-1/run"), Path("/runs/cell-2/run")]) == ["cell-1", "cell-2"]
    assert short_names([]) == []


def test_read_sources__of_a_suite_rows_panels_and_what_is_missing(suite, tmp_path, watched_run):
    """One cell has its folder, one is training, one has only its result file, one has not begun."""
    _, cells = cells_of(suite)
    runs, results = tmp_path / "runs", tmp_path / "results"
    finished, running, alone, _ = cells
    ignore = shutil.ignore_patterns("checkpoints")
    shutil.copytree(watched_run, runs / finished.name / "run", ignore=ignore)
    shutil.copytree(watched_run, runs / running.name / "run", ignore=ignore)
    (runs / running.name / "run" / "result.json").unlink()
    left = collect(watched_run)
    fold = left.fold.model_copy(update={**alone.share._asdict(), "fold": alone.fold})
    content = {
        "recipe": alone.recipe.model_dump(mode="json"),
        "recipe_hash": alone.hash,
        "fold": fold,
        "seed": alone.seed,
    }
    write_result(left.model_copy(update=content), results / f"{alone.name}.json")

    records, sentences, (table,) = read_sources([str(suite)], runs, results)
    assert [record.name for record in records] == [
        "Labeled only, 2.5 %, fold 1",
        "Soft Teacher, 2.5 %, fold 1",
        "Labeled only, 2.5 %, fold 2",
    ]
    assert [record.row for record in records] == ["Labeled only", "Soft Teacher", "Labeled only"]
    assert {record.panel for record in records} == {"2.5 % labeled"}
    assert [record.is_finished for record in records] == [True, False, True]
    assert [record.is_baseline for record in records] == [True, False, True]
    assert [len(record.moments) for record in records] == [2, 2, 0]
    assert sentences == ["1 of the 4 cells of mine have not begun."]
    assert table.suite.warning == "These numbers mean nothing."
    assert [len(entry.results) for entry in table.entries] == [
        1,
        0,
    ]  # what has a result file, as `ssodkit table` has it


def test_read_sources__a_suite_without_a_finished_run_is_refused(suite, tmp_path):
    with pytest.raises(TrainingError, match="no cell of the suite mine is finished: there is nothing of its 4 cells"):
        read_sources([str(suite)], tmp_path / "runs", None)


def test_read_sources__what_is_neither_run_nor_suite_is_refused_by_name(tmp_path, watched_run):
    with pytest.raises(TrainingError, match=r"nowhere is no folder of a run, and there is no suite 'nowhere'"):
        read_sources([str(watched_run), "nowhere"], tmp_path, None)
    with pytest.raises(TrainingError, match="holds no run"):
        read_sources([str(tmp_path)], tmp_path, None)
    (tmp_path / "broken.yaml").write_text("name: mine\n")
    with pytest.raises(RecipeError, match=r"broken\.yaml:1:1 about: "):
        read_sources([str(tmp_path / "broken.yaml")], tmp_path, None)


def test_read_sources__a_run_that_is_named_twice_is_shown_once(watched_run, tmp_path):
    records, sentences, tables = read_sources([str(watched_run), str(watched_run)], tmp_path, None)
    assert [record.name for record in records] == ["watched"]
    assert sentences == tables == []


def test_read_sources__only_the_first_galleries_are_shown(copy_run, tmp_path, monkeypatch):
    monkeypatch.setattr("ssodkit.bench.report.sources.GALLERIES", 1)
    runs = [copy_run("blind", "gallery"), copy_run("first"), copy_run("second")]
    records = read_sources([str(run) for run in runs], tmp_path, None).records
    assert [len(record.moments) for record in records] == [0, 2, 0]

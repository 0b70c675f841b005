"""Suites that run themselves: from nothing to result files, interrupted, killed, shared and failing."""

import json
import shutil
import signal
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from safetensors.torch import load_file
from tiny_suite import environment, start, write_suite

from ssodkit.bench.folders import CellFolder
from ssodkit.bench.progress import position
from ssodkit.bench.results import CellResult, read_result
from ssodkit.bench.run import Work, bench, open_work
from ssodkit.engine.checkpoint import find_last, read_step
from ssodkit.errors import RecipeError

STEPS = 60
HERE = Path(__file__).parents[2]


class Finished(NamedTuple):
    """A suite that two processes have trained at once."""

    folder: Path
    work: Work
    outputs: tuple[str, str]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Finished:
    folder = tmp_path_factory.mktemp("suite")
    suite = write_suite(folder, STEPS, "[1, 2]")
    both = [start(folder, environment(cache)) for _ in range(2)]
    outputs = [process.communicate(timeout=250) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    work = open_work(suite, runs=folder / "runs" / "bench")
    return Finished(folder, work, (outputs[0][0], outputs[1][0]))


@pytest.fixture
def tiny(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in; children of this process train as those of the other tests do."""
    for name, value in environment(cache).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def attempts(work: Work) -> list[list[str]]:
    """Per cell the first word of each attempt in its log."""
    lines = [CellFolder(work.runs / cell.name).log.read_text().splitlines() for cell in work.cells]
    return [[line.split()[0] for line in log if line.startswith(("starts ", "goes on "))] for log in lines]


def test_bench__two_processes_train_each_cell_once(finished: Finished):
    assert attempts(finished.work) == [["starts"], ["starts"]]
    started = [line for text in finished.outputs for line in text.splitlines() if line.startswith("starts ")]
    assert sorted(started) == [f"starts   supervised, 25 %, fold {fold}, seed {fold - 1}" for fold in (1, 2)]
    assert all(text.splitlines()[-1] == "all 2 cells have a result" for text in finished.outputs)


def test_bench__writes_a_result_file_per_cell(finished: Finished):
    files = sorted((finished.folder / "results").iterdir())
    assert [file.name for file in files] == sorted(f"{cell.name}.json" for cell in finished.work.cells)
    for cell in finished.work.cells:
        result = read_result(finished.folder / "results" / f"{cell.name}.json")
        assert (result.recipe_hash, result.steps, result.seed) == (cell.hash, STEPS, cell.fold - 1)


def test_bench__what_is_done_is_not_trained_again(finished: Finished, capsys: pytest.CaptureFixture[str]):
    before = {file: file.stat().st_mtime_ns for file in (finished.folder / "results").iterdir()}
    assert bench(finished.work) == ()
    assert capsys.readouterr().out.splitlines() == [
        "suite    tiny: 2 cells, 2 done",
        "all 2 cells have a result",
    ]
    assert {file: file.stat().st_mtime_ns for file in (finished.folder / "results").iterdir()} == before


def test_bench__a_finished_run_is_collected_without_training(finished: Finished, tiny: Path):
    shutil.copytree(finished.work.runs, tiny / "runs")
    work = open_work(write_suite(tiny, STEPS, "[1, 2]"), ["fold=2"], runs=tiny / "runs")
    before = attempts(work)
    assert bench(work) == ()
    assert attempts(work) == before
    (file,) = (tiny / "results").iterdir()
    assert read_result(file) == read_result(finished.folder / "results" / file.name)


def test_bench__stopped_and_killed_in_the_middle_comes_to_the_same_numbers(finished: Finished, tiny: Path, cache: Path):
    cell = finished.work.cells[0]
    whole = CellFolder(finished.work.runs / cell.name).run
    write_suite(tiny, STEPS)
    folder = CellFolder(tiny / "runs" / "bench" / cell.name)

    stopped = train_up_to(10, tiny, cache, folder, cell, signal.SIGTERM)
    assert stopped == (128 + signal.SIGTERM, "stopped; what was trained is kept: go on with the same command\n")
    assert not folder.is_claimed()
    step = read_step(find_last(folder.run))
    assert 10 <= step < STEPS
    code, _ = train_up_to(step + 10, tiny, cache, folder, cell, signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert not (tiny / "results").exists()

    work = open_work(tiny / "tiny.yaml", runs=tiny / "runs" / "bench")
    assert bench(work, device="cpu") == ()
    assert attempts(work) == [["starts", "goes", "goes"]]
    (file,) = (tiny / "results").iterdir()
    assert numbers(read_result(file)) == numbers(read_result(finished.folder / "results" / file.name))
    for network in ("student", "teacher"):
        one, other = (load_file(find_last(run) / f"{network}.safetensors") for run in (whole, folder.run))
        assert one.keys() == other.keys()
        assert all(one[name].equal(other[name]) for name in one)


def train_up_to(step: int, here: Path, cache: Path, folder: CellFolder, cell, number: signal.Signals, *arguments):
    """Start a bench and send it a signal after this step; its exit code, and what it complained of."""
    process = start(here, environment(cache), *arguments)
    deadline = time.monotonic() + 120
    while position(cell.steps, folder.run).step < step:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    return process.returncode, err


def numbers(result: CellResult) -> dict:
    """What may not depend on interruptions."""
    return result.model_dump(include={"evaluations", "health", "fold", "recipe_hash", "seed"})


def test_bench__a_cell_that_fails_is_shown_and_does_not_stop_the_others(
    tiny: Path, cache: Path, capsys: pytest.CaptureFixture[str]
):
    absent = "data.train: {type: coco, annotations: absent.json, images: absent}, data.folds: stac"
    rows = f"[{{recipe: supervised, name: absent, set: {{{absent}}}}}, {{recipe: supervised}}]"
    work = open_work(write_suite(tiny, 2, methods=rows))
    (failed,) = bench(work, parallel=2, device="cpu")
    assert (failed.name, failed.how) == (work.cells[0].name, "failed")
    assert "absent.json" in failed.text
    out = capsys.readouterr().out
    assert out.count(failed.text) == 2
    assert "done     supervised, 25 %, fold 1, seed 0: AP " in out
    folder = CellFolder(Path("runs/bench") / failed.name)
    assert folder.read_error() == failed.text

    absent, present = work.watch().look()
    assert (absent.state, absent.error, present.state) == ("failed", failed.text, "done")
    (again,) = bench(work, device="cpu")
    assert again == failed
    assert folder.log.read_text().count("starts ") == 2


def test_bench__a_file_that_is_no_result_is_not_overwritten(
    finished: Finished, tiny: Path, capsys: pytest.CaptureFixture[str]
):
    shutil.copytree(finished.folder / "results", tiny / "results")
    work = open_work(write_suite(tiny, STEPS, "[1, 2]"))
    file = tiny / "results" / f"{work.cells[0].name}.json"
    file.write_text("{")
    (refused,) = bench(work)
    assert refused.how == "failed"
    assert refused.text.endswith("Delete it, and it is made again.")
    assert f"warning: {refused.text}" in capsys.readouterr().out
    assert file.read_text() == "{"
    assert not (tiny / "runs").exists()


@pytest.mark.parametrize("engine", [("slurm", "cluster=local"), ("ray", "num_cpus=1")])
def test_bench__an_engine_trains_a_cell(tiny: Path, cache: Path, engine: tuple[str, str]):
    write_suite(tiny, 2)
    process = start(tiny, environment(cache), "--engine", engine[0], "--engine-set", engine[1])
    out, err = process.communicate(timeout=250)
    assert process.returncode == 0, (out, err)
    (file,) = (tiny / "results").iterdir()
    assert read_result(file).steps == 2
    assert out.splitlines()[-1] == "all 1 cells have a result"
    assert attempts(open_work(tiny / "tiny.yaml")) == [["starts"]]


def test_bench__a_cell_is_trained_by_several_processes(tiny: Path, cache: Path):
    write_suite(tiny, 60)
    work = open_work(tiny / "tiny.yaml", runs=tiny / "runs" / "bench")
    folder = CellFolder(work.runs / work.cells[0].name)
    code, _ = train_up_to(10, tiny, cache, folder, work.cells[0], signal.SIGTERM, "--processes", 2)
    assert code == 128 + signal.SIGTERM
    assert bench(work, device="cpu", processes=2) == ()
    (file,) = (tiny / "results").iterdir()
    assert (read_result(file).processes, attempts(work)) == (2, [["starts", "goes"]])


def test_bench__says_that_there_are_too_few_gpus(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    work = open_work(write_suite(tiny, 2))
    CellFolder(work.runs / work.cells[0].name).recipe.mkdir(parents=True)  # so it fails before a process is started
    (failed,) = bench(work, parallel=2, device="cuda", processes=2)
    assert failed.how == "failed"
    assert "warning: only 1 of 2 cells run at once: each takes 2 GPUs\n" in capsys.readouterr().out


def test_bench__settings_of_an_engine_are_pairs(tiny: Path):
    work = open_work(write_suite(tiny, 2))
    with pytest.raises(RecipeError, match=r"--engine-set is written key=value, .* not 'timeout_min'"):
        bench(work, engine="slurm", settings=["timeout_min"])
    with pytest.raises(RecipeError, match=r"--engine-set num_gpus=\[: '\[' is no YAML"):
        bench(work, engine="ray", settings=["num_gpus=["])
    with pytest.raises(RecipeError, match="submitit starts all cells at once; leave --parallel out"):
        bench(work, parallel=2, engine="slurm", settings=["cluster=local"])
    with pytest.raises(RecipeError, match="the local one has --parallel and --device"):
        bench(work, settings=["num_gpus=1"])


def test_digits_tiny__warns_that_its_numbers_mean_nothing():
    work = open_work("digits_tiny")
    assert "mean nothing" in (work.suite.warning or "")
    assert len(work.cells) == 4
    assert {cell.recipe.data.fold for cell in work.cells} == {1, 2}


def test_benchmarks__every_suite_is_part_of_the_package():
    project = (HERE / "pyproject.toml").read_text(encoding="utf-8")
    suites = sorted((HERE / "benchmarks").glob("*.yaml"))
    assert suites
    for suite in suites:
        assert f'"benchmarks/{suite.name}" = "ssodkit/benchmarks/{suite.name}"\n' in project
    assert json.dumps("benchmarks/results") not in project

"""One cell: what happens before a training begins, and what its end means."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import ssodkit
from ssodkit.bench.cell import Ending, Job, _conclude, begin, run_cell
from ssodkit.bench.folders import CellFolder


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job("cell", "name: x\n", CellFolder(tmp_path / "cell"), tmp_path / "results" / "cell.json", "cpu", None)


def test_begin__a_cell_that_another_process_trains_is_left_to_it(job: Job):
    claim = job.folder.claim()
    assert claim is not None
    assert begin(job) == Ending("cell", "claimed")
    os.close(claim)


def test_begin__a_result_that_somebody_has_just_written_ends_it(job: Job):
    job.result.parent.mkdir()
    job.result.write_text("{}")
    assert begin(job) == Ending("cell", "done")
    assert not job.folder.is_claimed()


def test_begin__a_failure_that_came_after_the_first_look_is_not_tried_again(job: Job):
    job.folder.path.mkdir()
    job.folder.error.write_text("no data\n")
    assert begin(job) == Ending("cell", "failed", "no data")
    known = dataclasses.replace(job, failed_at=job.folder.failed_at())
    ending = run_cell(known)
    assert ending.how == "failed"
    assert ending.text != "no data"
    assert job.folder.read_error() == ending.text
    assert not job.folder.is_claimed()


def test_begin__what_a_training_left_without_a_checkpoint_is_begun_anew(job: Job):
    (job.folder.run / "checkpoints").mkdir(parents=True)
    assert run_cell(job).how == "failed"
    assert not job.folder.run.exists()
    assert job.folder.recipe.read_text() == job.recipe


@pytest.mark.parametrize("file", ["", "claim", "log.txt", "recipe.yaml", "error.txt"])
def test_begin__a_folder_that_cannot_be_written_is_a_failure(job: Job, file: str):
    path = job.folder.path / file
    if file:
        path.mkdir(parents=True)
    else:
        path.touch()
    ending = begin(job)
    assert isinstance(ending, Ending)
    assert ending.how == "failed"
    assert f"{path} cannot be read or written: " in ending.text
    assert not path.is_dir() or file == "claim" or not job.folder.is_claimed()


def test_conclude__a_reason_that_cannot_be_kept_is_told(job: Job):
    job.folder.error.mkdir(parents=True)
    job.folder.log.write_text("the disk is full\n")
    assert _conclude(job, 2) == Ending("cell", "failed", "the disk is full")


@pytest.mark.parametrize(
    ("code", "how", "text"),
    [
        (-int(signal.SIGTERM), "stopped", "stopped by SIGTERM"),
        (128 + int(signal.SIGINT), "stopped", "stopped by SIGINT"),
        (-int(signal.SIGKILL), "failed", "ended by SIGKILL; mostly the machine's memory is full then"),
        (2, "failed", "the disk is full"),
        (255, "failed", "the disk is full"),
    ],
)
def test_conclude__says_why_a_training_ended(job: Job, code: int, how: str, text: str):
    job.folder.path.mkdir()
    job.folder.log.write_text("starts   cell\nrun      r\nthe disk is full\n\n")
    assert _conclude(job, code) == Ending("cell", how, text)
    assert job.folder.read_error() == (text if how == "failed" else None)


def test_conclude__a_result_of_another_folders_bench_stays(job: Job):
    job.result.parent.mkdir()
    job.result.write_text("{}")
    assert _conclude(job, 0) == Ending("cell", "done")
    assert job.result.read_text() == "{}"


def test_conclude__a_run_that_holds_no_result_is_a_failure(job: Job):
    job.folder.path.mkdir()
    ending = _conclude(job, 0)
    assert ending.how == "failed"
    assert "holds no run" in ending.text
    assert ending.text.endswith(f"Delete {job.folder.path}, and the cell runs again.")


def test_conclude__a_run_of_another_recipe_than_the_cells_is_a_failure(job: Job, watched_run: Path):
    """As where the recipe of its first stage was edited after the cell was made of it."""
    job.folder.path.mkdir()
    job.folder.run.symlink_to(watched_run)
    ending = _conclude(job, 0)
    assert ending.how == "failed"
    assert ending.text.startswith(
        "its run is of another recipe, as where that of its first stage was changed meanwhile. Delete "
    )
    assert not job.result.exists()


def test_child__gets_one_sigterm_when_its_parent_is_killed(tmp_path: Path):
    child = (
        "import pathlib, os, signal, time\n"
        "from ssodkit.engine.stopping import POLL, stop_with\n"
        "told = []\n"
        "signal.signal(signal.SIGTERM, lambda number, _: told.append(number))\n"
        "stop_with(os.getppid())\n"
        "pathlib.Path('ready').touch()\n"
        "while not told:\n"
        "    time.sleep(POLL)\n"
        "time.sleep(2 * POLL)\n"
        "pathlib.Path('partial').write_text(repr(told))\n"
        "pathlib.Path('partial').rename('told')\n"
    )
    parent = (
        "import subprocess, sys, threading, time\n"
        "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
        f"subprocess.Popen([sys.executable, '-c', {child!r}]).wait()\n"
    )
    path = {"PYTHONPATH": str(Path(ssodkit.__file__).parents[1])}
    process = subprocess.Popen([sys.executable, "-c", parent], cwd=tmp_path, env=os.environ | path)
    wait_for(tmp_path / "ready")
    process.kill()
    process.wait()
    wait_for(tmp_path / "told")
    assert (tmp_path / "told").read_text() == repr([int(signal.SIGTERM)])


def wait_for(file: Path) -> None:
    deadline = time.monotonic() + 30
    while not file.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)

"""Where cells run on one machine, and what is said where an engine is not there."""

import os
import signal
from pathlib import Path

import pytest

from ssodkit.bench import engines
from ssodkit.bench.cell import Attempt, Job
from ssodkit.bench.engines import Listener, make_slots, run_here
from ssodkit.bench.folders import CellFolder
from ssodkit.errors import TrainingError


@pytest.fixture
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


@pytest.mark.usefixtures("eight_cores")
def test_make_slots__divides_the_cores():
    assert make_slots(1, "cpu") == [{}]
    assert make_slots(3, "cpu") == [{"OMP_NUM_THREADS": "2"}] * 3
    assert make_slots(20, "cpu") == [{"OMP_NUM_THREADS": "1"}] * 20


@pytest.mark.usefixtures("eight_cores")
def test_make_slots__deals_out_the_gpus_that_may_be_used(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert make_slots(3, "cuda") == [{"CUDA_VISIBLE_DEVICES": number} for number in ("2", "5", "2")]
    assert make_slots(2, "cpu") == [{}, {}]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert make_slots(2, None) == [{}, {}]


@pytest.mark.usefixtures("eight_cores")
def test_make_slots__cells_of_several_processes_share_no_gpu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5,7,1,0")
    threads = {"OMP_NUM_THREADS": "1"}
    assert make_slots(4, "cuda", 2) == [threads | {"CUDA_VISIBLE_DEVICES": pair} for pair in ("2,5", "7,1")]
    assert make_slots(2, "cuda", 8) == [threads | {"CUDA_VISIBLE_DEVICES": "2,5,7,1,0"}]
    assert make_slots(1, "cuda", 4) == [{}]
    assert make_slots(2, "cpu", 2) == [{"OMP_NUM_THREADS": "2"}] * 2


@pytest.mark.parametrize(
    ("problem", "how"),
    [
        (
            "Job (task=0) failed during processing with trace:\nJob not requeued because: timed-out.",
            "stopped",
        ),
        ("Job 7 (task: 0) with path x has not produced any output (state: TIMEOUT)\nError stream", "stopped"),
        ("Job 7 (task: 0) with path x has not produced any output (state: OUT_OF_MEMORY)", "failed"),
    ],
)
def test_slurm_ending__a_job_without_time_has_stopped(tmp_path: Path, problem: str, how: str):
    job = Job("cell", "name: x\n", CellFolder(tmp_path), tmp_path / "cell.json", None, None, 8)
    ending = engines._slurm_ending(job, problem)
    assert (ending.name, ending.how) == ("cell", how)
    assert ("start again to go on" in ending.text) == (how == "stopped")


def test_run_here__one_attempt_that_raises_leaves_no_other_behind(tmp_path: Path):
    attempts: list[Attempt] = []

    def tick() -> None:
        os.close(attempts[0]._claim)
        raise RuntimeError("the news cannot be told")

    folders = [CellFolder(tmp_path / name) for name in "ab"]
    jobs = [Job(folder.path.name, "name: x\n", folder, tmp_path / "x", "cpu", None) for folder in folders]
    with pytest.raises(OSError, match="Bad file descriptor"):
        list(run_here(jobs, [{}] * 2, Listener(attempts.append, lambda _: None, tick)))
    assert [attempt._process.returncode for attempt in attempts] == [-signal.SIGTERM] * 2
    assert not folders[1].is_claimed()


def test_import_extra__says_how_to_install_what_is_missing():
    with pytest.raises(TrainingError) as error:
        engines._import_extra("no_such_module", "slurm")
    assert str(error.value) == (
        "`--engine slurm` needs no_such_module, which is not installed: `pip install 'ssodkit[slurm]'`"
    )

import multiprocessing

import pytest
import torch

from ssodkit.engine.distributed import Processes
from ssodkit.engine.folders import held, is_held, make_folder, make_run_folder, refuse_used
from ssodkit.errors import TrainingError

ALONE = Processes(torch.device("cpu"))


def test_refuse_used__what_holds_nothing_is_free(tmp_path):
    refuse_used(tmp_path)
    refuse_used(tmp_path / "new" / "one")


def test_refuse_used__a_file_is_no_folder(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(TrainingError, match=r"notes\.txt is a file"):
        refuse_used(tmp_path / "notes.txt")


@pytest.mark.parametrize(
    ("files", "cure"),
    [
        (["notes.txt"], "Take another --out."),
        (["recipe.yaml"], "Take another --out, or delete it: the run in it ended before its first checkpoint."),
        (
            ["recipe.yaml", "checkpoints/last/state.pt"],
            "Take another --out, or go on with the run in it: `ssodkit run --resume {folder}`.",
        ),
    ],
)
def test_refuse_used__names_what_can_be_done(tmp_path, files, cure):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    with pytest.raises(TrainingError) as caught:
        refuse_used(tmp_path)
    cure = cure.format(folder=tmp_path)
    assert str(caught.value) == f"{tmp_path} is not empty, and nothing in it is overwritten. {cure}"


def test_make_folder__below_a_file_is_a_sentence(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(TrainingError, match=r"the folder .* cannot be made: Not a directory"):
        make_folder(tmp_path / "notes.txt" / "run")


def test_make_run_folder__without_a_name_takes_the_next_number(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert [str(make_run_folder(None, "a", ALONE)) for _ in range(2)] == ["runs/a-1", "runs/a-2"]
    assert str(make_run_folder(None, "b", ALONE)) == "runs/b-1"


def test_make_run_folder__where_runs_is_a_file_another_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").write_text("mine")
    with pytest.raises(TrainingError, match=r"runs/a-1 cannot be made: .* by --out"):
        make_run_folder(None, "a", ALONE)


def test_held__one_run_at_a_time_goes_on_in_a_folder(tmp_path):
    assert not is_held(tmp_path)
    (tmp_path / "recipe.yaml").write_text("name: x\n")
    with held(tmp_path, ALONE):
        assert is_held(tmp_path)
        with pytest.raises(TrainingError, match=f"another process trains in {tmp_path}. Wait until it has ended"):
            held(tmp_path, ALONE).__enter__()
    assert not is_held(tmp_path)
    assert (tmp_path / "recipe.yaml").read_text() == "name: x\n"


def test_held__ends_with_the_process_though_its_loaders_live_on(tmp_path):
    (tmp_path / "recipe.yaml").write_text("name: x\n")
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe()
    with held(tmp_path, ALONE):
        loader = fork.Process(target=theirs.recv, daemon=True)
        loader.start()
        assert is_held(tmp_path)
    assert loader.is_alive()
    assert not is_held(tmp_path)
    ours.send(None)
    loader.join()


def test_held__without_locks_a_run_goes_on(tmp_path, monkeypatch):
    def refuse(descriptor, kind):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", refuse)
    with held(tmp_path, ALONE):
        pass

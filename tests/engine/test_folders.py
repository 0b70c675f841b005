import multiprocessing

import pytest
import torch

from ssodkit.engine.distributed import Processes
from ssodkit.engine.folders import filled_whole, held, is_held, make_folder, make_run_folder, refuse_used
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


def write_at_once(*files):
    for file in files:
        file.write_text("")


def fill(out, other):
    with filled_whole(out) as draft:
        write_at_once(draft / "theirs.txt", other)


def test_filled_whole__its_files_appear_at_the_end_together(tmp_path):
    (tmp_path / "out" / f".ssodkit-{'0' * 16}.partial").mkdir(parents=True)  # of a process that was killed
    with filled_whole(tmp_path / "out") as draft:
        (draft / "folder").mkdir()
        (draft / "folder" / "a.txt").touch()
        assert list((tmp_path / "out").iterdir()) == [draft]
    assert [path.name for path in (tmp_path / "out").rglob("*")] == ["folder", "a.txt"]


def test_filled_whole__what_fails_leaves_nothing_and_names_the_file_by_its_place(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, filled_whole(tmp_path / "out") as draft:
        write_at_once(draft / "a.txt", draft / "nowhere" / "b.txt")
    assert caught.value.filename == str(tmp_path / "out" / "nowhere" / "b.txt")
    assert list(tmp_path.iterdir()) == []


def test_filled_whole__where_two_fill_one_folder_the_first_one_has_it(tmp_path):
    with pytest.raises(TrainingError, match="is not empty"), filled_whole(tmp_path / "out") as late:
        fill(tmp_path / "out", late / "mine.txt")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["theirs.txt"]


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


def live_on(pipe):
    pipe.send("begun")
    pipe.recv()


def test_held__ends_with_the_process_though_its_loaders_live_on(tmp_path):
    (tmp_path / "recipe.yaml").write_text("name: x\n")
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe()
    with held(tmp_path, ALONE):
        loader = fork.Process(target=live_on, args=(theirs,), daemon=True)
        loader.start()
        assert ours.recv() == "begun"
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

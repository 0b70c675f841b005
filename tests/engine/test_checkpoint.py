import errno
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from ssodkit.data.annotations import Category
from ssodkit.engine.checkpoint import (
    Checkpoints,
    Origin,
    find_last,
    load_network,
    load_state,
    read_categories,
    read_step,
)
from ssodkit.errors import TrainingError

CAT, DOG = Category(7, "cat"), Category(3, "dog")
ORIGIN = Origin(
    recipe={"name": "a", "engine": {"steps": 10}},
    plugins={"selector/fixed": "ssodkit.Fixed"},
    categories=(CAT, DOG),
    fold="abc",
)


def network(value=1.0):
    layer = nn.Conv2d(3, 2, 3, bias=False)
    nn.init.constant_(layer.weight, value)
    return layer.to(memory_format=torch.channels_last)


def save(checkpoints, step, name="last"):
    state = {"step": step, "origin": ORIGIN.as_state(), "numbers": torch.full((1000,), float(step))}
    return checkpoints.save(state, {"student": network(step), "teacher": network(-step)}, name)


def is_whole(folder: Path) -> bool:
    step, student, teacher = read_step(folder), network(), network()
    load_network(folder, "student", student)
    load_network(folder, "teacher", teacher)
    state = load_state(folder)
    return (
        state["step"] == step
        and bool((state["numbers"] == step).all())
        and bool((student.weight == step).all() and (teacher.weight == -step).all())
    )


def test_checkpoints__hold_the_networks_the_state_and_the_class_table(tmp_path):
    folder = save(Checkpoints(tmp_path / "checkpoints", keep=1), 5)
    assert folder == tmp_path / "checkpoints" / "last" == find_last(tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == ["state.pt", "student.safetensors", "teacher.safetensors"]
    assert is_whole(folder)
    assert read_categories(folder) == (CAT, DOG)
    assert not folder.is_symlink()


def test_checkpoints__keep_the_last_few(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=3)
    for step in range(1, 6):
        save(checkpoints, step)
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == ["last", "step_00000003", "step_00000004"]
    assert [read_step(path) for path in sorted(checkpoints.folder.iterdir())] == [5, 3, 4]
    assert all(is_whole(path) for path in checkpoints.folder.iterdir())


def test_checkpoints__the_best_one_replaces_the_one_before(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=1)
    for step in (1, 2):
        save(checkpoints, step)
        save(checkpoints, step, "best")
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == ["best", "last"]
    assert read_step(checkpoints.folder / "best") == 2


class Killed(BaseException):
    """As if the process ended here."""


def die_at(monkeypatch, call):
    """End the process at the given file operation, counted from 0; return the list that counts them."""
    seen = []

    def wrap(owner, name):
        original = getattr(owner, name)

        def operation(*args, **options):
            seen.append(name)
            if len(seen) - 1 == call:
                raise Killed(name)
            return original(*args, **options)

        monkeypatch.setattr(owner, name, operation)

    for owner, name in ((os, "fsync"), (Path, "mkdir"), (Path, "rename"), (Path, "open"), (shutil, "rmtree")):
        wrap(owner, name)
    return seen


def test_checkpoints__a_crash_at_any_file_boundary_leaves_a_whole_one(tmp_path):
    boundaries = 0
    while True:
        run = tmp_path / str(boundaries)
        checkpoints = Checkpoints(run / "checkpoints", keep=2)
        save(checkpoints, 1)
        save(checkpoints, 2)
        with pytest.MonkeyPatch.context() as monkeypatch:
            seen = die_at(monkeypatch, boundaries)
            try:
                save(checkpoints, 3)
            except Killed:
                died = True
            else:
                died = False
        assert read_step(find_last(run)) in (2, 3)
        assert is_whole(find_last(run))
        save(checkpoints, 4)  # and the next one finds its way
        assert read_step(find_last(run)) == 4
        assert is_whole(run / "checkpoints" / "last")
        if not died:
            break
        boundaries += 1
    assert boundaries >= 12
    assert {"fsync", "rename", "open", "mkdir", "rmtree"} <= set(seen)


def test_checkpoints__a_full_disk_is_one_sentence_and_the_old_one_stays(tmp_path, file_limit):
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2)
    save(checkpoints, 1)
    with file_limit(1000), pytest.raises(TrainingError, match="checkpoint of step 2 cannot be written") as caught:
        save(checkpoints, 2)
    assert os.strerror(errno.EFBIG) in str(caught.value)
    assert f"go on from the one before with `ssodkit run --resume {tmp_path}`" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [path.name for path in checkpoints.folder.iterdir()] == ["last"]
    assert is_whole(find_last(tmp_path))
    assert read_step(find_last(tmp_path)) == 1


def test_find_last__says_where_there_is_none(tmp_path):
    with pytest.raises(TrainingError, match=rf"holds no checkpoint: .* `ssodkit run {tmp_path}/recipe.yaml`"):
        find_last(tmp_path)


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04", bytes(range(256)) * 8, None])
@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("state.pt", load_state),
        ("student.safetensors", read_step),
        ("student.safetensors", read_categories),
        ("teacher.safetensors", lambda folder: load_network(folder, "teacher", network())),
    ],
)
def test_checkpoints__a_damaged_file_is_named_with_its_cure(tmp_path, name, read, content):
    folder = save(Checkpoints(tmp_path / "checkpoints", keep=1), 1)
    read(folder)
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(TrainingError, match=rf"{name} is damaged.* Delete the folder {folder}; then") as caught:
        read(folder)
    assert "\n" not in str(caught.value)


def test_load_state__of_another_program_is_damaged(tmp_path):
    folder = save(Checkpoints(tmp_path / "checkpoints", keep=1), 1)
    for state in ({"epoch": 3}, [1, 2], torch.zeros(3)):
        torch.save(state, folder / "state.pt")
        with pytest.raises(TrainingError, match=r"state\.pt is damaged"):
            load_state(folder)


def test_load_state__runs_no_code_from_the_file(tmp_path):
    folder = save(Checkpoints(tmp_path / "checkpoints", keep=1), 1)
    torch.save({"step": Killed}, folder / "state.pt")
    with pytest.raises(TrainingError, match=r"state\.pt is damaged"):
        load_state(folder)


def test_load_network__refuses_the_weights_of_another(tmp_path):
    folder = save(Checkpoints(tmp_path / "checkpoints", keep=1), 1)
    with pytest.raises(TrainingError, match=r"holds other networks than this recipe builds \(Missing key"):
        load_network(folder, "student", nn.Conv2d(3, 5, 3))


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("recipe", {"recipe": {"name": "a", "engine": {"steps": 20}}}),
        ("set of plug-ins", {"plugins": {"selector/fixed": "mine.Fixed"}}),
        ("class table", {"categories": (CAT,)}),
        ("class table", {"categories": (DOG, CAT)}),
        ("labeled fold", {"fold": "xyz"}),
    ],
)
def test_origin__another_one_is_refused_and_the_difference_named(what, change):
    with pytest.raises(TrainingError, match=f"with another {what} ") as caught:
        replace(ORIGIN, **change).refuse_other(ORIGIN.as_state(), Path("checkpoints/last"))
    assert "checkpoints/last" in str(caught.value)


def test_origin__its_own_is_accepted():
    ORIGIN.refuse_other(ORIGIN.as_state(), Path("checkpoints/last"))

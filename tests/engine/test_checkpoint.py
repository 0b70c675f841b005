import errno
import os
import shutil
import subprocess
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from ssodkit.data.annotations import Category
from ssodkit.engine.checkpoint import (
    Checkpoints,
    find_checkpoints,
    find_last,
    find_networks,
    load_network,
    load_state,
    read_categories,
    read_step,
)
from ssodkit.engine.checksums import CHECKSUMS
from ssodkit.engine.origin import Origin
from ssodkit.errors import TrainingError
from ssodkit.recipe.check import load_recipe

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
    files = ["checksums.sha256", "state.pt", "student.safetensors", "teacher.safetensors"]
    assert sorted(path.name for path in folder.iterdir()) == files
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
        checkpoints.tidy()  # as where the run is gone on with
        assert len(find_checkpoints(run)) == len(list(checkpoints.folder.iterdir())) <= 2
        save(checkpoints, 4)  # and the next one finds its way
        assert read_step(find_last(run)) == 4
        assert is_whole(run / "checkpoints" / "last")
        assert sorted(path.name for path in checkpoints.folder.iterdir())[0] == "last"  # and nothing is left over
        assert len(find_checkpoints(run)) == len(list(checkpoints.folder.iterdir())) == 2
        if not died:
            break
        boundaries += 1
    assert boundaries >= 12
    assert {"fsync", "rename", "open", "mkdir", "rmtree"} <= set(seen)


def test_checkpoints__a_crash_while_the_best_is_replaced_leaves_no_half_of_it(tmp_path):
    boundaries, died = 0, True
    while died:
        checkpoints = Checkpoints(tmp_path / str(boundaries) / "checkpoints", keep=1)
        for step in (1, 2):
            save(checkpoints, step)
            with pytest.MonkeyPatch.context() as monkeypatch:
                seen = die_at(monkeypatch, boundaries if step == 2 else -1)
                with suppress(Killed):
                    save(checkpoints, step, "best")
        died = len(seen) > boundaries
        best = checkpoints.folder / "best"
        assert not best.exists() or is_whole(best)
        assert best.exists() or died
        boundaries += 1
    assert boundaries >= 12


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


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04", bytes(range(256)) * 8, None])
@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("state.pt", lambda run: load_state(find_last(run))),
        ("student.safetensors", lambda run: read_step(find_networks(run, load_recipe("supervised")))),
        ("student.safetensors", lambda run: read_categories(find_networks(run, load_recipe("supervised")))),
        (
            "teacher.safetensors",
            lambda run: load_network(find_networks(run, load_recipe("supervised")), "teacher", network()),
        ),
    ],
)
def test_checkpoints__a_damaged_file_is_named_with_its_cure(tmp_path, name, read, content, listed):
    folder = save(Checkpoints(tmp_path / "checkpoints", keep=1), 1)
    read(tmp_path)
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2] if content is None else content)
    if not listed:  # as in the checkpoints of earlier versions
        (folder / CHECKSUMS).unlink()
    with pytest.raises(TrainingError, match=rf"{name} is damaged.* or move the folder {folder} elsewhere: ") as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)
    assert f"must start anew with `ssodkit run {tmp_path}/recipe.yaml`" in str(caught.value)


@pytest.mark.parametrize("name", ["state.pt", "student.safetensors", "teacher.safetensors", "checksums.sha256"])
def test_load_state__a_flipped_bit_in_any_file_is_noticed(tmp_path, name):
    folder = save(Checkpoints(tmp_path / "checkpoints", keep=1), 1)
    content = bytearray((folder / name).read_bytes())
    for place in range(0, len(content), max(1, len(content) // 20)):
        content[place] ^= 1
        (folder / name).write_bytes(content)
        with pytest.raises(TrainingError, match="is damaged"):
            load_state(folder)
        content[place] ^= 1
    (folder / name).write_bytes(content)
    load_state(folder)


def test_load_state__a_list_that_was_cut_is_noticed(tmp_path):
    folder = save(Checkpoints(tmp_path / "checkpoints", keep=1), 1)
    text = (folder / CHECKSUMS).read_text()
    for end in range(len(text)):
        (folder / CHECKSUMS).write_text(text[:end])
        with pytest.raises(TrainingError, match=r"checksums\.sha256 is damaged"):
            load_state(folder)


def test_checksums__are_those_that_sha256sum_reads(tmp_path):
    folder = save(Checkpoints(tmp_path / "checkpoints", keep=1), 1)
    done = subprocess.run(["sha256sum", "--check", "--strict", CHECKSUMS], cwd=folder, capture_output=True, text=True)
    assert done.stdout == "student.safetensors: OK\nteacher.safetensors: OK\nstate.pt: OK\n"


def test_load_state__where_there_is_an_older_checkpoint_it_is_named(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2)
    for step in (1, 2):
        save(checkpoints, step)
    (checkpoints.folder / "last" / "state.pt").unlink()
    with pytest.raises(TrainingError, match=r"No such file.*checkpoint before it, step_00000001, is taken then\."):
        load_state(find_last(tmp_path))
    (checkpoints.folder / "last").rename(checkpoints.folder / "last damaged")
    assert load_state(find_last(tmp_path))["step"] == 1


def test_checkpoints__what_others_put_there_is_never_counted_deleted_or_in_the_way(tmp_path):
    folder, warnings = tmp_path / "checkpoints", []
    checkpoints = Checkpoints(folder, keep=2, warn=warnings.append)
    folder.mkdir()
    names = [
        "step_backup",
        "step_9",
        "step_000000099x",
        "step_00000098",
        "notes",
        ".ssodkit-mine.partial",
        "last",
        "best",
    ]
    for name in names:
        (folder / name).mkdir()
        (folder / name / "mine.txt").write_text(name)
    (folder / "step_00000001").write_text("a file")
    elsewhere = save(Checkpoints(tmp_path / "elsewhere", keep=1), 97)
    (folder / "step_00000097").symlink_to(elsewhere)
    assert find_checkpoints(tmp_path) == []
    for step in (1, 2, 3):
        save(checkpoints, step)
    (folder / "step_00000002" / "mine.txt").write_text("beside a checkpoint")
    for step in (4, 5):
        save(checkpoints, step)
    save(checkpoints, 5, "best")
    assert read_step(folder / "last") == read_step(folder / "best") == 5
    assert find_checkpoints(tmp_path) == [folder / "last", folder / "step_00000004"]
    assert is_whole(elsewhere)
    assert (folder / "step_00000001.aside-1").read_text() == "a file"
    assert is_whole(folder / "step_00000002.aside-1")
    kept = {name if name not in ("last", "best") else f"{name}.aside-1" for name in names}
    assert {path.parent.name for path in folder.glob("*/mine.txt")} == {*kept, "step_00000002.aside-1"}
    assert [Path(warning.split(" ")[0]).name for warning in warnings] == [
        "last",
        "step_00000001",
        "step_00000002",
        "best",
    ]


def test_checkpoints__a_last_one_that_was_damaged_meanwhile_is_put_aside(tmp_path):
    warnings = []
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2, warn=warnings.append)
    save(checkpoints, 1)
    (checkpoints.folder / "last" / "student.safetensors").write_bytes(b"hello")
    save(checkpoints, 2)
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == ["last", "last.aside-1"]
    assert is_whole(find_last(tmp_path))
    assert "last.aside-1" in warnings[0]


def test_checkpoints__steps_of_more_digits_are_newer(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2)
    for step in (99_999_999, 100_000_000, 100_000_001):
        save(checkpoints, step)
    assert [path.name for path in find_checkpoints(tmp_path)] == ["last", "step_100000000"]


def test_load_state__of_another_program_is_damaged(tmp_path):
    folder = save(Checkpoints(tmp_path / "checkpoints", keep=1), 1)
    (folder / CHECKSUMS).unlink()
    for state in ({"epoch": 3}, [1, 2], torch.zeros(3)):
        torch.save(state, folder / "state.pt")
        with pytest.raises(TrainingError, match=r"state\.pt is damaged"):
            load_state(folder)


def test_load_state__runs_no_code_from_the_file(tmp_path):
    folder = save(Checkpoints(tmp_path / "checkpoints", keep=1), 1)
    (folder / CHECKSUMS).unlink()
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

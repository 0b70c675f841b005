import os
import signal
import stat
import subprocess
import sys

import pytest

from ssodkit.data.files import draft_folder, new_draft, write_whole, written_whole


def contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_write_whole__replaces_what_was_there(tmp_path):
    for text in ("one", "two\n"):
        write_whole(tmp_path / "a.txt", text)
    assert contents(tmp_path) == {"a.txt": "two\n"}


def test_write_whole__where_the_disk_is_full_the_old_one_stays_and_no_half(tmp_path, file_limit):
    write_whole(tmp_path / "a.txt", "one")
    with file_limit(100), pytest.raises(OSError, match="File too large") as caught:
        write_whole(tmp_path / "a.txt", "two" * 100)
    assert caught.value.filename == str(tmp_path / "a.txt")
    assert contents(tmp_path) == {"a.txt": "one"}


def test_write_whole__leaves_the_users_files_alone_whatever_they_are_called(tmp_path):
    mine = {"a.txt.partial": "1", "a.partial": "2", ".a.txt.partial": "3", ".ssodkit-notes.partial": "4"}
    for name, text in mine.items():
        (tmp_path / name).write_text(text)
    write_whole(tmp_path / "a.txt", "one")
    assert contents(tmp_path) == {**mine, "a.txt": "one"}


def test_write_whole__who_may_read_it_is_as_the_umask_says(tmp_path):
    before = os.umask(0o027)
    try:
        write_whole(tmp_path / "a.txt", "one")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o640


def test_write_whole__is_on_the_disk_when_it_returns_its_name_too(tmp_path, monkeypatch):
    synced, sync = [], os.fsync

    def note(handle):
        synced.append(os.readlink(f"/proc/self/fd/{handle}"))
        sync(handle)

    monkeypatch.setattr(os, "fsync", note)
    write_whole(tmp_path / "a.txt", "one")
    assert len(synced) == 2
    assert synced[0].startswith(f"{tmp_path}/.ssodkit-")
    assert synced[1] == str(tmp_path)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_write_whole__what_fails_leaves_nothing(tmp_path, error):
    def pieces():
        yield "half"
        raise error

    with pytest.raises(error):
        write_whole(tmp_path / "a.txt", pieces())
    assert contents(tmp_path) == {}


KILLED = """
import os, signal, sys
from pathlib import Path
from ssodkit.data.files import draft_folder, written_whole
with written_whole(Path(sys.argv[1])) as stream, draft_folder(Path(sys.argv[1]).parent) as folder:
    stream.write(b"half")
    stream.flush()
    (folder / "some.txt").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_drafts__those_of_a_killed_process_go_and_those_of_a_living_one_stay(tmp_path):
    ended = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "a.txt"], timeout=60)
    assert ended.returncode == -signal.SIGKILL
    assert sorted(dead.is_dir() for dead in tmp_path.iterdir()) == [False, True]
    with written_whole(tmp_path / "b.txt") as stream, draft_folder(tmp_path) as folder:
        stream.write(b"whole")
        (folder / "some.txt").touch()
        write_whole(tmp_path / "a.txt", "one")
        with draft_folder(tmp_path) as other:
            assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 2
        assert not other.exists()
        assert (folder / "some.txt").exists()
    assert contents(tmp_path) == {"a.txt": "one", "b.txt": "whole"}


def test_new_draft__is_another_one_each_time(tmp_path):
    assert len({new_draft(tmp_path) for _ in range(3)}) == 3

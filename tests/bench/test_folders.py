"""Claims: one process at a time trains a cell, and a claim lasts as long as any process that inherited it."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ssodkit.bench.folders import CellFolder
from ssodkit.engine.locks import TRIES


def test_claim__is_given_once_until_it_is_closed(tmp_path: Path):
    folder = CellFolder(tmp_path / "cell")
    assert not folder.is_claimed()
    assert not folder.path.exists()
    claim = folder.claim()
    assert claim is not None
    assert folder.is_claimed()
    assert folder.claim() is None
    os.close(claim)
    assert not folder.is_claimed()
    again = folder.claim()
    assert again is not None
    os.close(again)


def test_claim__is_not_taken_away_by_a_look_at_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = CellFolder(tmp_path)
    (tmp_path / "claim").touch()
    look = os.open(tmp_path / "claim", os.O_RDONLY)
    fcntl.flock(look, fcntl.LOCK_SH)
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    assert folder.claim(TRIES) is None
    assert len(pauses) == TRIES - 1
    monkeypatch.setattr("time.sleep", lambda _: fcntl.flock(look, fcntl.LOCK_UN))
    claim = folder.claim(TRIES)
    assert claim is not None
    os.close(claim)
    os.close(look)


def test_claim__lasts_as_long_as_a_process_that_inherited_it(tmp_path: Path):
    folder = CellFolder(tmp_path)
    claim = folder.claim()
    assert claim is not None
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(claim,))
    os.close(claim)
    assert folder.is_claimed()
    child.kill()
    child.communicate()
    assert not folder.is_claimed()


def test_error__is_none_where_no_attempt_has_failed(tmp_path: Path):
    folder = CellFolder(tmp_path)
    assert (folder.read_error(), folder.failed_at()) == (None, None)
    folder.error.write_text("no data\n")
    assert folder.read_error() == "no data"
    assert folder.failed_at() == folder.error.stat().st_mtime_ns

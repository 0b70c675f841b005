"""What reports are tested with: copies of a run that something happened to."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def copy_run(watched_run: Path, tmp_path: Path) -> Callable[..., Path]:
    """A name, and names of files and folders that are lost -> a copy of the run, without checkpoints."""

    def copy(name: str, *lost: str) -> Path:
        run = tmp_path / "runs" / name
        shutil.copytree(watched_run, run, ignore=shutil.ignore_patterns("checkpoints", *lost))
        return run

    return copy

"""What reports are tested with: one run that really trained, and copies of it that something happened to."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ssodkit.engine.train import train
from ssodkit.recipe.check import load_recipe

WATCHED = (
    "data.train.images=20",
    "data.test.images=4",
    "data.percent=20",
    "data.batch.labeled=2",
    "data.batch.unlabeled=2",
    "engine.steps=4",
    "engine.evaluate_every=2",
    "engine.workers=0",
    "watch.log_every=1",
    "watch.health_every=2",
    "watch.pictures=0",
    "watch.gallery.images=3",
    "watch.gallery.moments=2",
    "method.selector.objectness.above=0.08",
    "method.selector.classes.above=0.08",
    "method.selector.boxes.below=1.0",
    "method.scorers.0.asks.above=0.08",
    "method.unlabeled_weight=2.0",
)


@pytest.fixture(scope="session")
def watched_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of `soft_teacher`: 4 steps, scored and looked at after steps 2 and 4."""
    run = tmp_path_factory.mktemp("runs") / "watched"
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("SSODKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        train(load_recipe("soft_teacher", WATCHED), out=run, device="cpu")
    return run


@pytest.fixture
def copy_run(watched_run: Path, tmp_path: Path) -> Callable[..., Path]:
    """A name, and names of files and folders that are lost -> a copy of the run, without checkpoints."""

    def copy(name: str, *lost: str) -> Path:
        run = tmp_path / "runs" / name
        shutil.copytree(watched_run, run, ignore=shutil.ignore_patterns("checkpoints", *lost))
        return run

    return copy

"""A suite that trains in seconds, and how `ssodkit bench` is called on it in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import ssodkit

TINY = {
    "data.train.images": 24,
    "data.test.images": 4,
    "data.batch.labeled": 2,
    "engine.workers": 0,
    "engine.checkpoint.every": 10,
    "watch.pictures": 0,
    "watch.gallery.images": 0,
    "watch.log_every": 1,
}


def write_suite(folder: Path, steps: int, folds: str = "[1]", methods: str = "[{recipe: supervised}]") -> Path:
    """A suite on the embedded data."""
    values = "".join(f"  {key}: {value}\n" for key, value in {**TINY, "engine.steps": steps}.items())
    file = folder / "tiny.yaml"
    file.write_text(
        f"name: tiny\nabout: Tiny.\npercents: [25]\nfolds: {folds}\nset:\n{values}methods: {methods}\n",
        encoding="utf-8",
    )
    return file


def environment(cache: Path) -> dict[str, str]:
    """For processes of their own: one thread, this package, and made data in a folder that is shared."""
    package = str(Path(ssodkit.__file__).parents[1])
    return os.environ | {"PYTHONPATH": package, "SSODKIT_CACHE": str(cache), "OMP_NUM_THREADS": "1"}


def start(folder: Path, environment: dict[str, str], *arguments: object) -> "subprocess.Popen[str]":
    """`ssodkit bench tiny.yaml` on the CPU."""
    words = ["bench", "tiny.yaml", "--device", "cpu", *map(str, arguments)]
    return subprocess.Popen(
        [sys.executable, "-m", "ssodkit", *words],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

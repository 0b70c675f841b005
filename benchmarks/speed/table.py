"""A table of 10,000 result files: how long `ssodkit table` takes, from its start to its last line.

The files are made in a temporary folder from one example, with an evaluation every 300 of 1,500 steps and a report on
the pseudo-labels every 50. The last line is the seconds.

    python benchmarks/speed/table.py
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ssodkit.bench.suite import Cell, cells_of
from ssodkit.engine.metrics import COCO_NAMES

PERCENTS, FOLDS, SEEDS = (1, 2, 2.5, 5, 10), 40, 25
METHODS = (
    {"recipe": "supervised"},
    {"recipe": "soft_teacher", "baseline": "supervised"},
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folds", type=int, default=FOLDS, help="each is 250 files")
    folds = range(1, parser.parse_args().folds + 1)
    with tempfile.TemporaryDirectory() as folder:
        suite = Path(folder) / "many.yaml"
        content = {"name": "many", "about": "Many.", "percents": PERCENTS, "folds": [*folds], "seeds": [*range(SEEDS)]}
        suite.write_text(json.dumps({**content, "methods": METHODS}))
        size = write_results(suite)
        start = time.perf_counter()
        command = [sys.executable, "-m", "ssodkit", "table", str(suite)]
        text = subprocess.run(command, capture_output=True, check=True, text=True).stdout
        seconds = time.perf_counter() - start
    wanted = len(PERCENTS) * len(METHODS) * SEEDS * len(folds)
    if f"{wanted:,} of {wanted:,} trainings done" not in text:
        raise SystemExit(f"the table does not have all {wanted:,} results:\n{text}")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{wanted:,} result files, {size / 1e6:.0f} MB; {used.ru_utime + used.ru_stime:.1f} seconds of a core")
    print("seconds from the start of `ssodkit table` to its end:")
    print(f"{seconds:.1f}")


def write_results(suite: Path) -> int:
    """Write a result file for every cell of a suite; their bytes."""
    folder = suite.parent / "results"
    folder.mkdir()
    recipes: dict[str, dict[str, Any]] = {}
    size = 0
    for place, cell in enumerate(cells_of(suite)[1]):
        if cell.method not in recipes:
            recipes[cell.method] = cell.recipe.model_dump(mode="json")
        text = json.dumps(make_result(cell, recipes[cell.method], 0.3 + place % 97 / 1000), indent=1)
        size += (folder / f"{cell.name}.json").write_text(text)
    return size


def make_result(cell: Cell, recipe: dict[str, Any], score: float) -> dict[str, Any]:
    """The content of a result file, every score the same."""
    networks = {network: dict.fromkeys(COCO_NAMES, score) for network in ("student", "teacher")}
    draw = {**cell.share._asdict(), "fold": cell.fold}
    health = {"boxes_per_image": 2.0, "labeled_boxes_per_image": 2.5, "precision": 0.8, "recall": 0.6}
    return {
        "format": 1,
        "recipe": {**recipe, "seed": cell.seed, "data": {**recipe["data"], **draw}},
        "recipe_hash": cell.hash,
        "fold": {**draw, "mode": "soft_teacher", "hash": f"{cell.share.slug}-{cell.fold}", "images": 50},
        "sources": [{"commit": "0123456789abcdef", "clean": True}],
        "versions": {"python": "3.11", "ssodkit": "0", "torch": "2"},
        "device": "cpu, 2 threads",
        "processes": 1,
        "precision": "fp32",
        "seed": cell.seed,
        "seconds": 300.0,
        "images_per_second": 60.0,
        "memory_gb": 2.0,
        "result": "teacher",
        "evaluations": [
            {"step": step, "set": "test", "thresholds": {"0.05": networks, "0.001": networks}}
            for step in range(300, cell.recipe.engine.steps + 1, 300)
        ],
        "health": [{"step": step, **health} for step in range(50, cell.recipe.engine.steps + 1, 50)],
    }


if __name__ == "__main__":
    main()

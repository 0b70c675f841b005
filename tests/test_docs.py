"""The documents are run: what they tell a newcomer to type has to work."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ssodkit.recipe.read import shipped_recipes

ROOT = Path(__file__).parents[1]
METHOD_PAGE, CONSISTENCY_PAGE = (ROOT / "docs" / f"add_a_{name}.md" for name in ("method", "consistency"))
ROOTS = (ROOT, ROOT / "ssodkit", ROOT / "recipes")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SHORT = ["engine.steps=2", "data.test.images=4", "engine.workers=0", "data.batch.labeled=2", "data.batch.unlabeled=2"]
SHORT += ["watch.health_every=1", "watch.log_every=1", "watch.gallery.images=2"]
SHORT += ["data.train.images=40", "data.percent=10"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages__files_that_they_name_exist(page: Path):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    linked = [page.parent / name for name in re.findall(r"\]\((?!https:)([^)#]+)\)", text)]
    named = re.findall(r"`((?:\w+/)+\w+\.(?:py|yaml|md|json))`", text)
    missing = [path for path in linked if not path.exists()]
    missing += [name for name in named if not any((root / name).exists() for root in ROOTS)]
    assert not missing


def test_readme__has_every_embedded_recipe():
    embedded = {name for name in shipped_recipes() if "/" not in name}
    rows = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("| `")]
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} >= embedded


def write_blocks(folder: Path, page: Path = METHOD_PAGE) -> list[str]:
    """Save every block of a page under the name in its first line; the names."""
    names = []
    for kind, name, text in re.findall(r"```(python|yaml)\n# (\S+)\n(.*?)```", page.read_text(), flags=re.DOTALL):
        assert name.endswith(".py" if kind == "python" else ".yaml")
        (folder / name).write_text(text)
        names.append(name)
    return names


def ssodkit(folder: Path, *arguments: str) -> str:
    """The verb's output, run in a folder that knows nothing of the source tree."""
    done = subprocess.run(
        [sys.executable, "-m", "ssodkit", *arguments], cwd=folder, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_add_a_method__the_page_trains_with_its_selector(tmp_path):
    assert write_blocks(tmp_path) == ["expected_count.py", "expected_count.yaml"]
    ssodkit(tmp_path, "recipe", "check", "expected_count.yaml", "--trust-plugins")
    assert "expected_count" in ssodkit(tmp_path, "recipe", "show", "expected_count.yaml")
    short = [part for value in [*SHORT, "method.unlabeled_weight=1.0"] for part in ("--set", value)]
    ssodkit(tmp_path, "run", "expected_count.yaml", "--out", "run", "--device", "cpu", *short)
    metrics = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert "unlabeled/roi/class" in metrics
    assert "expected_count" in metrics, "the health report names the selector's filter"


def test_add_a_method__a_score_that_nobody_writes_is_refused(tmp_path):
    write_blocks(tmp_path)
    plugin = tmp_path / "expected_count.py"
    plugin.write_text(plugin.read_text().replace('frozenset({"confidence"})', 'frozenset({"box_jitter"})'))
    done = subprocess.run(
        [sys.executable, "-m", "ssodkit", "recipe", "check", "expected_count.yaml", "--trust-plugins"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 2
    assert "reads the score 'box_jitter'" in done.stderr


def test_add_a_consistency__the_page_trains_with_its_loss(tmp_path):
    assert write_blocks(tmp_path, CONSISTENCY_PAGE) == ["same_in_gray.py", "same_in_gray.yaml"]
    short = [part for value in [*SHORT, "method.consistencies.0.weight=1.0"] for part in ("--set", value)]
    ssodkit(tmp_path, "run", "same_in_gray.yaml", "--out", "run", "--device", "cpu", *short)
    steps = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [step["losses"] for step in steps if "losses" in step]
    assert len(losses) == 2
    assert all(loss["consistency/same_in_gray/features"] > 0.0 for loss in losses)
    assert not any(name.startswith("unlabeled") for loss in losses for name in loss)

"""The documents are run: what they tell a newcomer to type has to work."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pages import CONSISTENCY_PAGE, DETECTOR_PAGE, METHOD_PAGE, forgetting, write_blocks
from two_steps import take_two_steps

from ssodkit.errors import RecipeError
from ssodkit.plugins import members
from ssodkit.recipe.check import load_recipe
from ssodkit.recipe.model import Recipe
from ssodkit.recipe.read import shipped_recipes

ROOT = Path(__file__).parents[1]
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


def ssodkit(folder: Path, *arguments: str) -> str:
    """The verb's output, run in a folder that knows nothing of the source tree."""
    done = subprocess.run(
        [sys.executable, "-m", "ssodkit", *arguments], cwd=folder, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_add_a_method__the_page_trains_with_its_selector(tmp_path):
    assert write_blocks(tmp_path, METHOD_PAGE) == ["expected_count.py", "expected_count.yaml"]
    ssodkit(tmp_path, "recipe", "check", "expected_count.yaml", "--trust-plugins")
    assert "expected_count" in ssodkit(tmp_path, "recipe", "show", "expected_count.yaml")
    short = [part for value in [*SHORT, "method.unlabeled_weight=1.0"] for part in ("--set", value)]
    ssodkit(tmp_path, "run", "expected_count.yaml", "--out", "run", "--device", "cpu", *short)
    metrics = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert "unlabeled/roi/class" in metrics
    assert "expected_count" in metrics, "the health report names the selector's filter"


def test_add_a_method__a_score_that_nobody_writes_is_refused(tmp_path):
    write_blocks(tmp_path, METHOD_PAGE)
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


TINY_FIVE_POINTS = ["detector.backbone={type: small, stem: 8, channels: [8, 16]}", "detector.neck.channels=8"]
TINY_FIVE_POINTS += [
    "detector.width=16",
    "detector.prior=0.2",
    "engine.steps=4",
    "data.batch={labeled: 2, unlabeled: 2}",
]
TEACHES = ["method.unlabeled_weight=1.0", "method.teacher.score=0.0"]
CONFIDENT = "{score: confidence, above: 0.01}"
FREELY = ["method.selector.above=0.01", *TEACHES]
OWN = {
    "mean_teacher": ["method.selector.ignore_from=null", *FREELY],
    "unbiased_teacher": FREELY,
    "consistent_teacher": ["method.selector={policy: middle, expected_factor: 100.0}", *TEACHES],
    "soft_teacher": [
        f"method.selector={{objectness: {CONFIDENT}, classes: {CONFIDENT}, boxes: {{score: box_jitter, below: 10.0}}}}",
        "method.scorers.0.asks.above=0.01",
        *TEACHES,
    ],
    "stac": ["data.unlabeled={type: stored, file: labels.json, made_by: null}"],
    "csd": ["method.consistencies.0.weight=1.0"],
    "dense_teacher": ["method.unlabeled_weight=1.0"],
    "humble_teacher": ["method.unlabeled_weight=1.0", "method.flip_average=true"],
}
"""By which pseudo-boxes of new networks teach, and from the first step on."""


@pytest.fixture(scope="module")
def five_points(tmp_path_factory) -> Iterator[Path]:
    """The folder of the page's files, whose plug-in is known as long as these tests run."""
    folder = tmp_path_factory.mktemp("five_points")
    assert write_blocks(folder, DETECTOR_PAGE) == [
        "five_points.py",
        "five_points.yaml",
        "five_points_mean_teacher.yaml",
    ]
    with forgetting("five_points"):
        yield folder


def on_five_points(folder: Path, recipe: str, *changes: str) -> Recipe:
    path = folder / f"five_points_{recipe}.yaml"
    path.write_text((folder / "five_points_mean_teacher.yaml").read_text().replace("mean_teacher", recipe))
    return load_recipe(path, [*TINY_FIVE_POINTS, *OWN.get(recipe, []), *changes], trust_plugins=True)


def test_add_a_detector__the_page_trains_with_its_network(five_points, call, monkeypatch):
    monkeypatch.chdir(five_points)
    name = "five_points_mean_teacher.yaml"
    changes = [*SHORT, *OWN["mean_teacher"], "detector.prior=0.2"]
    short = [part for value in changes for part in ("--set", value)]
    assert call("recipe", "check", name, "--trust-plugins").code == 0
    said = call("doctor", name, "--device", "cpu", *short)
    assert said.code == 0, said.err
    assert "0 mistakes" in said.out
    assert call("run", name, "--out", "run", "--device", "cpu", *short).code == 0
    steps = [json.loads(line) for line in (five_points / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [step["losses"] for step in steps if "losses" in step]
    taught = {f"{stream}/dense/{term}" for stream in ("labeled", "unlabeled") for term in ("class", "box", "quality")}
    assert all(loss.keys() >= taught for loss in losses)
    assert losses[-1]["unlabeled/dense/box"] > 0.0


def test_add_a_detector__runs_with_what_the_page_says_and_is_refused_by_its_words(five_points):
    rows = re.findall(r"^\| `(\w+)` \| (yes|no) \| (?:`(.*?)`: )?", DETECTOR_PAGE.read_text(), flags=re.MULTILINE)
    presets = {path.stem for path in (ROOT / "recipes" / "bases" / "methods").glob("*.yaml")}
    assert {name for name, _, _ in rows} == presets & set(shipped_recipes())
    for name, runs, words in rows:
        if runs == "yes":
            take_two_steps(on_five_points(five_points, name))
        else:
            with pytest.raises(RecipeError, match=re.escape(words)):
                on_five_points(five_points, name)


def test_add_a_detector__every_matcher_serves_it(five_points):
    matchers = {"max_iou": "{type: max_iou, positive: 0.4, negative: 0.3}", "points": "{type: points, ranges: [22]}"}
    for name in members("matcher"):
        matcher = matchers.get(name, f"{{type: {name}}}")
        take_two_steps(on_five_points(five_points, "mean_teacher", f"detector.stages.dense.matcher={matcher}"))


def test_add_a_detector__an_answer_that_nothing_teaches_is_refused_as_the_page_says(five_points):
    said = re.search(r"^> (.*)$", DETECTOR_PAGE.read_text(), flags=re.MULTILINE)
    with pytest.raises(RecipeError, match=re.escape(said[1])):
        on_five_points(
            five_points, "mean_teacher", "detector.stages.dense.terms.quality=null", "detector.test.rank={class: 1}"
        )

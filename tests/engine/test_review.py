"""The review page: what it knows of each picture, and what it answers."""

import html
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from command import Call
from PIL import Image

from ssodkit.data.coco import read_coco
from ssodkit.engine.review import doubt, review
from ssodkit.engine.trained import load

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")

PRESSED = """<script>addEventListener("load", () => {
  const press = (key) => document.body.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  const slide = (value) => { const least = document.getElementById("least");
    least.value = value; least.dispatchEvent(new Event("input")); };
  const count = () => review.answer().annotations.length, counts = [];
  slide("0"); counts.push(count());
  press("ArrowDown"); press("w"); counts.push(count());
  press("ArrowDown"); press("f"); slide("1"); counts.push(count());
  document.getElementById("only-done").checked = true; counts.push(review.answer().images.length);
  press("Enter"); counts.push(review.answer().images.length, count());
  const said = document.createElement("pre");
  said.textContent = `SAID ${JSON.stringify([counts, review.answer()])} END`;
  document.body.append(said);
});</script>"""
"""All boxes are kept, then one is wrong, then one alone is fine; one picture is done."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three files, one of them larger than the page shows."""
    folder, random = tmp_path_factory.mktemp("folder"), np.random.RandomState(0)
    for name, shape in (("a.png", (80, 120, 3)), ("b <i>.png", (60, 60, 3)), ("c.png", (40, 1700, 3))):
        Image.fromarray(random.randint(0, 255, shape).astype(np.uint8)).save(folder / name)
    return folder


@pytest.fixture(scope="module")
def page(tiny_run, folder, tmp_path_factory):
    return review(tiny_run, tmp_path_factory.mktemp("review") / "out", folder, score=0.0).parent


def read_data(page):
    return json.loads((page / "data.js").read_text().removeprefix("const REVIEW = ").removesuffix(";\n"))


def test_doubt__counts_undecided_boxes():
    assert doubt(np.array([0.5, 1.0, 0.0, 0.75], np.float32)) == pytest.approx(1.5)
    assert doubt(np.zeros(0, np.float32)) == 0.0


def test_review__knows_what_the_detector_finds_sorted_by_doubt(tiny_run, folder, page):
    data = read_data(page)
    found = load(tiny_run, score=0.0)(sorted(folder.iterdir()))
    assert [category["name"] for category in data["categories"]] == [each.name for each in found[0].categories]
    assert sorted(picture["name"] for picture in data["pictures"]) == ["a.png", "b <i>.png", "c.png"]
    doubts = [picture["doubt"] for picture in data["pictures"]]
    assert doubts == sorted(doubts, reverse=True)
    for picture in data["pictures"]:
        expected = found[picture["id"] - 1]
        assert picture["doubt"] == pytest.approx(doubt(expected.scores), abs=1e-3)
        np.testing.assert_allclose(picture["boxes"], expected.boxes, atol=0.01)
        assert picture["labels"] == expected.labels.tolist()
        with Image.open(folder / picture["name"]) as original:
            assert picture["size"] == list(original.size)
        with Image.open(page / "pictures" / f"{picture['file']}.jpg") as shown:
            assert max(shown.size) == min(1600, max(picture["size"]))
        assert (page / "thumbs" / f"{picture['file']}.jpg").is_file()


def test_review__the_page_needs_nothing_from_elsewhere(page):
    texts = [(page / name).read_text() for name in ("index.html", "review.js", "review.css")]
    named = re.findall(r'(?:src|href)="([^"]+)"', texts[0])
    assert named
    assert all((page / name).is_file() for name in named)
    assert {address for text in texts for address in re.findall(r"https?://[^\"' ]+", text)} == {
        "http://www.w3.org/2000/svg"
    }


def test_review__what_cannot_be_done_is_a_sentence_and_leaves_no_folder(call: Call, tiny_run, tmp_path):
    (tmp_path / "images").mkdir()
    ended = call("review", tiny_run, tmp_path / "images", "--out", "out")
    assert ended.code == 2
    assert "holds no image" in ended.err
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
def test_page__its_answer_follows_the_keys_and_is_read_as_coco(page, folder, tmp_path):
    shutil.copytree(page, tmp_path / "page")
    tried = tmp_path / "page" / "tried.html"
    tried.write_text((page / "index.html").read_text() + PRESSED)
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    shown = subprocess.run(
        [*command, "--virtual-time-budget=5000", "--dump-dom", tried.as_uri()],
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
    ).stdout
    (said,) = re.findall(r"SAID (.*) END", html.unescape(shown.split("<pre>")[1]))
    counts, answer = json.loads(said)
    every = sum(len(picture["scores"]) for picture in read_data(page)["pictures"])
    assert counts == [every, every - 1, 1, 0, 1, 1]
    (tmp_path / "reviewed.json").write_text(json.dumps(answer))
    images = read_coco(tmp_path / "reviewed.json", folder)
    assert (len(images), len(images.boxes)) == (1, 1)

"""The doctor on small made data: what it says of whole ones, and of each kind of harm."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from ssodkit.engine.doctor.examine import examine
from ssodkit.engine.doctor.findings import Finding

CLASSES = ("cat", "dog")


@pytest.fixture
def photographs(tmp_path, monkeypatch):
    """A recipe `mine.yaml` in the working folder: eight labeled images of noise, four for the test, three unlabeled."""
    monkeypatch.chdir(tmp_path)
    for name, count, seed in (("train", 8, 0), ("test", 4, 1), ("more", 3, 2)):
        random = np.random.RandomState(seed)
        (tmp_path / name).mkdir()
        for place in range(count):
            Image.fromarray(random.randint(0, 255, (96, 96, 3)).astype(np.uint8)).save(f"{name}/{place}.png")
        if name != "more":
            write_labels(name, [(place, place % 2, [20, 20 + place, 22, 30]) for place in range(count)])
    (tmp_path / "mine.yaml").write_text(
        "extends: soft_teacher\nname: mine\n"
        "data:\n"
        "  train: {type: coco, annotations: train.json, images: train}\n"
        "  test: {type: coco, annotations: test.json, images: test}\n"
        "  unlabeled: {type: folder, images: more}\n"
        "  percent: 100\n"
        "  batch: {labeled: 2, unlabeled: 2}\n"
        "engine: {steps: 40, workers: 0}\n"
    )
    return tmp_path


def write_labels(name, boxes, sizes=(96, 96)):
    """`name.json`, of (image, class, xywh)."""
    images = sorted({image for image, _, _ in boxes})
    document = {
        "images": [{"id": i + 1, "file_name": f"{i}.png", "height": sizes[0], "width": sizes[1]} for i in images],
        "annotations": [
            {"id": number, "image_id": image + 1, "category_id": label + 1, "bbox": box}
            for number, (image, label, box) in enumerate(boxes)
        ],
        "categories": [{"id": label + 1, "name": name} for label, name in enumerate(CLASSES)],
    }
    with open(f"{name}.json", "w", encoding="utf-8") as file:
        json.dump(document, file)


def test_doctor__of_whole_data_has_no_mistake_and_tries_a_step(photographs, call):
    ended = call("doctor", "mine.yaml", "--out", "seen", "--device", "cpu")
    assert ended.code == 0, ended.out + ended.err
    assert "0 mistakes" in ended.out
    text = " ".join(ended.out.replace("│", " ").split())
    assert "15 image files looked at, all of them can be used" in text
    assert "boxes in 8 labeled images: cat 4 in 4, dog 4 in 4" in text
    assert "the run will take about" in text
    report = json.loads((photographs / "seen" / "report.json").read_text())
    assert report["survey"]["per_image"] == {"least": 1.0, "low": 1.0, "median": 1.0, "high": 1.0, "most": 1.0}
    assert report["survey"]["classes"][1] == {"name": "dog", "images": 4, "boxes": 4}
    assert report["cost"]["whole"] >= 40 * report["cost"]["step"] > 0
    assert {finding["severity"] for finding in report["findings"]} <= {"warning", "note"}
    assert sorted(path.name for path in (photographs / "seen").iterdir()) == [
        "labeled.png",
        "report.json",
        "test.png",
        "unlabeled.png",
    ]
    with Image.open(photographs / "seen" / "unlabeled.png") as sheet:  # two views, side by side and under titles
        assert sheet.size == (2 * 288 + 3 * 8, 34 + 2 * (288 + 8))
    again = call("doctor", "mine.yaml", "--out", "seen")
    assert again.code == 2
    assert "seen" in again.err


def test_doctor__shows_mistakes_of_all_kinds_at_once(photographs, call):
    (photographs / "train" / "2.png").write_bytes(b"")
    (photographs / "more" / "1.png").write_bytes((photographs / "more" / "1.png").read_bytes()[:900])
    write_labels("test", [(0, 0, [20, 20, 0, 30]), (1, 1, [20, 20, 22, 30])])
    ended = call("doctor", "mine.yaml", "--json")
    assert ended.code == 2
    report = json.loads(ended.out)
    mistakes = [(each["area"], each["where"]) for each in report["findings"] if each["severity"] == "mistake"]
    assert sorted(mistakes) == [("data", "data.test"), ("files", "data.train"), ("files", "data.unlabeled")]
    whats = " ".join(each["what"] for each in report["findings"])
    assert "2.png cannot be read" in whats
    assert "1.png cannot be read" in whats
    assert report["cost"] is None


def test_doctor__shows_all_mistakes_of_a_recipe(photographs, call):
    ended = call("doctor", "mine.yaml", "--set", "data.fold=-1", "--set", "engine.stepps=3", "--json")
    assert ended.code == 2
    findings = json.loads(ended.out)["findings"]
    assert [(each["severity"], each["area"]) for each in findings] == [("mistake", "recipe")] * 2


def warnings_of(*overrides):
    return [finding for finding in examine("mine.yaml", overrides).findings if finding.severity == "warning"]


def test_doctor__broken_files_that_may_be_skipped_are_a_warning(photographs):
    (photographs / "train" / "2.png").write_bytes(b"")
    (finding,) = (each for each in warnings_of("data.broken={skip: true, at_most: 1}") if each.area == "files")
    assert finding.what.startswith("1 of 8 images cannot be used:")


def test_doctor__copies_and_boxes_that_stand_twice_are_named(photographs):
    shutil.copy(photographs / "train" / "0.png", photographs / "train" / "1.png")
    shutil.copy(photographs / "train" / "0.png", photographs / "more" / "1.png")
    shutil.copy(photographs / "test" / "3.png", photographs / "more" / "2.png")
    boxes = [(place, place % 2, [20, 20 + place, 22, 30]) for place in range(8)]
    write_labels("train", [*boxes, (5, 1, [20.2, 25, 22, 30]), (6, 1, [20, 26, 22, 30])])
    findings = warnings_of()
    by_area = {finding.area: finding for finding in findings}
    assert by_area["copies"].what == "1 images are copies of others, by content: 0.png = 1.png"
    assert by_area["boxes"].what == "in 1 images two boxes of one class are almost the same: 5.png"
    assert "data.unlabeled and data.test share 1 images" in by_area["data"].what
    notes = [finding for finding in examine("mine.yaml").findings if finding.severity == "note"]
    assert (
        Finding("note", "copies", "data.unlabeled", "1 of its images are among those of data.train as well, by content")
        in notes
    )


def test_doctor__classes_that_no_labeled_image_shows_are_named(photographs):
    write_labels("train", [(place, 0, [20, 20, 22, 30]) for place in range(8)])
    (finding,) = (each for each in warnings_of() if each.area == "classes")
    assert finding.what == "1 classes are scored, and no labeled image shows them: dog"


def test_doctor__rare_classes_and_other_sizes_are_named(photographs):
    boxes = [(place, 0, [number, place, 22 + number, 30]) for place in range(8) for number in range(0, 56, 7)]
    write_labels("train", [*boxes, (0, 1, [5, 5, 20, 30])])
    for place in range(3):
        Image.new("RGB", (400, 300)).save(photographs / "more" / f"{place}.png")
    by_area = {finding.area: finding for finding in warnings_of()}
    assert by_area["classes"].what.endswith("of the most frequent one: dog 1")
    assert by_area["sizes"].what == "its images have short sides of 300 pixels in the median, the labeled ones 96"


def test_run__warns_of_what_does_not_meet_before_the_first_step(photographs, call):
    small = ("--set", "engine.steps=1", "--set", "watch.pictures=0", "--set", "watch.gallery.images=0")
    ended = call("run", "mine.yaml", "--out", "run", "--set", "detector.anchors.sides=[[200],[300]]", *small)
    assert ended.code == 0, ended.err
    text = " ".join(ended.out.split())
    assert "warning: detector.anchors: 100 % of the labeled boxes overlap no anchor by an IoU of 0.6" in text
    assert text.index("warning: detector.anchors") < text.index("step 1/1")

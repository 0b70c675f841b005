import json

import pytest
import torch
from PIL import Image

from ssodkit.engine.checkpoint import load_state
from ssodkit.engine.gallery import describe_found
from ssodkit.engine.train import resume, train
from ssodkit.structures.predictions import Detections
from ssodkit.structures.progress import Progress
from ssodkit.structures.run import Report, Selection
from ssodkit.structures.teaching import Supervision, Targets


def report_of(found, targets, passed, view):
    return Report(found, Selection(Supervision.uniform(targets, Progress(0, 1)), passed), view)


def moments(run):
    return [json.loads(line) for line in (run / "gallery" / "moments.jsonl").read_text().splitlines()]


def test_describe_found__says_what_became_of_each_box_and_keeps_its_scores(make_view):
    """One that teaches, one that is ignored, one that fails a filter, and one that is not there."""
    boxes = torch.tensor([[[1.0, 1.0, 9.0, 9.04]]]).repeat(1, 4, 1)
    labels, valid = torch.tensor([[2, 1, 0, 0]]), torch.tensor([[True, True, True, False]])
    scores = {"confidence": torch.tensor([[0.9, 0.6, 0.123456, 0.5]])}
    targets = Targets(
        boxes,
        labels,
        torch.tensor([[True, True, False, False]]),
        torch.tensor([[1.0, 0.0, 0.0, 0.0]]),
        torch.zeros_like(valid),
    )
    passed = {
        "at_most": torch.tensor([[True, True, True, True]]),
        "boxes": torch.tensor([[False, False, False, False]]),
        "classes": torch.tensor([[True, False, False, False]]),
    }
    report = report_of(Detections(boxes, labels, valid, scores), targets, passed, make_view("weak", [1]))
    said = describe_found(report, 0)
    assert said["places"] == [True, False, False]
    # its place is another filter's matter
    sets = Supervision(targets, targets, targets.where(labels == 0), Progress(0, 1))
    other = Report(report.found, Selection(sets, passed), report.view)
    assert describe_found(other, 0) == {**said, "places": [False, False, False]}
    assert said["verdict"] == ["taught", "ignored", "classes"]
    assert said["boxes"] == [[1.0, 1.0, 9.0, 9.0]] * 3
    assert said["labels"] == [2, 1, 0]
    assert said["scores"] == {"confidence": [0.9, 0.6, 0.1235]}


def test_describe_found__of_nothing_found_is_empty(make_view):
    report = report_of(Detections.empty(2), Targets.empty(2), {}, make_view("weak", [1, 2]))
    assert describe_found(report, 1) == {
        "boxes": [],
        "labels": [],
        "scores": {"confidence": []},
        "numbers": {},
        "verdict": [],
        "places": [],
    }


def test_gallery__the_same_images_at_even_distances_and_at_the_end(tiny_recipe, tmp_path):
    recipe = tiny_recipe("watch.gallery.moments=2", "watch.gallery.images=5", "watch.pictures=2")
    run = train(recipe, tmp_path / "run").run
    assert [moment["step"] for moment in moments(run)] == [5, 10]
    ids = [[image["id"] for image in moment["images"]] for moment in moments(run)]
    assert ids[0] == ids[1]
    assert len(ids[0]) == 5
    assert not set(ids[0]) & set(json.loads((run / "fold.json").read_text())["image_ids"])
    for image in moments(run)[1]["images"]:
        with Image.open(run / "gallery" / f"{image['id']}.png") as picture:
            assert picture.size == tuple(image["size"][::-1])
        assert set(image["detections"]) == {"student", "teacher"}
        assert len(image["truth"]["boxes"]) == len(image["truth"]["labels"]) > 0
        lengths = {len(values) for values in (*image["found"]["scores"].values(), image["found"]["verdict"])}
        assert len(lengths) == 1
        assert set(image["found"]["scores"]) == {"confidence", "box_jitter"}


def test_gallery__a_finished_run_that_is_scored_again_has_its_last_moment_once(tiny_recipe, tmp_path):
    run = train(tiny_recipe("watch.gallery.moments=2", "engine.steps=2"), tmp_path / "run").run
    before = moments(run)
    assert [moment["step"] for moment in before] == [1, 2]
    resume(run)
    assert moments(run) == before


def test_gallery__the_run_is_finished_after_its_last_moment(tiny_recipe, tmp_path, monkeypatch):
    def fail(self):
        raise KeyboardInterrupt

    monkeypatch.setattr("ssodkit.engine.gallery.Gallery.conclude", fail)
    with pytest.raises(KeyboardInterrupt):
        train(tiny_recipe("engine.steps=2"), tmp_path / "run")
    assert not (tmp_path / "run" / "result.json").exists()
    monkeypatch.undo()
    assert resume(tmp_path / "run").scores
    assert moments(tmp_path / "run")[-1]["step"] == 2


def test_gallery__looking_changes_nothing_and_a_resumed_run_repeats_no_moment(tiny_recipe, tmp_path):
    several, whole = tiny_recipe("engine.steps=6", "watch.gallery.moments=3"), tmp_path / "whole"
    train(several, whole)
    train(tiny_recipe("engine.steps=6", "watch.gallery.images=0", "watch.pictures=0"), tmp_path / "blind")
    train(several, tmp_path / "run", stop_after=5)
    resume(tmp_path / "run")
    assert not (tmp_path / "blind" / "gallery").exists()
    results = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("whole", "blind", "run")]
    assert results[0]["teacher"] == results[1]["teacher"] == results[2]["teacher"]
    last = [load_state(tmp_path / name / "checkpoints" / "last")["method"] for name in ("whole", "blind", "run")]
    assert all(one.equal(last[1][key]) and one.equal(last[2][key]) for key, one in last[0].items())
    assert [moment["step"] for moment in moments(whole)] == [2, 4, 6]
    assert moments(tmp_path / "run") == moments(whole)


def test_gallery__without_pseudo_labels_test_images_are_shown(tiny_recipe, tmp_path):
    recipe = tiny_recipe("watch.gallery.images=3", "engine.steps=2", name="supervised")
    run = train(recipe, tmp_path / "run").run
    (_, moment) = moments(run)[-2:]
    assert len(moment["images"]) == 3
    assert all(
        image["found"] is None and set(image["detections"]) == {"student", "teacher"} for image in moment["images"]
    )

import json
from dataclasses import replace

import pytest

from ssodkit.bench.report.read import best_ious, from_result, read_run, with_moments
from ssodkit.bench.results import collect
from ssodkit.errors import TrainingError


def lines_of(run, kind):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def test_best_ious__by_hand_the_best_true_box_of_any_class():
    """The first box lies half in a true one of its size: 50 shared of 150. The second is one, the third is none."""
    truth = [[5.0, 0.0, 15.0, 10.0], [20.0, 20.0, 30.0, 30.0]]
    found = [[0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 30.0, 30.0], [50.0, 50.0, 60.0, 60.0]]
    assert best_ious(found, truth) == [0.3333, 1.0, 0.0]


def test_best_ious__of_nothing_and_with_nothing_true():
    assert best_ious([], [[0.0, 0.0, 1.0, 1.0]]) == []
    assert best_ious([], []) == []
    assert best_ious([[0.0, 0.0, 1.0, 1.0]], []) == [0.0]


def test_read_run__has_the_lines_of_its_log_and_the_result_as_last_evaluation(watched_run):
    record = read_run(watched_run, "mine")
    assert list(record.steps) == lines_of(watched_run, "step")
    assert list(record.health) == lines_of(watched_run, "health")
    assert [evaluation["step"] for evaluation in record.evaluations] == [2, 4]
    result = json.loads((watched_run / "result.json").read_text())
    assert record.evaluations[1]["thresholds"] == result["thresholds"]
    assert record.is_finished
    assert not record.is_baseline
    assert record.notes == ()
    assert record.classes == tuple("0123456789")


def test_read_run__unfinished_with_a_line_that_is_half_written(copy_run):
    run = copy_run("running", "result.json", "gallery")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "step", "st')
    record = with_moments(read_run(run, "running"), 16)
    assert not record.is_finished
    assert len(record.steps) == 4
    assert [evaluation["step"] for evaluation in record.evaluations] == [2]
    assert record.last_step == 4
    assert record.moments == ()
    assert record.notes == ("1 line of its log cannot be read.",)


def test_read_run__that_only_has_a_recipe_is_empty(tmp_path, watched_run):
    run = tmp_path / "new"
    (run / "stage1").mkdir(parents=True)
    (run / "recipe.yaml").write_text((watched_run / "recipe.yaml").read_text())
    record = read_run(run, "new")
    assert (record.steps, record.evaluations, record.last_step, record.memory_gb) == ((), (), 0, None)
    assert record.notes == ("It is in its first stage, a run of its own in stage1.",)


def test_read_run__a_folder_that_is_no_run_is_refused(tmp_path, copy_run):
    with pytest.raises(TrainingError, match=r"empty holds no run: there is no recipe\.yaml in it"):
        read_run(tmp_path / "empty", "empty")
    run = copy_run("other")
    (run / "recipe.yaml").write_text("name: other\n")
    with pytest.raises(TrainingError, match=r"recipe\.yaml is not the recipe of a run"):
        read_run(run, "other")
    run = copy_run("damaged")
    (run / "result.json").write_text("{")
    with pytest.raises(TrainingError, match=r"result\.json is not what a finished run writes"):
        read_run(run, "damaged")


def test_with_moments__has_the_ious_of_all_found_boxes_and_says_what_is_broken(copy_run):
    run = copy_run("mine")
    path = run / "gallery" / "moments.jsonl"
    written = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text(path.read_text() + '{"kind": "mom')
    record = with_moments(read_run(run, "mine"), at_most=2)
    assert [moment["step"] for moment in record.moments] == [2, 4]
    assert record.notes == ("1 line of its gallery cannot be read.",)
    for moment, before in zip(record.moments, written, strict=True):
        assert len(moment["images"]) == 2
        for image, original in zip(moment["images"], before["images"], strict=False):
            assert image["found"]["iou"] == best_ious(original["found"]["boxes"], original["truth"]["boxes"])
            assert len(image["found"]["iou"]) == len(image["found"]["verdict"])


def test_classes__are_those_of_the_gallery_or_in_older_runs_those_of_the_pseudo_labels(copy_run):
    run = copy_run("mine")
    path = run / "gallery" / "moments.jsonl"
    names = ["zero", "one", "two"]
    moments = [{**json.loads(line), "classes": names} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(moment) + "\n" for moment in moments))
    record = with_moments(read_run(run, "mine"), at_most=16)
    assert record.classes == replace(record, health=()).classes == tuple(names)
    older = tuple({"step": moment["step"], "images": moment["images"]} for moment in record.moments)
    assert replace(record, moments=older).classes == tuple("0123456789")
    assert replace(record, moments=older, health=()).classes == ()


def test_with_moments__without_hidden_labels_there_are_no_ious(copy_run):
    run = copy_run("mine")
    path = run / "gallery" / "moments.jsonl"
    moment = json.loads(path.read_text().splitlines()[0])
    for image in moment["images"]:
        image["truth"] = None
    path.write_text(json.dumps(moment) + "\n")
    record = with_moments(read_run(run, "mine"), at_most=16)
    assert all("iou" not in image["found"] for image in record.moments[0]["images"])


def test_from_result__says_the_same_as_the_folder_did(watched_run):
    left = from_result(collect(watched_run), "mine", "row", "10 % labeled")
    whole = read_run(watched_run, "mine")
    assert left.images_per_second == whole.images_per_second
    assert left.memory_gb == whole.memory_gb
    assert [dict(evaluation) for evaluation in left.evaluations] == [
        {name: evaluation[name] for name in ("step", "set", "thresholds")} for evaluation in whole.evaluations
    ]
    assert left.health[-1]["boxes_per_image"] == whole.health[-1]["boxes_per_image"]
    assert left.recipe == whole.recipe
    assert left.steps == left.moments == ()

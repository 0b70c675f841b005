"""Labeling, and runs of two stages: what they leave behind, and where they go on."""

import json
import os
import shutil
import signal

import numpy as np
import pytest
import torch
from PIL import Image

from ssodkit.data.config import DataConfig
from ssodkit.data.files import new_draft
from ssodkit.data.sets import open_data
from ssodkit.data.stored import read_stored
from ssodkit.engine import train as training
from ssodkit.engine.checkpoint import load_state
from ssodkit.engine.evaluate import evaluate
from ssodkit.engine.label import label
from ssodkit.engine.predict import predict
from ssodkit.engine.train import LABELS, resume, train
from ssodkit.errors import DataError, Interrupted, TrainingError

STAC = ("data.batch.unlabeled=2", "engine.steps=3", "watch.pictures=0", "data.unlabeled.above=0.08")


def metrics(run):
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == "step"]


def differing(one, other):
    """Names of tensors in the methods of two checkpoints that are not equal, bit for bit."""
    first, second = load_state(one)["method"], load_state(other)["method"]
    assert set(first) == set(second)
    return [name for name in first if not torch.equal(first[name], second[name])]


@pytest.fixture(scope="module")
def run(tiny_recipe, tmp_path_factory):
    """A run of two steps whose steps take no unlabeled image, though the recipe names some."""
    return train(
        tiny_recipe("engine.steps=2", "watch.pictures=0", name="supervised"), tmp_path_factory.mktemp("label") / "run"
    ).run


@pytest.fixture(scope="module")
def stac(tiny_recipe):
    """Overrides -> the recipe of two stages, three steps each."""
    return lambda *overrides: tiny_recipe(*STAC, *overrides, name="stac")


@pytest.fixture(scope="module")
def finished(stac, tmp_path_factory):
    """Both stages without a stop."""
    return train(stac(), tmp_path_factory.mktemp("stac") / "run")


@pytest.fixture
def folder(tmp_path):
    """Two images of unlike sizes, one of them in a folder below."""
    (tmp_path / "images" / "below").mkdir(parents=True)
    random = np.random.RandomState(0)
    for name, shape in (("b.png", (80, 120, 3)), ("below/a.jpg", (64, 50, 3))):
        Image.fromarray(random.randint(0, 255, shape).astype(np.uint8)).save(tmp_path / "images" / name)
    return tmp_path / "images"


def test_label__covers_all_unlabeled_images_with_their_own_ids_and_names(run, tmp_path, capsys):
    file = label(run, tmp_path / "labels.json")
    document = json.loads(file.read_text())
    assert [image["id"] for image in document["images"]] == list(range(1, 41))
    assert document["images"][4] == {"id": 5, "file_name": "000005.png", "height": 96, "width": 96}
    assert [category["name"] for category in document["categories"]] == [str(digit) for digit in range(10)]
    rows = document["annotations"]
    assert all(row["score"] > 0.05 for row in rows)
    assert f"{len(rows)} boxes of the teacher above 0.05 in" in capsys.readouterr().out
    about = document["info"]
    assert (about["network"], about["step"], about["size"], about["score_above"]) == ("teacher", 2, "test", 0.05)
    assert about["labeled_fold"] == json.loads((run / "fold.json").read_text())["hash"]


@pytest.mark.parametrize("form", ["voc", "yolo"])
def test_label__folders_of_other_formats_can_be_trained_on(run, folder, tmp_path, capsys, form):
    stored, _ = read_stored(label(run, tmp_path / "labels.json", folder, score=0.02))
    out = label(run, tmp_path / form, folder, score=0.02, form=form)
    source = {"type": form, "root": out, "split": "train"}
    sets = open_data(DataConfig.model_validate({"train": source, "test": source, "batch": {"labeled": 1}}))
    assert [os.path.realpath(sets.labeled.path(index)) for index in range(2)] == [
        os.path.realpath(stored.root / folder / stored.name(index)) for index in sets.labeled.ids - 1
    ]
    assert len(sets.labeled.boxes) == len(stored.boxes) > 0
    assert "boxes of the teacher above 0.02" in capsys.readouterr().out
    with pytest.raises(TrainingError, match="exists, and nothing is overwritten"):
        label(run, out, folder, form=form)


def test_label__two_images_with_one_name_are_refused_where_they_would_share_a_label_file(run, folder, tmp_path):
    shutil.copy(folder / "b.png", folder / "b.jpg")
    with pytest.raises(DataError, match=r"images that would have one label file: b\.jpg, b\.png"):
        label(run, tmp_path / "out", folder, form="yolo")
    assert not (tmp_path / "out").exists()


def test_label__finds_in_a_folder_what_predict_finds(run, folder, tmp_path, capsys):
    (folder / "below" / "loop").symlink_to("..")
    stored, _ = read_stored(label(run, tmp_path / "labels.json", folder, network="student", score=0.0))
    assert [(stored.name(i), stored.sizes[i].tolist()) for i in range(2)] == [
        ("b.png", [80, 120]),
        ("below/a.jpg", [64, 50]),
    ]
    rows = json.loads(predict(run, [folder], tmp_path / "out", network="student", score=0.0).read_text())
    owners = np.repeat(stored.ids, stored.boxes_per_image()).tolist()
    assert owners == [row["image_id"] for row in rows]
    assert rows
    assert stored.scores.tolist() == [row["score"] for row in rows]
    assert stored.category_ids[stored.labels].tolist() == [row["category_id"] for row in rows]
    corners = np.array([row["bbox"] for row in rows])
    corners[:, 2:] += corners[:, :2]
    np.testing.assert_allclose(stored.boxes, corners, rtol=1e-5)
    assert capsys.readouterr().out.count(f"note       {folder}: 1 links to folders") == 2  # of each verb


def test_label__looks_at_images_as_the_test_does_and_warns_of_their_own_size(tiny_recipe, folder, tmp_path, capsys):
    recipe = tiny_recipe("engine.steps=2", "views.test.transforms=[{type: resize, short: 128}]", name="supervised")
    run = train(recipe, tmp_path / "run", stop_after=1).run
    test, about = read_stored(label(run, tmp_path / "test.json", folder))
    assert "warning" not in capsys.readouterr().out
    own, about_own = read_stored(label(run, tmp_path / "own.json", folder, size="original"))
    # Short sides of 80 and 50 pixels become 128: 0.625 and 0.391 times as large, half of both together in the middle.
    assert "warning: in their original size the images are 0.51 times as large as" in capsys.readouterr().out
    assert (about["size"], about_own["size"]) == ("test", "original")
    assert own.sizes.tolist() == test.sizes.tolist()
    rows = json.loads(predict(run, [folder], tmp_path / "out", score=0.05).read_text())
    assert test.scores.tolist() == [row["score"] for row in rows] != own.scores.tolist()


def test_label__does_not_warn_where_the_test_view_leaves_images_as_large_as_they_are(run, folder, tmp_path, capsys):
    label(run, tmp_path / "labels.json", folder, size="original")
    assert "warning" not in capsys.readouterr().out


def test_label__images_without_a_detection_are_listed(run, folder, tmp_path):
    document = json.loads(label(run, tmp_path / "labels.json", folder, score=1.0).read_text())
    assert (len(document["images"]), document["annotations"]) == (2, [])


def test_label__no_unlabeled_image_is_a_file_without_images(tiny_recipe, tmp_path, capsys):
    recipe = tiny_recipe(
        "engine.steps=1", "data.percent=100", "data.unlabeled.include_labeled=false", name="supervised"
    )
    run = train(recipe, tmp_path / "run", stop_after=1).run
    for size in ("test", "original"):
        document = json.loads(label(run, tmp_path / f"{size}.json", size=size).read_text())
        assert (document["images"], document["annotations"]) == ([], [])
    assert "warning" not in capsys.readouterr().out


def test_label__overwrites_nothing_and_needs_a_folder_to_write_to(run, folder, tmp_path):
    (tmp_path / "mine.json").write_text("mine")
    with pytest.raises(TrainingError, match=r"mine\.json exists, and nothing is overwritten"):
        label(run, tmp_path / "mine.json", folder)
    assert (tmp_path / "mine.json").read_text() == "mine"
    with pytest.raises(TrainingError, match=r"absent is no folder, so labels\.json cannot be written there"):
        label(run, tmp_path / "absent" / "labels.json", folder)


def test_label__refuses_what_it_cannot_read(run, folder, tmp_path):
    with pytest.raises(TrainingError, match="has no judge; its networks: student, teacher"):
        label(run, tmp_path / "labels.json", folder, network="judge")
    (folder / "b.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"b\.png"):
        label(run, tmp_path / "labels.json", folder)
    with pytest.raises(TrainingError, match="holds no run"):
        label(tmp_path, tmp_path / "labels.json")
    assert not (tmp_path / "labels.json").exists()


def test_train__trains_labels_and_trains_again(finished, stac):
    first = finished.run / "stage1"
    assert {path.name for path in first.iterdir()} >= {"recipe.yaml", "result.json", "checkpoints", LABELS}
    assert {path.name for path in finished.run.iterdir()} >= {"recipe.yaml", "result.json", "checkpoints"}
    assert [set(record["losses"]) for record in metrics(first)] == [
        {f"labeled/{term}" for term in ("rpn/class", "rpn/box", "roi/class", "roi/box")}
    ] * 3
    assert {"labeled/roi/class", "unlabeled/roi/class"} <= set(metrics(finished.run)[0]["losses"])
    stored = json.loads((finished.run / "result.json").read_text())["pseudo_labels"]
    assert stored["boxes_per_image"] > 0
    assert json.loads((finished.run / "metrics.jsonl").read_text().splitlines()[0]) == {
        "kind": "health",
        "step": 0,
        **stored,
    }
    one, two = load_state(first / "checkpoints" / "last")["origin"], load_state(finished.checkpoint)["origin"]
    assert one["fold"] == two["fold"]
    assert one["recipe"]["data"]["train"] == two["recipe"]["data"]["train"]
    assert evaluate(finished.run)["teacher"] == finished.scores["teacher"]


def test_train__the_second_stage_starts_from_new_weights(stac, finished, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(finished.run, copy)
    shutil.rmtree(copy / "checkpoints")
    begin = resume(copy, stop_after=3)
    first = train(stac(), tmp_path / "new", stop_after=0)
    stored = [line for line in (copy / "metrics.jsonl").read_text().splitlines() if '"kind": "health"' in line]
    assert len(stored) == 1  # not again, though no checkpoint knows that it is there
    assert (begin.step, begin.checkpoint.parents[1], first.checkpoint.parents[1].name) == (0, copy, "stage1")
    assert differing(begin.checkpoint, first.checkpoint) == []


def test_train__a_stored_file_gives_the_same_second_stage(stac, finished, tmp_path):
    stored = (f"data.unlabeled.file={finished.run / 'stage1' / LABELS}", "data.unlabeled.made_by=null")
    alone = train(stac(*stored, "data.unlabeled.made_with=[]"), tmp_path / "run")
    assert not (alone.run / "stage1").exists()
    assert differing(alone.checkpoint, finished.checkpoint) == []


@pytest.mark.parametrize("stop", [2, 3, 5])
def test_resume__goes_on_in_the_stage_it_was_in_bit_for_bit(stac, finished, tmp_path, stop, capsys):
    run = tmp_path / "run"
    stopped = train(stac(), run, stop_after=stop)
    assert stopped.step == (stop if stop <= 3 else stop - 3)
    assert f"go on with `ssodkit run --resume {run}`" in capsys.readouterr().out
    assert (run / "stage1" / LABELS).exists() == (stop > 3)
    (run / "stage1" / "fold.json").unlink()  # as if killed before it was written
    again = resume(run)
    assert (run / "fold.json").read_bytes() == (finished.run / "fold.json").read_bytes()
    assert (run / "stage1" / "fold.json").exists() == (stop <= 3)
    assert differing(again.checkpoint, finished.checkpoint) == []
    assert again.scores == finished.scores
    labels = [(folder / "stage1" / LABELS).read_bytes() for folder in (run, finished.run)]
    assert labels[0] == labels[1]


def test_resume__goes_on_with_labeling_where_that_was_cut_off(stac, finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished.run, run)
    shutil.rmtree(run / "checkpoints")
    (run / "result.json").unlink()
    labels = (run / "stage1" / LABELS).read_bytes()
    (run / "stage1" / LABELS).unlink()
    draft = new_draft(run / "stage1")
    draft.write_text('{"images": [')
    before = (run / "stage1" / "result.json").read_bytes()
    again = resume(run)
    assert (run / "stage1" / LABELS).read_bytes() == labels
    assert (run / "stage1" / "result.json").read_bytes() == before  # the first stage was not scored again
    assert again.scores == finished.scores
    assert not draft.exists()


@pytest.mark.parametrize("size", ["test", "original"])
def test_resume__the_first_stage_labels_in_the_size_that_the_recipe_says(stac, finished, tmp_path, size):
    run = tmp_path / "run"
    shutil.copytree(finished.run, run)
    shutil.rmtree(run / "checkpoints")
    (run / "result.json").unlink()
    (run / "stage1" / LABELS).unlink()
    recipe = (run / "recipe.yaml").read_text()
    assert "made_at: test" in recipe
    (run / "recipe.yaml").write_text(recipe.replace("made_at: test", f"made_at: {size}"))
    resume(run, stop_after=3)
    assert json.loads((run / "stage1" / LABELS).read_text())["info"]["size"] == size


def test_train__a_signal_while_labeling_says_how_to_go_on(stac, tmp_path, monkeypatch):
    write = training.write_labels

    def interrupted(*arguments, **named):
        signal.raise_signal(signal.SIGINT)
        return write(*arguments, **named)

    monkeypatch.setattr(training, "write_labels", interrupted)
    run = tmp_path / "run"
    with pytest.raises(Interrupted, match=rf"stopped by SIGINT; go on with `ssodkit run --resume {run}`"):
        train(stac(), run)
    assert not (run / "stage1" / LABELS).exists()


def test_evaluate__before_the_second_stage_says_what_is_missing(stac, tmp_path):
    run = train(stac(), tmp_path / "run", stop_after=1).run
    assert run == tmp_path / "run"
    with pytest.raises(TrainingError, match=r"has not begun its second stage\. Go on with `ssodkit run --resume"):
        evaluate(run)
    with pytest.raises(TrainingError, match="or go on with the run in it: `ssodkit run --resume"):
        train(stac(), run)


def test_train__where_the_first_stage_finds_nothing_labeled_images_train_on(stac, tmp_path, capsys):
    result = train(stac("evaluation.thresholds=[0.99]"), tmp_path / "run")
    assert "no unlabeled image is left, and this run learns from labeled images alone" in " ".join(
        capsys.readouterr().out.split()
    )
    assert result.step == 3
    assert all(name.startswith("labeled/") for name in metrics(result.run)[0]["losses"])


def test_train__a_broken_unlabeled_image_is_named_before_the_first_stage(stac, folder, tmp_path):
    (folder / "b.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"b\.png"):
        train(stac(f"data.unlabeled.of={{type: folder, images: {folder}}}"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_train__labels_of_another_fold_are_refused(stac, finished, tmp_path):
    file = finished.run / "stage1" / LABELS
    stored = (f"data.unlabeled.file={file}", "data.unlabeled.made_by=null", "data.unlabeled.made_with=[]")
    with pytest.raises(DataError, match=r"Label with a run of the same data\.percent and data\.fold"):
        train(stac(*stored, "data.fold=2"), tmp_path / "run")
    assert open_data(stac(*stored).data).unlabeled is not None

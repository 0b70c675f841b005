import json

import numpy as np
import pytest
from PIL import Image

from ssodkit.engine.evaluate import evaluate
from ssodkit.engine.predict import picture_names, predict
from ssodkit.errors import DataError, TrainingError


@pytest.fixture
def images(tmp_path):
    """Two files, one of them gray, and a folder with a third."""
    (tmp_path / "folder").mkdir()
    random = np.random.RandomState(0)
    paths = [tmp_path / "a.png", tmp_path / "b.png", tmp_path / "folder" / "a.jpg"]
    for path, shape in zip(paths, ((80, 120, 3), (60, 60), (100, 90, 3)), strict=True):
        Image.fromarray(random.randint(0, 255, shape).astype(np.uint8)).save(path)
    return paths


def test_predict__writes_coco_results_and_a_picture_of_each_image(tiny_run, images, tmp_path):
    out = tmp_path / "out"
    file = predict(tiny_run, [images[0], images[1], images[2].parent], out, score=0.0)
    assert file == out / "results.json"
    assert sorted(path.name for path in out.iterdir()) == ["a.png", "a_3.png", "b.png", "results.json"]
    with Image.open(out / "a.png") as picture:
        assert picture.size[0] == 640  # as many boxes need
    rows = json.loads(file.read_text())
    assert {row["image_id"]: row["file_name"] for row in rows} == {
        place: str(path) for place, path in enumerate(images, start=1)
    }
    for row in rows:
        left, top, width, height = row["bbox"]
        limits = {1: (120, 80), 2: (60, 60), 3: (90, 100)}[row["image_id"]]
        assert (left >= 0, top >= 0, left + width <= limits[0] + 1e-3, top + height <= limits[1] + 1e-3) == (True,) * 4
        assert set(row) == {"image_id", "category_id", "bbox", "score", "file_name"}


def test_predict__only_what_scores_above_the_threshold(tiny_run, images, tmp_path):
    rows = json.loads(predict(tiny_run, images[:1], tmp_path / "low", score=0.0).read_text())
    median = float(np.median([row["score"] for row in rows]))
    above = json.loads(predict(tiny_run, images[:1], tmp_path / "high", score=median).read_text())
    assert above == [row for row in rows if row["score"] > median]
    assert 0 < len(above) < len(rows)


def test_predict__the_network_can_be_chosen(tiny_run, images, tmp_path):
    teacher = predict(tiny_run, images[:1], tmp_path / "default", score=0.0).read_text()
    assert predict(tiny_run, images[:1], tmp_path / "teacher", network="teacher", score=0.0).read_text() == teacher
    assert predict(tiny_run, images[:1], tmp_path / "student", network="student", score=0.0).read_text() != teacher
    with pytest.raises(TrainingError, match="has no judge; its networks: student, teacher"):
        predict(tiny_run, images[:1], tmp_path / "judge", network="judge")


def test_predict__nothing_is_overwritten(tiny_run, images, tmp_path):
    before = {path: path.read_bytes() for path in images}
    with pytest.raises(TrainingError, match="is not empty, and nothing in it is overwritten"):
        predict(tiny_run, images, tmp_path, score=0.0)
    assert {path: path.read_bytes() for path in images} == before


def test_predict__says_how_much_it_found_and_where_it_is(tiny_run, images, tmp_path, capsys):
    predict(tiny_run, images[:1], tmp_path / "out", score=1.0)
    printed = f"0 detections of the teacher above 1 in 1 image\nresults    {tmp_path}/out/results.json\n"
    assert capsys.readouterr().out == f"{printed}pictures   {tmp_path}/out\n"


def test_predict__an_image_that_cannot_be_read_is_named_and_nothing_written(tiny_run, images, tmp_path):
    images[0].write_bytes(b"no image")
    with pytest.raises(DataError, match=r"a\.png"):
        predict(tiny_run, images, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_predict__where_the_disk_is_full_the_file_is_named_and_nothing_stays(tiny_run, images, tmp_path, file_limit):
    (tmp_path / "empty").mkdir()
    for out in ("new", "empty"):
        complaint = rf"{tmp_path}/{out}/a\.png cannot be read or written: File too large"
        with file_limit(5000), pytest.raises(TrainingError, match=complaint):
            predict(tiny_run, images, tmp_path / out, score=1.0)
    assert not (tmp_path / "new").exists()
    assert list((tmp_path / "empty").iterdir()) == []


@pytest.mark.parametrize(
    ("stems", "names"),
    [
        (["x", "x_3", "x"], ["x", "x_3", "x_3_3"]),
        (["x", "x", "x_2", "x_2"], ["x", "x_2", "x_2_3", "x_2_4"]),
        (["a", "A", ""], ["a", "A_2", ""]),
    ],
)
def test_picture_names__no_two_are_alike(stems, names):
    assert picture_names(stems) == names


@pytest.mark.parametrize("verb", [evaluate, lambda run: predict(run, [], run)])
def test_verbs__a_folder_without_a_run_is_named(verb, tmp_path):
    with pytest.raises(TrainingError, match="holds no run"):
        verb(tmp_path)

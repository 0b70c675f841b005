"""A trained network as a function."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ssodkit.data.sets import open_data
from ssodkit.engine.checkpoint import read_run
from ssodkit.engine.evaluate import evaluate
from ssodkit.engine.metrics import DetectionTable, coco_scores
from ssodkit.engine.predict import predict
from ssodkit.engine.trained import load
from ssodkit.errors import DataError, TrainingError

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture(scope="module")
def detector(tiny_run):
    return load(tiny_run, score=0.0)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Three files of different sizes."""
    folder, random = tmp_path_factory.mktemp("pictures"), np.random.RandomState(0)
    paths = [folder / name for name in ("a.png", "b.png", "c.png")]
    for path, shape in zip(paths, ((80, 120, 3), (60, 60, 3), (100, 90, 3)), strict=True):
        Image.fromarray(random.randint(0, 255, shape).astype(np.uint8)).save(path)
    return paths


def columns(found):
    return found.boxes.tolist(), found.scores.tolist(), found.labels.tolist()


def test_load__finds_what_predict_finds(tiny_run, detector, pictures, tmp_path):
    rows = json.loads(predict(tiny_run, pictures, tmp_path / "out", score=0.0).read_text())
    found = [row for place, each in enumerate(detector(pictures), start=1) for row in each.to_coco(place)]
    assert found == [{key: value for key, value in row.items() if key != "file_name"} for row in rows]
    assert found


def test_load__scores_on_the_test_images_what_eval_says(tiny_run, detector):
    recipe, _ = read_run(tiny_run)
    test = open_data(recipe.data).test
    found = detector([test.path(place) for place in range(len(test))], score=recipe.evaluation.thresholds[0])
    tables = [
        DetectionTable(np.full(len(one), number), one.boxes, one.labels, one.scores)
        for number, one in zip(test.ids.tolist(), found, strict=True)
    ]
    assert coco_scores(DetectionTable.join(tables), test)[0] == evaluate(tiny_run)["teacher"]


def test_load__every_kind_of_picture_gives_the_same_answer(detector, pictures):
    pixels = np.asarray(Image.open(pictures[0]))
    tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    expected = columns(detector(pictures[0]))
    assert expected[1]
    for picture in (str(pictures[0]), Image.open(pictures[0]), pixels, tensor, tensor / 255):
        assert columns(detector(picture)) == expected


def test_load__a_list_of_any_length_is_a_list_of_answers(detector, pictures):
    assert detector([]) == []
    alone = detector(pictures[0])
    many = detector(pictures[:1] * 60)  # more than a batch; of one size, as others widen the canvas
    assert len(many) == 60
    for one in many:
        np.testing.assert_allclose(one.boxes, alone.boxes, atol=1e-3)
        np.testing.assert_allclose(one.scores, alone.scores, atol=1e-5)


def test_load__a_call_may_have_its_own_threshold(detector, pictures, tiny_run):
    found = detector(pictures[0])
    median = float(np.median(found.scores))
    above = detector(pictures[0], score=median)
    assert columns(above) == columns(load(tiny_run, score=median)(pictures[0]))
    assert above.scores.tolist() == [score for score in found.scores.tolist() if score > median]
    assert len(detector(pictures[0], score=1.0)) == 0
    with pytest.raises(TrainingError, match="score is 50; detections score from 0 to 1"):
        detector(pictures[0], score=50)


def test_found__names_classes_and_draws_them(detector, pictures):
    found = detector(pictures[1])
    assert len(found) == len(found.names) == len(found.to_coco()) > 0
    ids = {category.name: category.id for category in found.categories}
    assert [row["category_id"] for row in found.to_coco()] == [ids[name] for name in found.names]
    left, top, right, bottom = found.boxes[0].tolist()
    np.testing.assert_allclose(found.to_coco(7)[0]["bbox"], [left, top, right - left, bottom - top], rtol=1e-6)
    assert found.to_coco(7)[0]["image_id"] == 7
    drawn, plain = np.asarray(found.draw()), np.asarray(detector(pictures[1], score=1.0).draw())
    assert plain.shape == (288, 288, 3)
    assert drawn.shape[1] == 640  # crowded
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 10


def test_load__takes_a_checkpoint_and_a_network(tiny_run, detector, pictures):
    checkpoint = tiny_run / "checkpoints" / "last"
    assert columns(load(checkpoint, score=0.0)(pictures[0])) == columns(detector(pictures[0]))
    student = load(tiny_run, network="student", score=0.0)
    assert (student.name, detector.name) == ("student", "teacher")
    assert columns(student(pictures[0])) != columns(detector(pictures[0]))


def test_load__what_it_cannot_do_is_a_sentence(tiny_run, detector, tmp_path):
    with pytest.raises(TrainingError, match="holds no run"):
        load(tmp_path)
    with pytest.raises(TrainingError, match="has no judge; its networks: student, teacher"):
        load(tiny_run, network="judge")
    with pytest.raises(TrainingError, match="'tpu' is no device to compute on"):
        load(tiny_run, device="tpu")
    with pytest.raises(DataError, match=r"picture 2 is an array \(4, 4\)"):
        detector([np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8)])


def test_readme__its_lines_detect(tiny_run, pictures, tmp_path, monkeypatch, capsys):
    (lines,) = re.findall(r"```python\n(from ssodkit import load\n.*?)```", README.read_text(), flags=re.DOTALL)
    shutil.copytree(tiny_run, tmp_path / "runs" / "mine")
    Image.open(pictures[0]).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(lines, names)
    assert capsys.readouterr().out.startswith(f"{names['found'].names} ")
    with Image.open("found.png") as drawn:
        assert drawn.size[0] in (288, 640)

import json
from dataclasses import replace

import numpy as np
import pytest
import timm
from PIL import Image
from safetensors.torch import save_file
from two_steps import take_two_steps

from ssodkit.errors import DataError, RecipeError
from ssodkit.recipe.check import load_recipe
from ssodkit.recipe.draft.draft import Wish, draft
from ssodkit.recipe.draft.numbers import PYRAMID, PYRAMID_CENTER, PYRAMID_IOU


def pictures(folder, count, first=0):
    folder.mkdir(parents=True)
    random = np.random.RandomState(first)
    for number in range(first, first + count):
        Image.fromarray(random.randint(0, 255, (96, 128, 3)).astype(np.uint8)).save(folder / f"{number}.png")


def coco(file, count, side=30.0, first=0):
    """`count` pictures of 128 x 96 with three squares of two classes each."""
    numbers = range(first, first + count)
    annotations = [
        {"image_id": number, "category_id": 3 if place else 5, "bbox": [10.0 + 20 * place, 20.0, side, side]}
        for number in numbers
        for place in range(3)
    ]
    document = {
        "images": [{"id": number, "file_name": f"{number}.png", "width": 128, "height": 96} for number in numbers],
        "categories": [{"id": 3, "name": "cat"}, {"id": 5, "name": "dog"}],
        "annotations": [{"id": number, **each} for number, each in enumerate(annotations)],
    }
    file.write_text(json.dumps(document))
    return file


@pytest.fixture
def labels(tmp_path):
    """Ten labeled pictures, and five without labels."""
    pictures(tmp_path / "pictures", 10)
    pictures(tmp_path / "more", 5, first=100)
    return coco(tmp_path / "labels.json", 10)


def loaded(text, folder):
    file = folder / "mine.yaml"
    file.write_text(text)
    return load_recipe(file)


def test_draft__is_a_recipe_whose_every_number_has_a_reason(labels, tmp_path):
    text = draft(Wish(labels, tmp_path / "pictures", tmp_path / "more"), "mine").text
    recipe = loaded(text, tmp_path)
    assert recipe.name == "mine"
    assert recipe.data.train.annotations == labels
    assert recipe.data.unlabeled.images == tmp_path / "more"
    assert recipe.detector.type == "faster_rcnn"
    assert recipe.data.test.type == "held_out"
    assert (recipe.views.size.short, recipe.views.size.long) == ((96, 96), 128)
    for key in ("size:", "sides:", "at_most:", "steps:"):
        lines = text.splitlines()
        place = next(place for place, line in enumerate(lines) if line.strip().startswith(key))
        assert "# " in lines[place] or lines[place - 1].strip().startswith("#")


@pytest.mark.parametrize("method", ["mean_teacher", "supervised"])
def test_draft__pictures_without_an_upright_are_seen_upside_down(labels, tmp_path, method):
    wish = Wish(labels, tmp_path / "pictures", tmp_path / "more", method=method)
    wishes = (wish, replace(wish, any_way_up=True))
    upright, other = (loaded(draft(each, "mine").text, tmp_path) for each in wishes)
    directions = [
        {each.direction for each in recipe.views.labeled["labeled"].transforms[0].then if each.type == "flip"}
        for recipe in (upright, other)
    ]
    assert directions == [{"horizontal"}, {"horizontal", "vertical"}]
    if method == "mean_teacher":
        assert upright.method.ensemble.views == ("mirrored",)
        assert other.method.ensemble.views == ("mirrored", "upside_down", "turned")


def test_draft__says_what_was_recognized(labels, tmp_path):
    found = draft(Wish(labels, tmp_path / "pictures", tmp_path / "more"), "mine").found
    assert found[0] == "labels     COCO JSON: 8 pictures, 24 boxes, 2 classes (cat, dog)"
    assert found[1:3] == ("test       2 pictures", "unlabeled  5 pictures")


def test_draft__a_few_labels_of_many(labels, tmp_path):
    recipe = loaded(draft(Wish(labels, tmp_path / "pictures", shots=3), "mine").text, tmp_path)
    assert recipe.data.shots == 3
    assert recipe.data.unlabeled.type == "rest"


@pytest.mark.parametrize(("count", "validates"), [(130, True), (110, False)])
def test_draft__where_labels_are_many_a_part_of_them_says_which_checkpoint_is_the_best(tmp_path, count, validates):
    """A fifth is held out for the test, and a hundred must be left."""
    pictures(tmp_path / "pictures", count)
    labels = coco(tmp_path / "labels.json", count)
    made = draft(Wish(labels, tmp_path / "pictures", method="supervised"), "mine")
    recipe = loaded(made.text, tmp_path)
    assert (recipe.data.validation is not None) == validates
    assert any(line == "validation 10 pictures" for line in made.found) == validates
    assert recipe.evaluation.checkpoint == ("best" if validates else "last")
    assert (recipe.engine.patience, recipe.engine.evaluate_every) == ((6, 300) if validates else (None, None))


def test_draft__the_labels_own_validation_part_says_which_checkpoint_is_the_best(tmp_path):
    for first, split in enumerate(("train", "val", "test")):
        pictures(tmp_path / split, 4, 10 * first)
        coco(tmp_path / split / "_annotations.coco.json", 4, first=10 * first)
    recipe = loaded(draft(Wish(tmp_path, method="supervised"), "mine").text, tmp_path)
    assert recipe.data.validation.annotations == tmp_path / "val" / "_annotations.coco.json"
    assert (recipe.evaluation.checkpoint, recipe.engine.evaluate_every) == ("best", 80)


@pytest.fixture
def weights(tmp_path):
    """A file of a network that is small enough for tests, called as timm calls it."""
    file = tmp_path / "test_resnet.safetensors"
    save_file(timm.create_model("test_resnet").state_dict(), file)
    return file


def test_draft__from_weights_it_takes_the_large_detector_and_what_papers_do(labels, weights, tmp_path):
    made = draft(Wish(labels, tmp_path / "pictures", tmp_path / "more", weights=str(weights)), "mine")
    recipe = loaded(made.text, tmp_path)
    backbone = recipe.detector.backbone
    assert (backbone.type, backbone.name, backbone.weights) == ("timm", "test_resnet", weights)
    assert (recipe.data.batch.labeled, recipe.data.batch.unlabeled) == (8, 8)
    assert (recipe.engine.optimizer.type, recipe.engine.lr.span, recipe.engine.steps) == ("sgd", (0.0, 0.01), 2000)
    assert recipe.method.teacher.momentum.cap == 0.995
    assert f"weights    of test_resnet, in {weights}, as --weights says" in made.found
    assert "rates as papers have them, in shares of engine.steps; not tuned" in made.text


def test_draft__the_large_detectors_anchors_are_those_that_its_matcher_learns_from(labels, weights, tmp_path):
    recipe = loaded(draft(Wish(labels, method="supervised", weights=str(weights)), "mine").text, tmp_path)
    assert recipe.detector.stages["rpn"].matcher.positive == PYRAMID_IOU
    assert recipe.detector.anchors.center == PYRAMID_CENTER
    assert len(recipe.detector.anchors.sides) == len(PYRAMID)


def test_draft__a_detector_of_torchvision_keeps_its_anchors(labels, tmp_path):
    name = "fasterrcnn_resnet50_fpn_v2"
    made = draft(Wish(labels, method="supervised", weights=name), "mine")
    recipe = loaded(made.text, tmp_path)
    assert recipe.detector.weights == name
    assert recipe.detector.roi.convolutions == 4
    assert recipe.detector.anchors.sides == ((32.0,), (64.0,), (128.0,), (256.0,), (512.0,))
    assert f"weights    of {name}, as --weights says; torch fetches them" in made.found
    assert "of torchvision; anchors stay as they learned them" in made.text


def test_draft__with_weights_it_takes_two_steps(labels, weights, tmp_path):
    text = draft(Wish(labels, tmp_path / "pictures", tmp_path / "more", weights=str(weights)), "mine").text
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    teaches = {"reliable": 10, "uncertain": 10, "least": 0, "floor": 0}  # whatever a new network says
    changes = [f"method.selector.{key}={value}" for key, value in teaches.items()]
    small = ["detector.neck.channels=32", "detector.roi.width=16"]
    take_two_steps(
        load_recipe(file, [*changes, *small, "method.teacher.score=0.0", "method.unlabeled_weight=1.0"]),
        load_weights=True,
    )


def test_draft__test_labels_of_their_own_are_used(labels, tmp_path):
    pictures(tmp_path / "others", 4, first=50)
    test = coco(tmp_path / "test.json", 4, first=50)
    wish = Wish(labels, tmp_path / "pictures", tmp_path / "more", test, tmp_path / "others")
    made = draft(wish, "mine")
    recipe = loaded(made.text, tmp_path)
    assert (recipe.data.test.annotations, recipe.data.test.images) == (test, tmp_path / "others")
    assert made.found[:2] == (
        "labels     COCO JSON: 10 pictures, 30 boxes, 2 classes (cat, dog)",
        "test       4 pictures",
    )


def test_draft__supervised_needs_no_unlabeled_pictures(labels, tmp_path):
    made = draft(Wish(labels, tmp_path / "pictures", method="supervised"), "mine")
    recipe = loaded(made.text, tmp_path)
    assert (recipe.data.batch.unlabeled, recipe.data.unlabeled, made.compares) == (0, None, "")
    assert "--compare" not in made.text  # it is its own control


def test_draft__boxes_without_area_are_dropped_by_name(tmp_path):
    pictures(tmp_path / "pictures", 10)
    labels = coco(tmp_path / "labels.json", 10, side=0.0)
    document = json.loads(labels.read_text())
    for annotation in document["annotations"][1:]:
        annotation["bbox"][2:] = [20.0, 20.0]
    labels.write_text(json.dumps(document))
    made = draft(Wish(labels, tmp_path / "pictures", method="supervised"), "mine")
    assert loaded(made.text, tmp_path).data.train.zero_size_boxes == "drop"
    assert any("1 boxes without width or height were dropped" in line for line in made.found)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"unlabeled": None}, "no unlabeled pictures are named: give their folder as --unlabeled"),
        ({"unlabeled": "labels.json"}, "labels.json is no folder"),
        ({"labeled": "more"}, "holds pictures and no labels that are known. Give it as --unlabeled"),
        ({"labeled": "nowhere"}, "nowhere does not exist"),
    ],
)
def test_draft__what_cannot_be_used_is_a_sentence(labels, tmp_path, change, sentence):
    paths = {"labeled": "labels.json", "unlabeled": "more", **change}
    wish = {key: None if name is None else tmp_path / name for key, name in paths.items()}
    with pytest.raises(DataError, match=sentence):
        draft(Wish(**wish), "mine")


def test_draft__a_method_that_is_not_offered_is_refused_with_the_nearest(labels):
    with pytest.raises(RecipeError, match=r"--method 'mean_techer' is not offered.*mean_teacher"):
        draft(Wish(labels, method="mean_techer"), "mine")

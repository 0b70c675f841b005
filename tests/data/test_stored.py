"""Stored labels: what is written is read back, what teaches, and whose labels are refused."""

import json

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from ssodkit.data.annotations import Category, make_image_set
from ssodkit.data.batch_plan import derive_batch
from ssodkit.data.config import DataConfig, FolderSource, RestSource, StoredSource
from ssodkit.data.loader import training_batches
from ssodkit.data.sets import open_data, open_unlabeled
from ssodkit.data.stored import FOLD, sure_boxes
from ssodkit.data.views import ViewsConfig
from ssodkit.data.writing import write_coco
from ssodkit.errors import DataError
from ssodkit.plugins import load_plugins

TABLE = (Category(2, "cat"), Category(7, "dog"))
"""The classes of `write_coco`, their ids with gaps."""


@pytest.fixture
def config(write_coco):
    """Makes a data config over 20 training images, 4 of them labeled, and 6 test images."""
    sources = {"train": write_coco("train", 20), "test": write_coco("test", 6, first_id=101, seed=1)}

    def make(**options):
        defaults = {"percent": 20.0, "folds": "soft_teacher", "batch": {"labeled": 2, "unlabeled": 2}}
        return DataConfig(**{**sources, **defaults, **options})

    return make


@pytest.fixture
def store(config, tmp_path):
    """Stores (place in the unlabeled images, box, label, score) and answers the data config that trains on them."""

    def write(*rows, of=None, categories=TABLE, info=None, edit=None, **options):
        of = of or RestSource()
        plain = config(unlabeled=of, **options)
        images = open_unlabeled(plain)
        if edit is not None:
            images = edit(images)
        owners, boxes, labels, scores = zip(*rows, strict=True) if rows else ((), (), (), ())
        names = [images.name(index) for index in range(len(images))]
        sizes = np.where(images.sizes > 0, images.sizes, 40)
        labeled = make_image_set(
            images.root, names, images.ids, sizes, categories, owners, boxes, labels, scores=scores
        )
        write_coco(tmp_path / "labels.json", labeled, info or {})
        return config(unlabeled=StoredSource(file=tmp_path / "labels.json", of=of), **options)

    return write


def boxes_of(images):
    """File name -> (box, category id, score) of each of its boxes."""
    rows = zip(images.boxes.tolist(), images.category_ids[images.labels].tolist(), images.scores.tolist(), strict=True)
    owners = np.repeat(np.arange(len(images)), images.boxes_per_image()).tolist()
    found = {images.name(index): [] for index in range(len(images))}
    for owner, row in zip(owners, rows, strict=True):
        found[images.name(owner)].append(row)
    return found


@pytest.mark.parametrize(
    ("scores", "kept"),
    [((0.95, 0.90, 0.70), [1, 1, 0]), ((0.62, 0.31), [1, 0]), ((0.62, 0.62), [1, 1]), ((), []), ((0.9,), [1])],
)
def test_sure_boxes__are_those_of_the_published_filter(scores, kept):
    offsets = np.array([0, len(scores)])
    assert sure_boxes(np.array(scores, dtype=np.float32), offsets, above=0.9, at_least=1).tolist() == kept


def test_sure_boxes__a_score_stored_in_16_bits_would_miss_its_own_threshold():
    half = np.array([0.9], dtype=np.float16)
    assert half.astype(np.float64)[0] == pytest.approx(0.899902, abs=5e-7)
    assert not sure_boxes(half.astype(np.float32), np.array([0, 1]), above=0.9, at_least=0).any()


def test_sure_boxes__at_least_counts_the_best_of_each_image():
    scores = np.array([0.2, 0.5, 0.3, 0.95, 0.1, 0.4], dtype=np.float32)
    offsets = np.array([0, 3, 3, 5, 6])  # the second image has none
    assert sure_boxes(scores, offsets, 0.9, 0).tolist() == [0, 0, 0, 1, 0, 0]
    assert sure_boxes(scores, offsets, 0.9, 1).tolist() == [0, 1, 0, 1, 0, 1]
    assert sure_boxes(scores, offsets, 0.9, 2).tolist() == [0, 1, 1, 1, 1, 1]


def test_open_data__stored_boxes_teach_and_images_without_one_leave_the_list(store):
    data = store((0, [1, 2, 11, 12], 1, 0.95), (0, [3, 4, 9, 9], 0, 0.5), (2, [5, 5, 20, 20], 0, 0.6))
    sets = open_data(data)
    names = [sets.unlabeled.name(index) for index in range(len(sets.unlabeled))]
    pool = open_unlabeled(data)
    assert names == [pool.name(0), pool.name(2)]
    assert [sets.unlabeled.path(index) for index in range(2)] == [pool.path(0), pool.path(2)]
    assert boxes_of(sets.unlabeled) == {
        names[0]: [([1.0, 2.0, 11.0, 12.0], 7, pytest.approx(0.95))],
        names[1]: [([5.0, 5.0, 20.0, 20.0], 2, pytest.approx(0.6))],
    }
    assert any(
        "2 stored boxes of 2 unlabeled images teach; 1 of them are the best of their 1 images and below 0.9; "
        "14 images without such a box are left out" in note
        for note in sets.notes
    )


def test_open_data__hidden_labels_stay_apart_from_stored_ones(store):
    sets = open_data(store((1, [1, 2, 11, 12], 1, 0.95)))
    assert sets.hidden.ids.tolist() == sets.unlabeled.ids.tolist()
    assert (sets.hidden.scores == 1.0).all()
    assert not np.array_equal(sets.hidden.boxes, sets.unlabeled.boxes)


def test_open_data__classes_of_the_file_may_have_another_order(store):
    sets = open_data(store((0, [1, 2, 11, 12], 0, 0.95), categories=TABLE[::-1]))
    assert sets.unlabeled.category_ids[sets.unlabeled.labels].tolist() == [7]
    assert sets.unlabeled.labels.tolist() == [1]


def test_open_data__no_stored_box_leaves_labeled_images_alone_and_says_so(store):
    sets = open_data(store())
    assert sets.unlabeled is None
    assert sets.hidden is None
    assert any(
        "no unlabeled image is left, and this run learns from labeled images alone" in note for note in sets.notes
    )


def test_open_data__without_unlabeled_images_in_a_step_no_file_is_read(config, tmp_path):
    sets = open_data(config(unlabeled=StoredSource(file=tmp_path / "absent.json"), batch={"labeled": 2}))
    assert sets.unlabeled is None


def test_open_data__images_of_a_folder_are_known_by_name_and_get_their_sizes(store, tmp_path):
    (tmp_path / "more").mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(np.zeros((40, 40, 3), dtype=np.uint8)).save(tmp_path / "more" / name)
    data = store((1, [1, 2, 11, 12], 1, 0.95), of=FolderSource(images=tmp_path / "more"))
    Image.fromarray(np.zeros((40, 40, 3), dtype=np.uint8)).save(tmp_path / "more" / "0_came_later.png")
    sets = open_data(data)
    assert (sets.unlabeled.name(0), sets.unlabeled.sizes.tolist()) == ("b.png", [[40, 40]])


def test_training_batches__stored_boxes_are_carried_into_the_view(store):
    data = store((0, [10, 5, 20, 15], 1, 0.95))
    load_plugins()
    double = {"type": "resize", "short": 80}
    views = ViewsConfig.model_validate({"labeled": {"labeled": []}, "unlabeled": {"strong": [double]}})
    ((batch,),) = training_batches(open_data(data), views, derive_batch(data.batch), 0, range(1))
    targets = batch.unlabeled.targets["strong"]
    scale = 80 / min(open_data(data).unlabeled.sizes[0])
    assert targets.boxes[0].tolist() == [pytest.approx([10 * scale, 5 * scale, 20 * scale, 15 * scale])]
    assert (targets.labels.tolist(), targets.weight.tolist()) == ([[1], [1]], [[1.0], [1.0]])


def test_open_data__labels_of_other_images_are_refused_with_everything_that_does_not_fit(store, config, tmp_path):
    def other(images):
        return images.without_labels().subset([0, 1, 2])

    stored = store(
        (0, [1, 2, 11, 12], 1, 0.95), edit=other, info={FOLD: "0123"}, categories=(*TABLE[:1], Category(7, "bird"))
    )
    document = json.loads((tmp_path / "labels.json").read_text())
    document["images"][0]["file_name"] = "elsewhere.jpg"
    document["images"][1]["height"] = 9
    (tmp_path / "labels.json").write_text(json.dumps(document))
    with pytest.raises(DataError) as refusal:
        open_data(stored)
    lines = str(refusal.value).splitlines()
    assert lines[0] == f"data.unlabeled: {tmp_path / 'labels.json'} holds no labels for this run:"
    assert "1 of its 3 images are not among the 16 unlabeled ones (elsewhere.jpg)" in lines[1]
    assert "1 images have other sizes there, height x width, than here (" in lines[2]
    assert "the file has boxes of classes that data.train does not know: 'bird'. It knows 'cat', 'dog'." in lines[3]
    assert "learned from other labeled images (hash 0123 there" in lines[4]
    assert len(lines) == 5


def test_open_data__labels_by_a_network_of_the_same_fold_are_taken(store, config):
    fold = open_data(config()).fold.hash
    assert open_data(store((0, [1, 2, 11, 12], 1, 0.95), info={FOLD: fold})).unlabeled is not None
    with pytest.raises(DataError, match=r"Label with a run of the same data\.percent and data\.fold"):
        open_data(store((0, [1, 2, 11, 12], 1, 0.95), info={FOLD: fold}, fold=2))


def test_open_data__labels_for_labeled_images_need_these_in_the_list(store, tmp_path):
    whole = RestSource(include_labeled=True)
    data = store((0, [1, 2, 11, 12], 1, 0.95), of=whole)
    assert open_data(data).unlabeled is not None
    rest = data.model_copy(update={"unlabeled": StoredSource(file=tmp_path / "labels.json")})
    with pytest.raises(DataError, match=r"4 of its 20 images are not among the 16 unlabeled ones"):
        open_data(rest)


def test_open_data__a_file_without_scores_is_refused(store, tmp_path):
    data = store((0, [1, 2, 11, 12], 1, 0.95))
    file = tmp_path / "labels.json"
    file.write_text(file.read_text().replace('"score"', '"sure"'))
    with pytest.raises(DataError, match=r"data\.unlabeled: .*annotation 1 \(image 1\) has the score None"):
        open_data(data)


def test_open_data__a_missing_file_is_named(config, tmp_path):
    with pytest.raises(DataError, match=r"data.unlabeled: .*absent.json cannot be read: .* Check `file` in the recipe"):
        open_data(config(unlabeled=StoredSource(file=tmp_path / "absent.json")))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "give either `file` or `made_by`"),
        ({"file": "a.json", "made_by": "supervised"}, "give either `file` or `made_by`"),
        ({"file": "a.json", "made_with": ["engine.steps=2"]}, "`made_with` changes the recipe that `made_by` names"),
        ({"file": "a.json", "made_at": "original"}, "`made_at` says how the recipe of `made_by` labels"),
    ],
)
def test_stored_source__has_one_origin(fields, message):
    with pytest.raises(ValidationError, match=message):
        StoredSource(**fields)


def test_open_unlabeled__of_a_recipe_without_any_is_refused_and_an_empty_rest_is_not(config):
    with pytest.raises(DataError, match=r"data\.unlabeled names no images"):
        open_unlabeled(config(unlabeled=None, batch={"labeled": 2}))
    assert len(open_unlabeled(config(percent=100.0, batch={"labeled": 2}))) == 0


def test_open_unlabeled__are_the_images_of_a_step_without_labels(config):
    images = open_unlabeled(config(batch={"labeled": 2}))
    assert images.ids.tolist() == open_data(config()).unlabeled.ids.tolist()
    assert (len(images.boxes), images.categories) == (0, ())

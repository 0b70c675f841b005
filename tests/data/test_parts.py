import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from ssodkit.data.annotations import Category, ImageSet, make_image_set
from ssodkit.data.config import DataConfig, FolderSource, HeldOutSource, RestSource
from ssodkit.data.parts import hold_out
from ssodkit.data.sets import open_data, open_unlabeled
from ssodkit.data.splits import shown_classes
from ssodkit.errors import DataError

HELD = {"type": "held_out", "percent": 25.0}


def photographs(shown: list[list[int]]) -> ImageSet:
    """Images 100, 101, ... that show these classes, of five."""
    owners = [place for place, labels in enumerate(shown) for _ in labels]
    labels = [label for row in shown for label in row]
    return make_image_set(
        Path(), [f"{place}.jpg" for place in range(len(shown))], range(100, 100 + len(shown)), [(9, 9)] * len(shown),
        [Category(number, str(number)) for number in range(5)], owners, [[0, 0, 5, 5]] * len(owners), labels,
    )  # fmt: skip


@pytest.fixture
def config(write_coco):
    """Makes a data config over 24 training images, of which eight are held out if nothing else is said."""
    train, test = write_coco("train", 24), write_coco("test", 4, first_id=101, seed=1)

    def make(**options: Any) -> DataConfig:
        defaults = {"train": train, "test": HELD, "percent": 50.0, "folds": "soft_teacher", "batch": {"labeled": 2}}
        options = {key: test if value == "own" else value for key, value in options.items()}
        return DataConfig(**{**defaults, **options})

    return make


def test_hold_out__each_class_gives_its_share_and_keeps_the_rest():
    # 40 images: all show class 0, 20 class 1, three class 2, two class 3, one class 4.
    shown = [[0] + [1] * (place % 2) + [2] * (place in (3, 8, 13)) + [3] * (place in (4, 9)) + [4] * (place == 20)
             for place in range(40)]  # fmt: skip
    images = photographs(shown)
    places = hold_out(images, 25.0)
    counts = shown_classes(images)[places].sum(axis=0).tolist()
    assert counts[0] == len(places) == 10
    assert counts[1:] == [5, 1, 1, 0]
    order = np.random.RandomState(0).permutation(40)
    assert sorted(images.subset(order).ids[hold_out(images.subset(order), 25.0)]) == images.ids[places].tolist()


@pytest.mark.parametrize(
    ("shown", "percent", "count"),
    [
        ([[], []], 90.0, 1),
        ([[]] * 10, 20.0, 2),
        ([[0], [1]], 20.0, 1),
        ([[0, 1], [0, 1]], 1.0, 1),
        ([[0], [0], [0]], 99.0, 2),
        ([[0], []], 20.0, 1),
    ],
)
def test_hold_out__one_at_least_and_never_all(shown, percent, count):
    assert len(hold_out(photographs(shown), percent)) == count


@pytest.mark.parametrize("count", [0, 1])
def test_hold_out__too_few_images_are_refused(count):
    with pytest.raises(DataError, match=rf"20 percent of {count} images? cannot be held out: one must be, and one"):
        hold_out(photographs([[0]] * count), 20.0)


def test_take_parts__test_images_are_the_same_for_every_fold_and_share(config):
    drawn = [open_data(config(**options)) for options in ({}, {"fold": 2}, {"percent": 100.0, "shots": 2})]
    assert len({tuple(sets.test.ids) for sets in drawn}) == 1
    assert len({sets.fold.hash for sets in drawn}) == 3
    for sets in drawn:
        assert set(sets.test.ids) == set(sets.fold.test_ids)
        assert not set(sets.test.ids) & set(sets.labeled.ids)
        assert len(sets.test) == 6


def test_take_parts__nothing_that_is_held_out_trains(config):
    unlabeled = RestSource(include_labeled=True)
    sets = open_data(config(validation=HELD, unlabeled=unlabeled, batch={"labeled": 2, "unlabeled": 2}))
    whole = open_data(config())
    assert set(sets.labeled.ids) | set(sets.validation.ids) == set(whole.labeled.ids)
    assert (len(sets.labeled), len(sets.validation), len(sets.test)) == (7, 2, 6)
    parts = [set(images.ids) for images in (sets.validation, sets.test, sets.unlabeled)]
    assert not parts[0] & parts[1]
    assert not parts[2] & (parts[0] | parts[1])
    assert set(sets.labeled.ids) <= parts[2]
    assert sum(map(len, parts)) == 24
    assert open_unlabeled(config(validation=HELD, unlabeled=unlabeled)).ids.tolist() == sets.unlabeled.ids.tolist()
    assert not any("share" in note for note in sets.notes)


def test_take_parts__a_folder_with_the_same_files_is_without_them(config, tmp_path):
    shutil.copytree(tmp_path / "train", tmp_path / "all")
    options = {"validation": HELD, "unlabeled": FolderSource(images=tmp_path / "all")}
    sets = open_data(config(**options, batch={"labeled": 2, "unlabeled": 2}))
    held = {images.name(place) for images in (sets.test, sets.validation) for place in range(len(images))}
    assert {sets.unlabeled.name(place) for place in range(len(sets.unlabeled))}.isdisjoint(held)
    assert len(sets.unlabeled) == 24 - len(held)
    assert len(open_unlabeled(config(**options))) == len(sets.unlabeled)
    (first, second) = (note for note in sets.notes if "held out" in note)
    assert first.startswith("6 unlabeled images are held out for data.test, and are not learned from")
    assert second.startswith("2 unlabeled images are held out for data.validation")
    assert not any("share" in note for note in sets.notes)


def test_take_parts__a_copy_among_the_training_images_is_noticed(config, tmp_path):
    """It has another name and id, so nobody knows but by its content."""
    held = open_data(config()).test
    document = json.loads((tmp_path / "train.json").read_text())
    for place, image in enumerate([image for image in document["images"] if image["id"] in held.ids]):
        name = f"copy {image['file_name']}"
        shutil.copy(tmp_path / "train" / image["file_name"], tmp_path / "train" / name)
        document["images"].append({**image, "id": 99 + place, "file_name": name})
    (tmp_path / "train.json").write_text(json.dumps(document))
    assert any("data.train and data.test share" in note for note in open_data(config()).notes)


def test_take_parts__too_few_labels_for_a_validation_part_are_refused(config):
    with pytest.raises(DataError, match=r"^data\.validation: 25 percent of 1 image cannot be held out"):
        open_data(config(validation=HELD, percent=5.0, test="own"))


def test_data_config__two_held_out_parts_are_not_the_same_set(config):
    assert config(validation=HELD).validation == HeldOutSource(percent=25.0)
    with pytest.raises(ValidationError, match=r"data\.validation is data\.test"):
        config(validation="own", test="own")

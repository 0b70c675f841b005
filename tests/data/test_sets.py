import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from ssodkit.data.annotations import Category, ImageSet, make_image_set
from ssodkit.data.config import DataConfig, FolderSource, LabeledRule, RestSource, VocSource
from ssodkit.data.sets import apply_rule, open_data
from ssodkit.errors import DataError


@pytest.fixture
def config(write_coco):
    """Makes a data config over 20 training and 6 test images."""
    sources = {"train": write_coco("train", 20), "test": write_coco("test", 6, first_id=101, seed=1)}

    def make(**options: Any) -> DataConfig:
        defaults = {"percent": 20.0, "folds": "soft_teacher", "batch": {"labeled": 2, "unlabeled": 2}}
        return DataConfig(**{**sources, **defaults, **options})

    return make


def five_boxes(**flags: list[bool]) -> ImageSet:
    """Images 1, 2 and 3 with three, one and one box; areas 4, 100, 25; 9; 16."""
    boxes = [[0, 0, 2, 2], [0, 0, 10, 10], [0, 0, 5, 5], [0, 0, 3, 3], [0, 0, 4, 4]]
    return make_image_set(
        Path(), ["a", "b", "c"], [1, 2, 3], [(50, 60), (20, 90), (40, 32)], [Category(1, "cat")],
        [0, 0, 0, 1, 2], boxes, [0] * 5, **flags,
    )  # fmt: skip


def test_apply_rule__keeps_everything_by_default():
    images = five_boxes(crowd=[False, False, True, False, True])
    kept = apply_rule(images, LabeledRule())
    assert len(kept.boxes) == 5
    assert kept.notes == ()


def test_apply_rule__drops_crowd_boxes_and_then_empty_images():
    images = five_boxes(crowd=[False, False, True, False, True])
    kept = apply_rule(images, LabeledRule(crowd="drop", empty_images="drop"))
    assert kept.ids.tolist() == [1, 2]
    assert kept.boxes_per_image().tolist() == [2, 1]
    assert "2 crowd boxes" in kept.notes[0]
    assert "1 labeled images without a box" in kept.notes[1]


@pytest.mark.parametrize("flag", ["crowd", "difficult"])
def test_apply_rule__an_image_with_ignored_boxes_alone_is_empty(flag):
    images = five_boxes(**{flag: [False, False, False, False, True]})
    assert apply_rule(images, LabeledRule(empty_images="drop")).ids.tolist() == [1, 2]


def test_apply_rule__leaves_small_images_out():
    kept = apply_rule(five_boxes(), LabeledRule(minimum_side=32))
    assert kept.ids.tolist() == [1, 3]
    assert "1 labeled images with a side under 32 px" in kept.notes[0]


def test_apply_rule__keeps_the_largest_boxes():
    kept = apply_rule(five_boxes(), LabeledRule(at_most=2))
    assert kept.boxes_per_image().tolist() == [2, 1, 1]
    assert kept.boxes[:2, 2].tolist() == [10, 5]
    assert "1 boxes beyond the 2 largest" in kept.notes[0]


def test_apply_rule__no_image_left_is_refused():
    with pytest.raises(DataError, match="leaves no labeled image: 3 labeled images with a side under 100 px"):
        apply_rule(five_boxes(), LabeledRule(minimum_side=100))


def test_open_data__labeled_and_rest_are_the_training_images(config):
    sets = open_data(config())
    assert tuple(sets.labeled.ids) == sets.fold.image_ids
    assert len(sets.labeled) == 4
    assert sorted([*sets.labeled.ids, *sets.unlabeled.ids]) == list(range(1, 21))
    assert sets.test.ids.tolist() == list(range(101, 107))
    assert sets.categories == (Category(2, "cat"), Category(7, "dog"))
    assert sets.validation is None
    assert sets.notes == ("1 of 2 classes have no box in the labeled images: dog",)


def test_open_data__the_rest_may_include_the_labeled_images(config):
    sets = open_data(config(unlabeled=RestSource(include_labeled=True)))
    assert sets.unlabeled.ids.tolist() == list(range(1, 21))


def test_open_data__labeled_images_among_the_unlabeled_are_known_by_their_files(config, tmp_path):
    """Another source counts from 1 as well; its images are others."""
    sets = open_data(config())
    assert sets.labeled_too.tolist() == []
    sets = open_data(config(unlabeled=RestSource(include_labeled=True)))
    assert sets.labeled_too.tolist() == sets.labeled.ids.tolist()
    shutil.copytree(tmp_path / "test", tmp_path / "more")
    sets = open_data(config(unlabeled=FolderSource(images=tmp_path / "more"), percent=100.0))
    assert set(sets.unlabeled.ids) <= set(sets.labeled.ids)
    assert sets.labeled_too.tolist() == []
    sets = open_data(config(unlabeled=FolderSource(images=tmp_path / "train")))
    assert [sets.unlabeled.path(place) for place in sets.unlabeled.positions(sets.labeled_too).tolist()] == [
        sets.labeled.path(place) for place in range(len(sets.labeled))
    ]


def test_open_data__unlabeled_images_have_no_labels_and_hidden_ones_have(config):
    sets = open_data(config())
    assert len(sets.unlabeled.boxes) == 0
    assert sets.unlabeled.categories == ()
    assert sets.hidden.ids.tolist() == sets.unlabeled.ids.tolist()
    assert sets.hidden.boxes_per_image().tolist() == [(number - 1) % 3 for number in sets.unlabeled.ids]


def test_open_data__nothing_unlabeled_is_read_where_no_step_takes_any(config):
    sets = open_data(config(batch={"labeled": 2}, unlabeled=FolderSource(images=Path("absent"))))
    assert sets.unlabeled is None
    assert sets.hidden is None


def test_open_data__a_folder_gives_unlabeled_images(config, tmp_path):
    (tmp_path / "more").mkdir()
    Image.new("L", (30, 20)).save(tmp_path / "more" / "x.png")
    sets = open_data(config(unlabeled=FolderSource(images=tmp_path / "more"), percent=100.0))
    assert sets.unlabeled.path(0) == tmp_path / "more" / "x.png"
    assert sets.hidden is None
    assert len(sets.labeled) == 20
    assert sets.fold.mode == "all"


def test_open_data__unlabeled_test_images_are_noticed(config, tmp_path):
    shutil.copytree(tmp_path / "test", tmp_path / "more")
    (tmp_path / "more" / "001.png").rename(tmp_path / "more" / "other name.png")
    sets = open_data(config(unlabeled=FolderSource(images=tmp_path / "more")))
    (note,) = (note for note in sets.notes if "share" in note)
    assert "data.unlabeled and data.test share 6 images by content" in note


def test_open_data__training_images_that_are_test_images_are_noticed(config, tmp_path):
    shutil.copy(tmp_path / "train" / "004.jpg", tmp_path / "test" / "004.jpg")
    sets = open_data(config())
    (note,) = (note for note in sets.notes if "share" in note)
    assert "data.train and data.test share 1 images by content" in note
    assert "004.jpg" in note


def test_open_data__without_any_box_it_says_so(write_coco):
    sources = {name: write_coco(name, 4, seed=seed, annotations=[]) for seed, name in enumerate(("train", "test"))}
    sets = open_data(DataConfig(**sources, batch={"labeled": 1}))
    assert sets.notes == ("no labeled image has a box", "no test image has a box")


def test_open_data__a_set_without_images_is_refused(config, write_coco):
    with pytest.raises(DataError, match=r"^data\.validation: no image is listed there"):
        open_data(config(validation=write_coco("none", 0)))


@pytest.mark.parametrize(
    ("folds", "percent", "complaint"),
    [("stac", 1.0, r"^data\.percent: 1 percent"), ({"type": "list", "file": "a.json"}, 50.0, r"^data\.folds: a\.json")],
)
def test_open_data__labels_that_cannot_be_drawn_name_their_key(config, folds, percent, complaint):
    with pytest.raises(DataError, match=complaint):
        open_data(config(folds=folds, percent=percent))


def test_open_data__relative_paths_are_shown_with_where_they_begin(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = config().train
    absent = source.model_copy(update={"annotations": Path("a.json")})
    with pytest.raises(DataError, match=rf"^data\.train: a\.json \(seen from {tmp_path}\) cannot be read"):
        open_data(config(train=absent))
    elsewhere = source.model_copy(update={"images": Path("b")})
    with pytest.raises(DataError, match=rf"relative to b \(seen from {tmp_path}\)"):
        open_data(config(train=elsewhere))


def test_open_data__labels_count_in_the_training_table(config, write_coco):
    turned = [{"id": 7, "name": "dog"}, {"id": 2, "name": "cat"}]
    given = open_data(config(test=write_coco("same", 6, seed=1))).test
    sets = open_data(config(test=write_coco("turned", 6, seed=1, categories=turned)))
    assert sets.test.categories == sets.categories
    assert sets.test.labels.tolist() == given.labels.tolist()


@pytest.mark.parametrize("key", ["test", "validation"])
def test_open_data__boxes_of_a_class_that_train_does_not_know_are_refused(config, write_coco, key):
    other = write_coco("other", 3, categories=[{"id": 2, "name": "cat"}, {"id": 7, "name": "horse"}])
    with pytest.raises(DataError) as caught:
        open_data(config(**{key: other}))
    assert str(caught.value).startswith(f"data.{key} has boxes of classes that data.train does not know: 'horse'. ")
    assert "It knows 'cat', 'dog'." in str(caught.value)


def test_open_data__classes_are_joined_by_name_whatever_their_numbers_and_order(config, write_coco):
    names = [{"id": 0, "name": "dog"}, {"id": 1, "name": "cat"}, {"id": 2, "name": "horse"}]
    boxes = [
        {"id": 1, "image_id": 1, "category_id": 0, "bbox": [1, 1, 5, 5]},
        {"id": 2, "image_id": 2, "category_id": 1, "bbox": [1, 1, 5, 5]},
    ]
    sets = open_data(config(test=write_coco("other", 3, seed=4, categories=names, annotations=boxes)))
    assert sets.test.categories == sets.categories == (Category(2, "cat"), Category(7, "dog"))
    assert sets.test.labels.tolist() == [1, 0]
    assert "data.test lists classes that data.train does not know, and no box has them: 'horse'" in sets.notes


def test_open_data__hidden_labels_of_other_categories_are_not_used(config, write_coco):
    other = write_coco("other", 3, categories=[{"id": 2, "name": "car"}, {"id": 7, "name": "bus"}])
    sets = open_data(config(unlabeled=other))
    assert len(sets.unlabeled) == 3
    assert sets.hidden is None


@pytest.mark.parametrize("nothing", [None, []])
def test_open_data__unlabeled_coco_files_need_no_annotations(config, write_coco, nothing):
    sets = open_data(config(unlabeled=write_coco("more", 3, seed=5, annotations=nothing, categories=nothing)))
    assert len(sets.unlabeled) == 3
    assert sets.hidden is None


def test_open_data__no_rest_is_refused(config):
    with pytest.raises(DataError, match="every training image is labeled"):
        open_data(config(percent=100.0))


def test_open_data__an_error_begins_with_the_key_of_the_recipe(config, tmp_path):
    (tmp_path / "test" / "003.png").unlink()
    with pytest.raises(DataError, match=r"^data\.test: .*: image files that do not exist, of 6: .*003\.png\."):
        open_data(config())


def test_open_data__digits_are_made_and_2_5_percent_are_50(tmp_path, monkeypatch):
    monkeypatch.setenv("SSODKIT_CACHE", str(tmp_path))
    config = DataConfig(
        train={"type": "digits", "part": "train", "images": 40},
        test={"type": "digits", "part": "val", "images": 4},
        folds="soft_teacher",
        percent=2.5,
        unlabeled={"type": "rest", "include_labeled": True},
        batch={"labeled": 2, "unlabeled": 2},
    )
    done: list[int] = []
    sets = open_data(config, lambda made, total: done.append(total))
    assert done == [40] * 40 + [4] * 4
    assert (len(sets.labeled), len(sets.unlabeled), len(sets.test)) == (1, 40, 4)
    assert not any("share" in note for note in sets.notes)


@pytest.fixture
def voc(tmp_path) -> Path:
    """Two VOC images with a dog each, the second one's difficult."""
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (tmp_path / "voc" / folder).mkdir(parents=True)
    for name, difficult in (("000001", 0), ("000002", 1)):
        Image.new("RGB", (60, 40), color=(difficult, 0, 0)).save(tmp_path / "voc" / "JPEGImages" / f"{name}.jpg")
        (tmp_path / "voc" / "Annotations" / f"{name}.xml").write_text(
            "<annotation><size><width>60</width><height>40</height></size><object><name>dog</name>"
            f"<difficult>{difficult}</difficult><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax>"
            "</bndbox></object></annotation>"
        )
    for split in ("trainval", "test"):
        (tmp_path / "voc" / "ImageSets" / "Main" / f"{split}.txt").write_text("000001\n000002\n")
    return tmp_path / "voc"


@pytest.mark.parametrize(("difficult", "left"), [("drop", [1, 0]), ("ignore", [1, 1])])
def test_open_data__difficult_boxes_are_dropped_in_training_only(voc, difficult, left):
    sets = open_data(
        DataConfig(
            train=VocSource(root=voc, difficult=difficult),
            test=VocSource(root=voc, split="test"),
            batch={"labeled": 1},
        )
    )
    assert sets.labeled.boxes_per_image().tolist() == left
    assert sets.test.difficult.tolist() == [False, True]


def test_open_data__without_any_object_in_xml_files_the_classes_must_be_named(voc):
    for file in (voc / "Annotations").iterdir():
        file.write_text("<annotation><size><width>60</width><height>40</height></size></annotation>")
    source, test = VocSource(root=voc, split="trainval"), VocSource(root=voc, split="test")
    with pytest.raises(DataError, match=r"^data\.train: no annotation has an object, so no class is known"):
        open_data(DataConfig(train=source, test=test, batch={"labeled": 1}))
    named = source.model_copy(update={"classes": ("dog",)})
    assert open_data(DataConfig(train=named, test=test, batch={"labeled": 1})).test.categories == (Category(1, "dog"),)


def test_open_data__places_of_labeled_images_follow_the_file(write_coco):
    source = write_coco("train", 30)
    config = DataConfig(train=source, test=source, percent=50.0, fold=3, batch={"labeled": 1, "unlabeled": 1})
    sets = open_data(config)
    assert (np.diff(sets.labeled.ids) > 0).all()
    assert 5 < len(sets.labeled) < 15


def test_data_config__validation_must_not_be_the_test_set(config):
    with pytest.raises(ValidationError, match=r"data\.validation is data\.test"):
        config(validation=config().test)


def test_open_data__the_mistakes_of_all_sets_are_shown_at_once(config, write_coco, tmp_path):
    (tmp_path / "test" / "003.png").unlink()
    bad = write_coco("validation", 2, seed=3, annotations=[{"id": 1, "image_id": 7, "category_id": 8, "bbox": "wide"}])
    with pytest.raises(DataError) as caught:
        open_data(
            config(
                validation=bad, unlabeled=FolderSource(images=tmp_path / "absent"), folds={"type": "list", "file": "a"}
            )
        )
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[0] for line in lines if not line.startswith("  ")] == [
        "data.test",
        "data.validation",
        "data.unlabeled",
        "data.folds",
    ]
    assert sum(line.startswith("  ") for line in lines) == 3


def test_open_data__a_validation_set_that_is_the_test_set_by_content_is_refused(config, write_coco, tmp_path):
    copies = write_coco("copies", 6, seed=1)
    with pytest.raises(DataError, match=r"^data\.validation: each of its 6 images is a test image, by content"):
        open_data(config(validation=copies))
    Image.new("RGB", (60, 40)).save(tmp_path / "copies" / "000.jpg")
    (note,) = (note for note in open_data(config(validation=copies)).notes if "share" in note)
    assert "data.validation and data.test share 5 images by content" in note


def test_open_data__validation_images_that_are_learned_are_noticed(config, write_coco, tmp_path):
    copies = write_coco("copies", 3)
    shutil.copytree(tmp_path / "copies", tmp_path / "more")
    sets = open_data(config(validation=copies, unlabeled=FolderSource(images=tmp_path / "more")))
    notes = [note for note in sets.notes if "share" in note]
    assert "data.train and data.validation share 3 images by content" in notes[0]
    assert "data.unlabeled and data.validation share 3 images by content" in notes[1]


def test_open_data__names_that_are_no_utf_8_can_be_shown(config, tmp_path):
    (tmp_path / "more").mkdir()
    for name in (b"\xff.png", b"\xfe.png"):
        shutil.copy(tmp_path / "test" / "001.png", os.path.join(os.fsencode(tmp_path / "more"), name))
    notes = open_data(config(unlabeled=FolderSource(images=tmp_path / "more"))).notes
    assert any("share 2 images" in note and r"\udcff.png" in note.encode().decode() for note in notes)


def test_open_data__several_sources_are_one_set(config, write_coco, tmp_path):
    """Categories of the second training source have other ids, and there is one more."""
    names = [{"id": 0, "name": "dog"}, {"id": 1, "name": "bird"}]
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5]}
    more = write_coco("more", 2, seed=7, categories=names, annotations=[box])
    one = config().train
    (tmp_path / "plain").mkdir()
    Image.new("L", (30, 20)).save(tmp_path / "plain" / "x.png")
    plain = FolderSource(images=tmp_path / "plain")
    sets = open_data(config(train=[one, more], unlabeled=[plain, write_coco("rest", 3, seed=9)], percent=100.0))
    assert sets.labeled.ids.tolist() == list(range(1, 23))
    assert [category.name for category in sets.categories] == ["cat", "dog", "bird"]
    assert sets.labeled.labels[-1] == 2
    assert sets.test.categories == sets.categories
    assert [sets.unlabeled.path(index).name for index in range(4)] == ["x.png", "000.jpg", "001.png", "002.jpg"]
    assert sets.hidden is None
    assert open_data(config(train=[one])).labeled.ids.tolist() == open_data(config()).labeled.ids.tolist()


def test_open_data__mistakes_in_several_sources_are_shown_with_their_places(config, write_coco, tmp_path):
    (tmp_path / "train" / "003.png").unlink()
    bad = write_coco("bad", 1, annotations=[{"id": 1, "image_id": 1, "category_id": 8, "bbox": [1, 1, 5, 5]}])
    with pytest.raises(DataError) as caught:
        open_data(config(train=[config().train, bad]))
    lines = [line.split(": ")[0] for line in str(caught.value).splitlines()]
    assert lines == ["data.train.0", "data.train.1"]


def test_data_config__sources_of_validation_must_not_all_be_those_of_the_test(config, write_coco):
    one, other = config().test, write_coco("other", 2, first_id=50)
    for validation in (one, [one], [one, one]):
        with pytest.raises(ValidationError, match=r"data\.validation is data\.test"):
            config(test=[one, other], validation=validation)
    assert config(test=[one], validation=[one, other]).validation == (one, other)


def test_data_config__sources_of_train_agree_on_difficult_boxes(voc, config):
    sources = [VocSource(root=voc, difficult=rule) for rule in ("drop", "ignore")]
    with pytest.raises(ValidationError, match=r"some sources of data\.train drop difficult boxes, others ignore"):
        config(train=sources)


def test_data_config__a_list_without_a_source_is_refused(config):
    with pytest.raises(ValidationError, match="at least 1 item"):
        config(train=[])

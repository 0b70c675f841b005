from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from ssodkit.data.config import CocoSource, DataConfig, FolderSource, RestSource, VocSource
from ssodkit.data.shares import Share

BASES = Path(__file__).parents[2] / "recipes" / "bases" / "data"


def base(name: str, **batch: Any) -> DataConfig:
    """The data part of a base, with a batch as a recipe adds it."""
    document = yaml.safe_load((BASES / f"{name}.yaml").read_text())
    data = document["data"]
    if "extends" in document:
        data = yaml.safe_load((BASES / document["extends"]).read_text())["data"] | data
    data["batch"] = data.get("batch", {}) | {"labeled": 8, "unlabeled": 32} | batch
    return DataConfig.model_validate(data)


def test_bases__coco_standard_is_the_protocol():
    data = base("coco_standard")
    assert isinstance(data.train, CocoSource)
    assert data.train.zero_size_boxes == "drop"
    assert data.folds == "stac"
    assert data.unlabeled == RestSource(include_labeled=False)
    assert (data.labeled.empty_images, data.labeled.crowd, data.labeled.minimum_side) == ("drop", "drop", 32)
    assert data.batch.same_orientation


def test_bases__coco_additional_labels_all_of_train():
    data = base("coco_additional", labeled=32)
    assert data.percent == 100.0
    assert isinstance(data.unlabeled, CocoSource)
    assert data.unlabeled.annotations.name == "image_info_unlabeled2017.json"
    assert data.train == base("coco_standard").train


def test_bases__voc_is_the_protocol():
    data = base("voc")
    assert isinstance(data.train, VocSource)
    assert (data.train.root.name, data.train.split, data.train.difficult) == ("VOC2007", "trainval", "drop")
    assert data.train.classes == tuple(sorted(data.train.classes))
    assert len(data.train.classes) == 20
    assert isinstance(data.test, VocSource)
    assert (data.test.root.name, data.test.split) == ("VOC2007", "test")
    assert isinstance(data.unlabeled, VocSource)
    assert (data.unlabeled.root.name, data.unlabeled.split) == ("VOC2012", "trainval")


def test_bases__digits_label_exactly_fifty_images():
    data = base("digits", labeled=16, unlabeled=16)
    assert data.folds == "soft_teacher"
    assert int(data.percent / 100 * data.train.images) == 50
    assert data.unlabeled == RestSource(include_labeled=True)


def test_data_config__shots_and_a_share_contradict_each_other_but_for_the_default():
    values = base("coco_standard").model_dump()
    assert DataConfig(**{**values, "percent": 100.0, "shots": 5}).share == Share(shots=5)
    with pytest.raises(ValidationError, match=r"data\.shots is 5 and data\.percent 10.*set data\.percent to 100"):
        DataConfig(**{**values, "percent": 10.0, "shots": 5})


def test_data_config__unlabeled_slots_need_a_source():
    with pytest.raises(ValidationError, match=r"data\.unlabeled names no images"):
        DataConfig(**base("voc").model_dump() | {"unlabeled": None})


def test_data_config__a_source_is_told_by_its_type():
    data = DataConfig(**base("voc").model_dump() | {"unlabeled": {"type": "folder", "images": "more"}})
    assert data.unlabeled == FolderSource(images=Path("more"))


def test_voc_source__a_class_is_named_once():
    with pytest.raises(ValidationError, match="'cat' stands here twice"):
        VocSource(root="VOC2007", classes=("dog", "cat", "cat"))

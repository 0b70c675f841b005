import json
from pathlib import Path

import pytest
from PIL import Image

from ssodkit.data.config import CocoSource, DataConfig, FolderSource, VocSource, YoloSource
from ssodkit.data.recognize import recognize
from ssodkit.data.sets import open_data
from ssodkit.errors import DataError

ROW = "0 0.5 0.5 0.5 0.25\n"
XML = (
    "<annotation><size><width>60</width><height>40</height></size><object><name>cat</name><bndbox><xmin>1</xmin>"
    "<ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>"
)
YAML = "train: images/train\nval: images/val\nnames: [cat]\n"


def coco(*names: str) -> str:
    images = [{"id": place, "file_name": name, "height": 40, "width": 60} for place, name in enumerate(names)]
    boxes = [{"id": place, "image_id": place, "category_id": 0, "bbox": [1, 1, 9, 9]} for place in range(len(names))]
    return json.dumps({"images": images, "annotations": boxes, "categories": [{"id": 0, "name": "cat"}]})


def write(root: Path, files: dict[str, str | None]) -> Path:
    """Texts at their paths; None is an image of 60 x 40."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            Image.new("RGB", (60, 40)).save(root / name)
        else:
            (root / name).write_text(text)
    return root


def refusal(path: Path, images: Path | None = None) -> str:
    with pytest.raises(DataError) as caught:
        recognize(path, images)
    return str(caught.value)


CASES = [
    ({"l.json": coco("a.jpg"), "pictures/a.jpg": None}, "l.json", {"all": ("coco", "pictures")}),
    ({"l.json": coco("/data/upload/1/3f2a9c1b-a.jpg"), "pictures/in/a.jpg": None}, "", {"all": ("coco", "pictures")}),
    ({"l.json": coco("in/a.jpg"), "in/a.jpg": None}, "", {"all": ("coco", "")}),
    ({"annotations/instances_default.json": coco("a.jpg"), "images/a.jpg": None}, "", {"all": ("coco", "images")}),
    (
        {
            "annotations/instances_train2017.json": coco("a.jpg"),
            "annotations/instances_val2017.json": coco("b.jpg"),
            "train2017/a.jpg": None,
            "val2017/b.jpg": None,
        },
        "",
        {"train": ("coco", "train2017"), "val": ("coco", "val2017")},
    ),
    (
        {
            "train/_annotations.coco.json": coco("a.jpg"),
            "valid/_annotations.coco.json": coco("b.jpg"),
            "train/a.jpg": None,
            "valid/b.jpg": None,
            "README.txt": "x",
        },
        "",
        {"train": ("coco", "train"), "val": ("coco", "valid")},
    ),
    ({"ANNOTATIONS/a.xml": XML, "IMAGES/a.png": None}, "", {"all": ("voc", "")}),
    ({"a.xml": XML, "a.jpg": None}, "", {"all": ("voc", "")}),
    (
        {
            "Annotations/a.xml": XML,
            "JPEGImages/a.jpg": None,
            "ImageSets/Main/trainval.txt": "a",
            "ImageSets/Main/test.txt": "a",
            "ImageSets/Main/cat_trainval.txt": "a 1",
        },
        "",
        {"train": ("voc", ""), "test": ("voc", "")},
    ),
    (
        {"kit/Annotations/a.xml": XML, "kit/JPEGImages/a.jpg": None, "kit/ImageSets/Main/val.txt": "a"},
        "",
        {"val": ("voc", "kit")},
    ),
    (
        {f"{part}/{file}": text for part in ("train", "valid") for file, text in (("a.xml", XML), ("a.jpg", None))},
        "",
        {"train": ("voc", "train"), "val": ("voc", "valid")},
    ),
    (
        {
            "train/annotations/a.xml": XML,
            "train/images/a.jpg": None,
            "validation/annotations/a.xml": XML,
            "validation/images/b/a.jpg": None,
        },
        "",
        {"train": ("voc", "train"), "val": ("voc", "validation")},
    ),
    (
        {
            "data.yaml": YAML,
            "images/train/a.jpg": None,
            "labels/train/a.txt": ROW,
            "images/val/b.jpg": None,
            "labels/val/b.txt": ROW,
        },
        "",
        {"train": ("yolo", "data.yaml"), "val": ("yolo", "data.yaml")},
    ),
    (
        {"mine.yml": "train: images\nnames: [cat]", "images/a.jpg": None, "labels/a.txt": ROW},
        "mine.yml",
        {"train": ("yolo", "mine.yml")},
    ),
    ({"images/a.jpg": None, "labels/a.txt": ROW, "classes.txt": "cat"}, "", {"all": ("yolo", "")}),
    (
        {"images/a.jpg": None, "labels/a.txt": ROW, "classes.txt": "cat", "notes.json": '{"categories": []}'},
        "",
        {"all": ("yolo", "")},
    ),
    ({"a.jpg": None, "a.txt": ROW, "classes.txt": "cat"}, "", {"all": ("yolo", "")}),
    ({"test/images/a.jpg": None, "test/labels/a.txt": ROW, "classes.txt": "cat"}, "", {"test": ("yolo", "")}),
]


@pytest.mark.parametrize(("files", "path", "expected"), CASES, ids=range(len(CASES)))
def test_recognize__finds_labels_and_splits_that_can_be_read(tmp_path, files, path, expected):
    found = recognize(write(tmp_path, files) / path)
    places = {}
    for split, source in found.items():
        place = source.images if isinstance(source, CocoSource) else source.root
        places[split] = source.type, "" if place == tmp_path else str(place.relative_to(tmp_path))
    assert places == expected
    for source in found.values():
        sets = open_data(DataConfig(train=source, test=source, batch={"labeled": 1}))
        assert (len(sets.labeled), len(sets.labeled.boxes), sets.categories[0].name) == (1, 1, "cat")


def test_recognize__a_folder_of_images_alone_is_one(tmp_path):
    write(tmp_path, {"in/a.jpg": None, "README.txt": "x", "train/b.png": None})
    assert recognize(tmp_path) == {"all": FolderSource(images=tmp_path)}


def test_recognize__the_folder_of_images_may_be_given(tmp_path):
    write(tmp_path, {"l.json": coco("a.jpg"), "one/a.jpg": None, "two/a.jpg": None, "xml/a.xml": XML})
    assert recognize(tmp_path / "l.json", tmp_path / "two") == {
        "all": CocoSource(annotations=tmp_path / "l.json", images=tmp_path / "two")
    }
    assert recognize(tmp_path / "xml", tmp_path / "one") == {
        "all": VocSource(root=tmp_path / "xml", images=tmp_path / "one")
    }
    write(tmp_path / "yolo", {"images/a.jpg": None, "labels/a.txt": ROW})
    for labels in ("yolo", "yolo/labels"):
        assert recognize(tmp_path / labels, tmp_path / "yolo" / "images") == {"all": YoloSource(root=tmp_path / "yolo")}


@pytest.mark.parametrize(
    ("files", "path", "said"),
    [
        ({}, "absent", "does not exist"),
        (
            {},
            "",
            "Looked for COCO JSON, Pascal VOC XML, YOLO labels and images; there is nothing",
        ),
        ({"a.csv": "x", "b/c.txt": "x"}, "", "there is a.csv, b."),
        ({"a.xml": XML}, "a.xml", "is neither a COCO JSON file nor a data.yaml"),
        ({"a.json": "[]"}, "a.json", "a.json holds a list. A COCO file is an object"),
        ({"a.json": '{"shapes": []}'}, "a.json", "is no COCO file: it has no list 'images'"),
        ({"a.json": coco("a.jpg")}, "a.json", "no folder near it holds all 1 of them. Give their folder too"),
        (
            {"a.json": coco("a.jpg"), "one/a.jpg": None, "two/a.jpg": None},
            "a.json",
            "several hold them: {0}/one, {0}/two. Give their folder too",
        ),
        (
            {"a.json": coco("a.jpg"), "b.json": coco("b.jpg")},
            "",
            "several COCO files: {0}/a.json, {0}/b.json. Give one",
        ),
        (
            {"a.json": coco("a.jpg"), "xml/a.xml": XML, "a.jpg": None, "a.txt": ROW},
            "",
            "COCO JSON ({0}/a.json), Pascal VOC XML ({0}/xml/a.xml), YOLO labels ({0}/a.txt). Give the file",
        ),
        (
            {"one/a.xml": XML, "two/a.xml": XML, "a.jpg": None},
            "",
            "several folders with XML files: '{0}/one', '{0}/two'",
        ),
        (
            {"VOC2007/a.xml": XML, "VOC2007/ImageSets/Main/a.txt": "a", "VOC2012/ImageSets/Main/a.txt": "a"},
            "",
            "several VOC folders: {0}/VOC2007, {0}/VOC2012. Give one",
        ),
        ({"one/a.xml": XML}, "", "holds no image, nor do its subfolders"),
        ({"data.yaml": "names: [cat]"}, "", "is no data.yaml: it names no images"),
    ],
)
def test_recognize__what_is_not_clear_is_said_in_one_sentence(tmp_path, files, path, said):
    assert said.format(tmp_path) in refusal(write(tmp_path, files) / path)


def test_recognize__images_elsewhere_than_yolo_labels_are_refused(tmp_path):
    write(tmp_path, {"mine/images/a.jpg": None, "mine/labels/a.txt": ROW, "other/a.jpg": None})
    text = refusal(tmp_path / "mine", tmp_path / "other")
    assert f"holds YOLO labels, and {tmp_path / 'other'} is not beside it" in text
    assert "absent is no folder. Give the folder of the images" in refusal(tmp_path / "mine", tmp_path / "absent")

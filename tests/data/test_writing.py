import json
import os
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from ssodkit.data.annotations import Category, ImageSet, make_image_set
from ssodkit.data.coco import read_coco
from ssodkit.data.config import VocSource, YoloSource
from ssodkit.data.stored import read_stored
from ssodkit.data.voc import read_voc
from ssodkit.data.writing import refuse_alike, write_coco, write_voc, write_yolo
from ssodkit.data.yolo import read_yolo
from ssodkit.errors import DataError

TABLE = (Category(2, "cat"), Category(7, "dog"))
NAMES = ["a.jpg", "in/a.png", "in/images/b 1.jpg", "empty.bmp"]
SIZES = [(40, 60), (333, 77), (500, 401), (9, 9)]


@pytest.fixture
def images(tmp_path) -> ImageSet:
    """Four images of unlike sizes, the last of them without a box; boxes have fractions, some touch the border."""
    random = np.random.RandomState(0)
    owners, boxes = [], []
    for place, (height, width) in enumerate(SIZES):
        file = tmp_path / "pictures" / NAMES[place]
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (width, height)).save(file)
        if place < 3:
            corners = random.uniform(0, 1, (20, 2, 2)).astype(np.float32)
            corners.sort(axis=1)
            corners[0] = [[0, 0], [1, 1]]
            corners[:, 1] = np.maximum(corners[:, 1], corners[:, 0] + 0.05).clip(max=1)
            boxes.append((corners * [width, height]).reshape(-1, 4))
            owners += [place] * 20
    return make_image_set(
        tmp_path / "pictures", NAMES, [9, 4, 30, 1], SIZES, TABLE, owners, np.concatenate(boxes),
        random.randint(0, 2, 60), scores=random.uniform(0, 1, 60),
    )  # fmt: skip


def facts(images: ImageSet) -> dict[str, tuple[list[str], np.ndarray]]:
    """By file name, the classes and the boxes of each image."""
    answer = {}
    for index in range(len(images)):
        rows = slice(*images.offsets[index : index + 2].tolist())
        kinds = [images.categories[label].name for label in images.labels[rows]]
        real = os.path.realpath(images.path(index))
        answer[os.path.basename(real)] = kinds, images.boxes[rows]
    return answer


def assert_equal(one: ImageSet, other: ImageSet, pixels: float) -> None:
    mine, theirs = facts(one), facts(other)
    assert sorted(mine) == sorted(theirs)
    for name, (kinds, boxes) in mine.items():
        assert kinds == theirs[name][0]
        np.testing.assert_allclose(boxes, theirs[name][1], rtol=0, atol=pixels)
    assert one.boxes_per_image().min() == 0


def test_formats__voc_to_yolo_to_coco_and_back_keep_images_classes_and_boxes(images, tmp_path):
    folders = [tmp_path / name for name in ("voc", "yolo", "again")]
    for folder in folders:
        folder.mkdir()
    assert write_voc(folders[0], images) == []
    voc = read_voc(VocSource(root=folders[0], split="train"))
    assert_equal(images, voc, pixels=0.5)

    assert write_yolo(folders[1], voc) == []
    yolo = read_yolo(YoloSource(root=folders[1]))
    assert_equal(voc, yolo, pixels=0.001)

    write_coco(tmp_path / "coco.json", yolo, {})
    coco = read_coco(tmp_path / "coco.json", yolo.root)
    assert_equal(yolo, coco, pixels=0)

    write_voc(folders[2], coco)
    again = read_voc(VocSource(root=folders[2]))
    assert_equal(voc, again, pixels=0)
    assert_equal(images, again, pixels=0.5)
    assert again.sizes.tolist() == read_voc(VocSource(root=folders[0])).sizes.tolist()
    assert (voc.notes, yolo.notes[1:], coco.notes, again.notes) == ((), (), (), ())


def test_write_voc__is_what_the_devkit_has(images, tmp_path):
    (tmp_path / "out").mkdir()
    write_voc(tmp_path / "out", images)
    root = ElementTree.parse(tmp_path / "out" / "Annotations" / "in" / "a.xml").getroot()
    assert [root.findtext(f"size/{side}") for side in ("width", "height", "depth")] == ["77", "333", "3"]
    assert root.findtext("filename") == "a.png"
    first = root.find("object")
    assert first is not None
    corners = [first.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
    assert corners == ["1", "1", "77", "333"]
    assert (tmp_path / "out" / "ImageSets" / "Main" / "train.txt").read_text().split("\n")[:2] == ["a", "in/a"]
    assert (tmp_path / "out" / "JPEGImages" / "in" / "a.png").samefile(tmp_path / "pictures" / "in" / "a.png")


def test_write_yolo__is_what_ultralytics_reads(images, tmp_path):
    (tmp_path / "out").mkdir()
    write_yolo(tmp_path / "out", images)
    document = yaml.safe_load((tmp_path / "out" / "data.yaml").read_text())
    assert document == {"train": "images", "nc": 2, "names": {0: "cat", 1: "dog"}}
    labels = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out" / "labels").rglob("*.txt"))
    assert labels == ["labels/a.txt", "labels/empty.txt", "labels/in/a.txt", "labels/in/images_/b 1.txt"]
    assert (tmp_path / "out" / "labels" / "empty.txt").read_text() == ""
    label, *shares = (tmp_path / "out" / "labels" / "a.txt").read_text().split("\n")[0].split()
    assert (int(label), [float(share) for share in shares]) == (images.labels[0], [0.5, 0.5, 1.0, 1.0])


@pytest.mark.parametrize(
    ("flag", "voc", "yolo"),
    [
        ("crowd", ["1 crowd boxes are tagged difficult"], ["1 crowd and difficult boxes are left out, which YOLO ca"]),
        ("difficult", [], ["1 crowd and difficult boxes are left out, which YOLO ca"]),
    ],
)
def test_writing__what_has_no_place_in_a_format_is_told(tmp_path, flag, voc, yolo):
    (tmp_path / "x.png").touch()
    images = make_image_set(
        tmp_path, ["x.png"], [1], [(10, 10)], TABLE, [0, 0], [[1, 1, 5, 5]] * 2, [0, 1], **{flag: [True, False]}
    )
    for name in ("voc", "yolo"):
        (tmp_path / name).mkdir()
    assert write_voc(tmp_path / "voc", images) == voc
    assert [note[:54] for note in write_yolo(tmp_path / "yolo", images)] == [note[:54] for note in yolo]
    assert read_voc(VocSource(root=tmp_path / "voc")).difficult.tolist() == [True, False]
    assert (tmp_path / "yolo" / "labels" / "x.txt").read_text().startswith("1 ")


def test_write_voc__a_box_thinner_than_a_pixel_has_one(tmp_path):
    (tmp_path / "out").mkdir()
    boxes = [[2.2, 2.2, 2.4, 2.4], [9.7, 0, 10, 10], [0, 0, 0.2, 10]]
    images = make_image_set(tmp_path, ["x.png"], [1], [(10, 10)], TABLE, [0, 0, 0], boxes, [0, 0, 0])
    (tmp_path / "x.png").touch()
    write_voc(tmp_path / "out", images)
    assert read_voc(VocSource(root=tmp_path / "out")).boxes.tolist() == [[2, 2, 3, 3], [9, 0, 10, 10], [0, 0, 1, 10]]


def test_writing__no_image_at_all_is_a_folder_that_says_so(tmp_path):
    nothing = make_image_set(Path(), [], [], [], TABLE)
    for name, write in (("voc", write_voc), ("yolo", write_yolo)):
        (tmp_path / name).mkdir()
        assert write(tmp_path / name, nothing) == []
    assert (tmp_path / "voc" / "ImageSets" / "Main" / "train.txt").read_text() == ""
    assert list((tmp_path / "yolo" / "labels").iterdir()) == []


def test_writing__names_that_a_format_cannot_hold_are_refused(tmp_path):
    images = make_image_set(tmp_path, ["a.jpg", "a.png", "b.jpg"], [1, 2, 3], [(9, 9)] * 3, (Category(1, "a\x01"),))
    with pytest.raises(DataError, match=r"images that would have one label file: a\.jpg, a\.png\. Rename"):
        refuse_alike(images)
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match=r"class names that XML cannot hold: 'a\\x01'"):
        write_voc(tmp_path / "out", images.subset([0, 2]))
    assert not any((tmp_path / "out").iterdir())


def test_write_coco__reads_back_as_the_same_numbers(tmp_path):
    random = np.random.RandomState(0)
    corners = random.uniform(0.0, 600.0, size=(200, 2))
    boxes = np.concatenate([corners, corners + random.uniform(0.1, 700.0, size=(200, 2))], axis=1).astype(np.float32)
    boxes[0] = [300.1, 700.3, 1000.3, 1300.6]
    images = make_image_set(
        Path("root"), ["a.jpg", "empty.jpg", "ü/b.jpg"], [30, 7, 12], [(1400, 1400)] * 3, TABLE,
        random.choice([0, 2], size=200), boxes, random.randint(0, 2, 200),
        scores=random.uniform(0.0, 1.0, 200),
    )  # fmt: skip
    write_coco(tmp_path / "labels.json", images, {"network": "teacher"})
    again, info = read_stored(tmp_path / "labels.json")
    assert info == {"network": "teacher"}
    assert [again.name(index) for index in range(3)] == ["a.jpg", "empty.jpg", "ü/b.jpg"]
    for field in ("ids", "sizes", "offsets", "boxes", "labels", "scores"):
        assert np.array_equal(getattr(again, field), getattr(images, field)), field
    assert (again.categories, again.notes) == (TABLE, ())
    document = json.loads((tmp_path / "labels.json").read_text())
    assert {row["category_id"] for row in document["annotations"]} == {2, 7}


def test_write_coco__in_16_bits_boxes_would_move():
    stored = np.array([1000.3, 1300.6, 700.3, 300.1], dtype=np.float16).astype(np.float64)
    assert stored.tolist() == [1000.5, 1301.0, 700.5, 300.0]


def test_write_coco__of_no_image_is_read_back(tmp_path):
    write_coco(tmp_path / "labels.json", make_image_set(Path(), [], [], [], TABLE), {})
    again, _ = read_stored(tmp_path / "labels.json")
    assert (len(again), len(again.boxes), again.categories) == (0, 0, TABLE)

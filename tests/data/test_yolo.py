import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from ssodkit.data.annotations import ImageSet
from ssodkit.data.config import DataConfig, YoloSource
from ssodkit.data.sets import open_data
from ssodkit.data.yolo import read_yolo
from ssodkit.errors import DataError

ROW = "1 0.5 0.5 0.5 0.25\n"
"""Of the 60 x 40 images here, the box 15, 15, 45, 25."""


def write(root: Path, files: dict[str, str | None]) -> Path:
    """Texts at their paths; None is an image of 60 x 40."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            Image.new("RGB", (60, 40)).save(path)
        else:
            path.write_text(text)
    return root


def read(root: Path, labeled: bool = True, **fields: object) -> ImageSet:
    return read_yolo(YoloSource.model_validate({"root": root, **fields}), labeled=labeled)


def refusal(root: Path, **fields: object) -> str:
    with pytest.raises(DataError) as caught:
        read(root, **fields)
    return str(caught.value)


def names_of(images: ImageSet) -> list[str]:
    return [images.path(index).name for index in range(len(images))]


@pytest.fixture
def pair(tmp_path) -> Callable[[str], Path]:
    """A folder with two classes and one image, whose label file has these rows."""

    def make(rows: str) -> Path:
        return write(tmp_path, {"classes.txt": "cat\ndog\n", "images/a.jpg": None, "labels/a.txt": rows})

    return make


def test_read_yolo__shares_become_pixels_of_the_image(pair):
    images = read(pair(f"{ROW}0 0.25 0.25 0.5 0.5\n\n"))
    assert images.boxes.tolist() == [[15, 15, 45, 25], [0, 0, 30, 20]]
    assert [(category.id, category.name) for category in images.categories] == [(0, "cat"), (1, "dog")]
    assert images.labels.tolist() == [1, 0]
    assert images.sizes.tolist() == [[40, 60]]
    assert images.notes == ()


def test_read_yolo__shares_are_of_the_upright_image(tmp_path):
    write(tmp_path, {"classes.txt": "cat\ndog\n", "images/a.jpg": None, "labels/a.txt": ROW})
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 40)).save(tmp_path / "images" / "a.jpg", exif=exif)
    images = read(tmp_path)
    assert images.sizes.tolist() == [[60, 40]]
    assert images.boxes.tolist() == [[10, 22.5, 30, 37.5]]


@pytest.mark.parametrize(
    ("layout", "split"),
    [
        ({"images/x/a.jpg": None, "labels/x/a.txt": ROW, "classes.txt": "cat\ndog"}, None),
        ({"images/train/a.jpg": None, "labels/train/a.txt": ROW, "labels/classes.txt": "cat\ndog"}, "train"),
        ({"images/val/a.jpg": None, "labels/val/a.txt": ROW, "classes.txt": "cat\ndog"}, None),
        ({"valid/images/a.jpg": None, "valid/labels/a.txt": ROW, "classes.txt": "cat\ndog"}, "val"),
        ({"train/a.jpg": None, "train/a.txt": ROW, "train/classes.txt": "cat\ndog"}, "train"),
        ({"a.jpg": None, "a.txt": ROW, "classes.txt": "cat\ndog"}, None),
        ({"Images/a.jpg": None, "Labels/a.txt": ROW, "obj.names": "cat\ndog"}, None),
        ({"images/a.jpg": None, "labels/a.txt": ROW, "data.yaml": "names: [cat, dog]\ntrain: images\n"}, None),
        ({"images/a.jpg": None, "labels/a.txt": ROW, "data.yaml": "names: [cat, dog]\nval: images\n"}, "valid"),
    ],
)
def test_read_yolo__folders_are_found_in_any_of_the_usual_layouts(tmp_path, layout, split):
    images = read(write(tmp_path, layout), split=split)
    assert names_of(images) == ["a.jpg"]
    assert images.boxes.tolist() == [[15, 15, 45, 25]]
    assert [category.name for category in images.categories] == ["cat", "dog"]


@pytest.mark.parametrize(
    "text",
    [
        "train: images/train\nnames: [cat, dog]\nnc: 2\n",
        "path: .\ntrain: [images/train]\nnames: {0: cat, 1: dog}\n",
        "path: ../data\ntrain: images/train/\nnames:\n  1: dog\n  0: cat\n",
        "path: /nowhere/data\ntrain: images/train\nnames: [cat, dog]\ndownload: |\n  raise SystemExit\n",
        "train: ../images/train\nval: ../images/val\nnames: [cat, dog]\n",
        "train: list.txt\nnames: [cat, dog]\ntest:\n",
        "train: images\\train\nnames: [cat, dog]\n",
    ],
)
def test_read_yolo__a_data_yaml_is_read_as_ultralytics_reads_it(tmp_path, text):
    root = write(
        tmp_path / "data",
        {
            "data.yaml": text,
            "images/train/a.jpg": None,
            "images/train/b.png": None,
            "labels/train/b.txt": ROW,
            "list.txt": "./images/train/a.jpg\nimages/train/b.png\n",
        },
    )
    images = read(root / "data.yaml", split="train")
    assert names_of(images) == ["a.jpg", "b.png"]
    assert images.boxes_per_image().tolist() == [0, 1]
    assert f"{root / 'data.yaml'}: of 2 images 1 have no label file, and are images without boxes" in images.notes
    assert any("does not exist here" in note for note in images.notes) == ("nowhere" in text)


def test_read_yolo__several_folders_are_one_set(tmp_path):
    files: dict[str, str | None] = {"data.yaml": "train: [one/images, two/images]\nnames: [cat, dog]\n"}
    for part in ("one", "two"):
        files |= {f"{part}/images/a.jpg": None, f"{part}/labels/a.txt": ROW * (1 + (part == "two"))}
    images = read(write(tmp_path, files))
    assert [images.name(index) for index in range(2)] == ["one/images/a.jpg", "two/images/a.jpg"]
    assert images.boxes_per_image().tolist() == [1, 2]
    assert images.root == tmp_path


def test_read_yolo__relative_paths_stay_relative(tmp_path, monkeypatch):
    write(tmp_path, {"classes.txt": "cat\ndog\n", "images/a.jpg": None, "labels/a.txt": ROW})
    monkeypatch.chdir(tmp_path)
    images = read(Path())
    assert (str(images.path(0)), len(images.boxes)) == ("images/a.jpg", 1)
    monkeypatch.chdir(tmp_path / "images")
    assert len(read(Path(), classes=["cat", "dog"]).boxes) == 1


def test_read_yolo__classes_of_the_recipe_come_first_and_may_be_the_only_ones(tmp_path):
    write(tmp_path, {"images/a.jpg": None, "labels/a.txt": ROW})
    assert "no class names: neither a data.yaml nor a classes.txt has them" in refusal(tmp_path)
    assert [category.name for category in read(tmp_path, classes=["kite", "bird"]).categories] == ["kite", "bird"]
    write(tmp_path, {"classes.txt": "cat\ncat\n"})
    assert "class names given twice: 'cat'" in refusal(tmp_path)


def test_read_yolo__a_number_of_classes_without_names_names_them(tmp_path):
    write(tmp_path, {"images/a.jpg": None, "labels/a.txt": ROW, "data.yaml": "train: images\nnc: 2\n"})
    assert [category.name for category in read(tmp_path).categories] == ["class_0", "class_1"]


def test_read_yolo__names_are_texts_whatever_yaml_makes_of_them(tmp_path):
    write(tmp_path, {"images/a.jpg": None, "labels/a.txt": ROW, "data.yaml": "train: images\nnames: [no, 12]\n"})
    assert [category.name for category in read(tmp_path).categories] == ["no", "12"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("names: [cat, dog]\n", "is no data.yaml: it names no images as `train`, `val` or `test`"),
        ("- cat\n", "is no data.yaml"),
        ("", "is no data.yaml"),
        ("train: [\n", "is no YAML"),
        ("train: " + "[" * 5000, "is no YAML"),
        (
            "train: images\nval: images\nnames: [cat, dog]\n",
            "has several splits. It has train, val: name one as `split`",
        ),
        ("train: elsewhere\nnames: [cat, dog]\n", "'elsewhere' does not exist; looked for"),
        ("train: {a: b}\nnames: [cat, dog]\n", "`path` and splits must be paths, and one is"),
        ("train: images\nnames: {1: cat, 2: dog}\n", "`names` must be numbered from 0 to 1, and has '2'"),
        ("train: images\nnames: [[cat], dog]\n", "`names` must be a list of texts"),
        ("train: images\nnames: [cat, dog]\nnc: 3\n", "`nc` is '3', and there are 2 `names`"),
        ("train: images\nnames: cat\n", "`names` must be a list of texts"),
    ],
)
def test_read_yolo__a_data_yaml_that_cannot_be_used_is_said(tmp_path, text, said):
    write(tmp_path, {"images/a.jpg": None, "labels/a.txt": ROW, "data.yaml": text})
    answer = refusal(tmp_path)
    assert said in answer
    assert "data.yaml" in answer


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("dog 0.5 0.5 0.5 0.5", "rows that are no class and box: {}:1 'dog 0.5 0.5 0.5 0.5'"),
        ("1 0.5 0.5 0.5", "rows that are no class and box"),
        ("1 0.5 0.5 0.5 0.5 0.5 0.5 0.5", "rows that are no class and box"),
        ("1,0.5,0.5,0.5,0.5", "rows that are no class and box"),
        ("2 0.5 0.5 0.5 0.5", "classes that are not from 0 to 1: {}:1"),
        ("-1 0.5 0.5 0.5 0.5", "classes that are not from 0 to 1"),
        ("0.5 0.5 0.5 0.5 0.5", "classes that are not from 0 to 1"),
        ("nan 0.5 0.5 0.5 0.5", "classes that are not from 0 to 1"),
        ("1 0.5 nan 0.5 0.5", "coordinates that are not from 0 to 1: {}:1 '1 0.5 nan 0.5 0.5'"),
        ("1 30 20 30 10", "coordinates that are not from 0 to 1"),
        ("1 0.5 0.5 0.5 -0.5", "coordinates that are not from 0 to 1"),
        ("1 0.5 0.5 inf 0.5", "coordinates that are not from 0 to 1"),
        ("1 0.5 0.5 0 0.5", "boxes without width or height: {}:1."),
        ("1 0.5 0.5 0.5 0.5 0.5 0.5", "boxes without width or height: {}:1."),  # an outline of a point, thrice
    ],
)
def test_read_yolo__a_wrong_row_is_shown_with_file_and_line(pair, row, said):
    root = pair(row)
    assert said.format(root / "labels" / "a.txt") in refusal(root)


def test_read_yolo__all_wrong_rows_are_shown_at_once(pair):
    root = pair("0 0.5 0.5 0.5 0.5\nx\n2 0.5 0.5 0.1 0.1\n1 2 0.5 0.1 0.1\nx y\n")
    first, *lines = refusal(root).splitlines()
    assert first == f"{root} has 3 kinds of mistakes:"
    file = root / "labels" / "a.txt"
    assert f"rows that are no class and box (2 in all): {file}:2 'x', {file}:5 'x y'" in lines[0]
    assert f"{file}:3" in lines[1]
    assert f"{file}:4" in lines[2]


def test_read_yolo__boxes_without_size_are_dropped_where_the_recipe_says_so(pair):
    images = read(pair(f"{ROW}1 0.5 0.5 0 0.5\n"), zero_size_boxes="drop")
    assert len(images.boxes) == 1
    assert "1 boxes without width or height were dropped" in images.notes[0]


def test_read_yolo__rounding_beyond_the_border_is_clipped(pair):
    images = read(pair("1 0.75 0.5 0.5000004 1.0\n1 1.001 0.5 0.1 0.1\n"))
    assert images.boxes[0].tolist() == [pytest.approx(30, abs=1e-3), 0, 60, 40]
    assert len(images.notes) == 1


def test_read_yolo__an_outline_becomes_its_box_and_a_score_is_passed_over(pair):
    images = read(pair("0 0.5 0.25 0.75 0.5 0.5 0.75 0.25 0.5\n1 0.5 0.5 0.5 0.25 0.93\n"))
    assert images.boxes.tolist() == [[15, 10, 45, 30], [15, 15, 45, 25]]
    assert "1 rows are outlines, and became the boxes around them" in images.notes[0]
    assert "1 rows have a number behind the box" in images.notes[1]
    assert images.scores.tolist() == [1, 1]


def test_read_yolo__missing_and_empty_label_files_are_counted(tmp_path):
    write(tmp_path, {f"images/{name}.jpg": None for name in "abcd"})
    write(tmp_path, {"labels/a.txt": ROW, "labels/b.txt": "", "labels/c.txt": " \n", "classes.txt": "cat\ndog"})
    images = read(tmp_path)
    assert images.boxes_per_image().tolist() == [1, 0, 0, 0]
    said = "of 4 images 1 have no label file, 2 an empty one, and are images without boxes"
    assert images.notes == (f"{tmp_path}: {said}",)


def test_read_yolo__without_any_label_file_it_is_refused_unless_images_are_unlabeled(tmp_path):
    write(tmp_path, {"images/a.jpg": None, "classes.txt": "cat"})
    assert "no label file: none of its 1 images has one" in refusal(tmp_path)
    assert len(read(tmp_path, labeled=False)) == 1
    (tmp_path / "classes.txt").unlink()
    assert read(tmp_path, labeled=False).categories == ()


@pytest.mark.parametrize(
    ("files", "fields", "said"),
    [
        ({}, {"root": "absent"}, "absent does not exist. YOLO data is"),
        ({"a.txt": "x"}, {"root": "a.txt"}, "is no data.yaml. YOLO data is"),
        ({"a.txt": "x"}, {}, "holds no image, nor do its subfolders"),
        ({"images/train/a.jpg": None, "images/val/b.jpg": None}, {}, "several splits. It has train, val"),
        ({"images/train/a.jpg": None}, {"split": "test"}, "no split 'test'. It has train: name one as `split`"),
        ({"images/a.jpg": None}, {"split": "train"}, "no split 'train'. It has none: leave `split` out"),
        ({"data.yaml": "train: l.txt\nnames: [a]", "l.txt": "a.jpg\nb.jpg"}, {}, "image files that do not exist, of 2"),
        ({"data.yaml": "train: l.txt\nnames: [a]", "l.txt": "a\0"}, {}, "is no list of image files: it holds a NUL"),
    ],
)
def test_read_yolo__images_that_cannot_be_found_are_said(tmp_path, files, fields, said):
    write(tmp_path, files)
    root = tmp_path / fields.pop("root", "") if "root" in fields else tmp_path
    assert said in refusal(root, **fields)


def test_read_yolo__broken_images_and_labels_are_all_named(tmp_path):
    write(tmp_path, {"classes.txt": "cat\ndog", "images/a.jpg": "no image", "images/b.jpg": "", "labels/a.txt": ROW})
    text = refusal(tmp_path)
    assert "images whose size cannot be read (2 in all)" in text
    assert all(str(tmp_path / "images" / name) in text for name in ("a.jpg", "b.jpg"))
    (tmp_path / "labels" / "a.txt").write_bytes(b"\xff\xff\n")
    assert f"label files that cannot be read: {tmp_path / 'labels' / 'a.txt'} (no UTF-8 text" in refusal(tmp_path)
    (tmp_path / "labels" / "a.txt").unlink()
    os.mkfifo(tmp_path / "labels" / "a.txt")
    assert "It is a pipe or a device" in refusal(tmp_path)


def test_open_data__yolo_sets_are_joined_by_name_and_progress_is_told(tmp_path):
    train = write(tmp_path / "a", {"classes.txt": "cat\ndog\n", "images/a.jpg": None, "labels/a.txt": ROW})
    test = write(tmp_path / "b", {"classes.txt": "dog\ncat\n", "images/b.jpg": None, "labels/b.txt": ROW})
    config = DataConfig.model_validate(
        {"train": {"type": "yolo", "root": train}, "test": {"type": "yolo", "root": test}, "batch": {"labeled": 1}}
    )
    done: list[tuple[int, int]] = []
    sets = open_data(config, lambda *progress: done.append(progress))
    assert (sets.labeled.labels.tolist(), sets.test.labels.tolist()) == ([1], [0])
    assert done == [(1, 1), (1, 1)]

import copy
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ssodkit.data.annotations import ImageSet
from ssodkit.data.coco import read_coco
from ssodkit.errors import DataError

DOCUMENT: dict[str, Any] = {
    "images": [
        {"id": 9, "file_name": "nine.jpg", "height": 40, "width": 60},
        {"id": 4, "file_name": "four.png", "height": 50, "width": 50},
    ],
    "annotations": [
        {"id": 1, "image_id": 4, "category_id": 90, "bbox": [1, 2, 10, 20.5], "area": 77.5, "iscrowd": 0},
        {"id": 2, "image_id": 9, "category_id": 3, "bbox": [0, 0, 60, 40], "iscrowd": 1, "segmentation": [[1, 2]]},
        {"id": 3, "image_id": 4, "category_id": 3, "bbox": [5, 5, 5, 5]},
    ],
    "categories": [{"id": 3, "name": "cat"}, {"id": 90, "name": "dog"}],
}


def changed(**edits: Any) -> dict[str, Any]:
    """The document with entries edited: `images_0={"id": 5}` updates the first image."""
    document = copy.deepcopy(DOCUMENT)
    for place, edit in edits.items():
        key, number = place.rsplit("_", 1)
        document[key][int(number)].update(edit)
    return document


def read(folder: Path, document: Any, **options: Any) -> ImageSet:
    file = folder / "annotations.json"
    file.write_text(document if isinstance(document, str) else json.dumps(document))
    Image.new("RGB", (60, 40)).save(folder / "nine.jpg")
    Image.new("RGB", (50, 50)).save(folder / "four.png")
    return read_coco(file, folder, **options)


def refusal(folder: Path, document: Any, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(folder, document, **options)
    assert "annotations.json" in str(caught.value)
    return str(caught.value)


def test_read_coco__keeps_the_order_of_the_file(tmp_path):
    images = read(tmp_path, DOCUMENT)
    assert images.ids.tolist() == [9, 4]
    assert images.sizes.tolist() == [[40, 60], [50, 50]]
    assert images.path(1) == tmp_path / "four.png"
    assert images.boxes.tolist() == [[0, 0, 60, 40], [1, 2, 11, 22.5], [5, 5, 10, 10]]
    assert images.areas.tolist() == [2400, 77.5, 25]
    assert images.crowd.tolist() == [True, False, False]
    assert images.notes == ()


def test_read_coco__category_ids_with_gaps_become_labels_and_go_back(tmp_path):
    images = read(tmp_path, DOCUMENT)
    assert images.labels.tolist() == [0, 1, 0]
    assert images.category_ids[images.labels].tolist() == [3, 90, 3]


def test_read_coco__an_image_without_boxes_stays(tmp_path):
    document = changed()
    document["annotations"] = []
    assert read(tmp_path, document).boxes_per_image().tolist() == [0, 0]


def test_read_coco__a_box_beyond_the_border_is_clipped_and_counted(tmp_path):
    images = read(tmp_path, changed(annotations_0={"bbox": [-5, 40, 20, 20]}))
    assert images.boxes[1].tolist() == [0, 40, 15, 50]
    assert "1 boxes beyond the border of their image were clipped" in images.notes[0]


def test_read_coco__a_box_outside_its_image_is_dropped_and_counted(tmp_path):
    images = read(tmp_path, changed(annotations_0={"bbox": [50, 0, 20, 20]}))
    assert images.boxes_per_image().tolist() == [1, 1]
    assert "1 boxes outside their image were dropped" in images.notes[0]


def test_read_coco__rounding_of_the_file_is_not_counted(tmp_path):
    images = read(tmp_path, changed(annotations_1={"bbox": [0, 0, 60.004, 40]}))
    assert images.boxes[0].tolist() == [0, 0, 60, 40]
    assert images.notes == ()


@pytest.mark.parametrize("box", [[1, 1, 0, 5], [1, 1, 5, 0.0], [1, 1, -3, 5], [1, 1, 5, -3]])
def test_read_coco__a_box_without_width_or_height_is_refused(tmp_path, box):
    text = refusal(tmp_path, changed(annotations_2={"bbox": box}))
    assert "annotation 3 (image 4)" in text
    assert str(box) in text
    assert "zero_size_boxes: drop" in text


def test_read_coco__all_boxes_without_size_are_counted_and_the_first_few_named(tmp_path):
    document = changed()
    document["annotations"] = [
        {"id": number, "image_id": 4, "category_id": 3, "bbox": [1, 1, 0, 1]} for number in range(12)
    ]
    text = refusal(tmp_path, document)
    assert "(12 in all)" in text
    assert "annotation 4 " in text
    assert "annotation 5 " not in text
    assert "and 7 more" in text


def test_read_coco__boxes_without_size_are_dropped_where_the_recipe_says_so(tmp_path):
    images = read(tmp_path, changed(annotations_2={"bbox": [1, 1, 5, -1]}), zero_size="drop")
    assert images.boxes_per_image().tolist() == [1, 1]
    assert "1 boxes without width or height were dropped" in images.notes[0]


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 1e308 * 10])
def test_read_coco__coordinates_that_are_no_numbers_are_refused(tmp_path, number):
    text = refusal(tmp_path, changed(annotations_2={"bbox": [1, 1, number, 5]}), zero_size="drop")
    assert "annotation 3 (image 4)" in text
    assert "not four finite numbers of pixels" in text


@pytest.mark.parametrize("box", [[1, 2, 3], [1, 2, 3, "4"], {"x": 1}, [True, 1, 1, 1]])
def test_read_coco__a_box_that_is_not_four_numbers_is_refused(tmp_path, box):
    text = refusal(tmp_path, changed(annotations_2={"bbox": box}))
    assert "annotation 3 (image 4)" in text
    assert "not four finite numbers of pixels" in text


def test_read_coco__a_duplicate_image_id_names_both_files(tmp_path):
    text = refusal(tmp_path, changed(images_1={"id": 9}))
    assert "same image id" in text
    assert "9 is images[0] ('nine.jpg') and images[1] ('four.png')" in text


def test_read_coco__a_duplicate_file_name_names_both_images(tmp_path):
    text = refusal(tmp_path, changed(images_1={"file_name": "nine.jpg"}))
    assert "'nine.jpg' is image 9 and image 4" in text


def test_read_coco__a_duplicate_annotation_id_names_both(tmp_path):
    text = refusal(tmp_path, changed(annotations_1={"id": 1}))
    assert "same annotation id" in text
    assert "1 is annotation 1 (image 4) and annotation 1 (image 9)" in text


def test_read_coco__duplicate_categories_are_refused(tmp_path):
    assert "3 is 'cat' and 'dog'" in refusal(tmp_path, changed(categories_1={"id": 3}))
    assert "'cat' is category 3 and category 90" in refusal(tmp_path, changed(categories_1={"name": "cat"}))


def test_read_coco__an_unknown_category_or_image_is_refused(tmp_path):
    assert "annotation 2 (image 9) names category 5" in refusal(tmp_path, changed(annotations_1={"category_id": 5}))
    assert "annotation 2 (image 5) names image 5" in refusal(tmp_path, changed(annotations_1={"image_id": 5}))


def test_read_coco__missing_image_files_are_all_counted_and_named(tmp_path):
    document = changed(images_0={"file_name": "gone.jpg"}, images_1={"file_name": "Four.PNG"})
    with pytest.raises(DataError) as caught:
        read(tmp_path, document)
    text = str(caught.value)
    assert "image files that do not exist, of 2 (2 in all)" in text
    assert str(tmp_path / "gone.jpg") in text
    assert "there is 'four.png': other letter case" in text


def test_read_coco__a_missing_image_folder_is_said(tmp_path):
    (tmp_path / "annotations.json").write_text(json.dumps(DOCUMENT))
    with pytest.raises(DataError, match="nowhere"):
        read_coco(tmp_path / "annotations.json", tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ([], "holds a list"),
        ({"shapes": []}, "no list 'images'; it has: 'shapes'"),
        ({"images": [], "annotations": []}, "no list 'categories'"),
        ({"images": [3], "annotations": [], "categories": []}, "entries that are not objects: images[0] is 3"),
        ({"images": [], "annotations": [], "categories": []}, "cannot be used: it has 0 of them"),
        ("not json", "is no JSON"),
        ('{"images": [', "is no JSON"),
    ],
)
def test_read_coco__a_file_that_is_not_coco_is_refused(tmp_path, document, said):
    assert said in refusal(tmp_path, document)


def test_read_coco__a_missing_annotation_file_is_said(tmp_path):
    with pytest.raises(DataError, match=r"absent\.json cannot be read: No such file"):
        read_coco(tmp_path / "absent.json", tmp_path)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        ({"images_0": {"id": "nine"}}, "images[0] has 'id' 'nine'"),
        ({"images_0": {"width": None}}, "height 40 and width None"),
        ({"images_0": {"height": 0}}, "height 0 and width 60"),
        ({"images_0": {"file_name": 7}}, "images[0] has 'file_name' 7"),
        ({"annotations_0": {"iscrowd": "0"}}, "neither 0 nor 1: annotation 1 (image 4) has 'iscrowd' '0'"),
        ({"annotations_0": {"id": None}}, "annotations[0] has 'id' None"),
        ({"annotations_0": {"area": -1}}, "annotation 1 (image 4) has the area -1"),
        ({"annotations_0": {"area": float("nan")}}, "annotation 1 (image 4) has the area nan"),
        ({"categories_0": {"name": ""}}, "categories[0] has 'name' ''"),
    ],
)
def test_read_coco__entries_of_the_wrong_kind_are_refused(tmp_path, edit, said):
    assert said in refusal(tmp_path, changed(**edit))


def test_read_coco__unlabeled_images_need_no_annotations(tmp_path):
    images = read(tmp_path, {"images": DOCUMENT["images"]}, labeled=False)
    assert images.ids.tolist() == [9, 4]
    assert images.categories == ()


def test_read_coco__annotations_of_unlabeled_images_are_read_where_they_are(tmp_path):
    assert len(read(tmp_path, DOCUMENT, labeled=False).boxes) == 3


def test_read_coco__a_large_file_keeps_every_box(tmp_path):
    count = 2000
    document = {
        "images": [{"id": n, "file_name": f"{n}.jpg", "height": 100, "width": 100} for n in range(count)],
        "annotations": [
            {"id": n, "image_id": (7 * n) % count, "category_id": n % 3, "bbox": [n % 50, 1, 10, 10]}
            for n in range(4 * count)
        ],
        "categories": [{"id": n, "name": str(n)} for n in range(3)],
    }
    for number in range(count):
        (tmp_path / f"{number}.jpg").touch()
    (tmp_path / "annotations.json").write_text(json.dumps(document))
    images = read_coco(tmp_path / "annotations.json", tmp_path)
    assert images.boxes_per_image().tolist() == [4] * count
    given = {(a["image_id"], a["category_id"], a["bbox"][0]) for a in document["annotations"]}
    owner = np.repeat(images.ids, images.boxes_per_image())
    kept = zip(owner.tolist(), images.labels.tolist(), images.boxes[:, 0].tolist(), strict=True)
    assert set(kept) == given


def test_read_coco__shows_all_kinds_of_mistakes_at_once(tmp_path):
    document = changed(
        images_1={"file_name": "gone.png"},
        annotations_0={"bbox": [1, 1, 0, 5], "category_id": 5},
        annotations_1={"iscrowd": 2},
        annotations_2={"bbox": "wide", "area": -1},
    )
    first, *lines = refusal(tmp_path, document).splitlines()
    assert first.endswith("annotations.json has 6 kinds of mistakes:")
    assert [line.split(":")[0].strip() for line in lines] == [
        "image files that do not exist, of 2",
        "annotations that name a category which the file does not list",
        "boxes that are not four finite numbers of pixels",
        "boxes without width or height",
        "'area' that is no finite number of 0 or more",
        "'iscrowd' that is neither 0 nor 1",
    ]


DEEP = "[" * 100_000 + "]" * 100_000
LONG = "1" * 5000


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (DEEP, "nested too deeply"),
        (json.dumps(DOCUMENT).replace("77.5", DEEP), "nested too deeply"),
        (json.dumps(DOCUMENT).replace("77.5", LONG), "a whole number of more than 4,300 digits"),
        (json.dumps(DOCUMENT).replace("20.5", "1" + "0" * 400), "not four finite numbers of pixels: annotation 1"),
        (json.dumps(DOCUMENT).replace("20.5", "1e300"), "not four finite numbers of pixels: annotation 1"),
        (json.dumps(DOCUMENT).replace("77.5", "1" + "0" * 400), "annotation 1 (image 4) has the area 1000"),
        (json.dumps(DOCUMENT).replace("77.5", "1e300"), "annotation 1 (image 4) has the area 1e+300"),
        (json.dumps(DOCUMENT).replace("nine.jpg", "\\ud800"), r"images[0] has 'file_name' '\ud800'"),
        (json.dumps(DOCUMENT).replace('"cat"', '"\\udc80"'), r"categories[0] has 'name' '\udc80'"),
        (json.dumps(DOCUMENT)[:-1] + ', "annotations": []}', "the same key stands twice in one object: 'annotations'"),
        (
            json.dumps(DOCUMENT).replace('"id": 9,', '"id": 9, "id": 8,'),
            "'id' in {'file_name': 'nine.jpg'",
        ),
        (json.dumps({**DOCUMENT, "images": [DOCUMENT["images"]]}), "images[0] is [{"),
    ],
)
def test_read_coco__text_that_python_stumbles_over_is_refused(tmp_path, text, said):
    assert said in refusal(tmp_path, text)


def test_read_coco__more_categories_than_labels_can_count_are_refused(tmp_path):
    document = {**DOCUMENT, "categories": [{"id": number, "name": str(number)} for number in range(40_000)]}
    assert "it has 40,000 of them. Learning needs a category, and at most 32,767" in refusal(tmp_path, document)


def test_read_coco__a_byte_order_mark_is_passed_over(tmp_path):
    assert len(read(tmp_path, "\ufeff" + json.dumps(DOCUMENT))) == 2


def test_read_coco__a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(DataError, match=r"pipe\.json cannot be read: It is a pipe or a device"):
        read_coco(tmp_path / "pipe.json", tmp_path)


def test_read_coco__what_is_no_file_is_no_image(tmp_path):
    read(tmp_path, DOCUMENT)
    (tmp_path / "nine.jpg").unlink()
    (tmp_path / "four.png").unlink()
    os.mkfifo(tmp_path / "nine.jpg")
    (tmp_path / "four.png").symlink_to("four.png")
    with pytest.raises(DataError, match=r"links that lead nowhere \(2 in all\): .*nine\.jpg, .*four\.png"):
        read_coco(tmp_path / "annotations.json", tmp_path)


NULL = [{"bbox": None}, {"bbox": []}, {"bbox": None, "category_id": None}]


@pytest.mark.parametrize("edit", NULL)
def test_read_coco__an_annotation_without_a_box_is_an_image_without_one(tmp_path, edit):
    images = read(tmp_path, changed(annotations_2=edit))
    assert images.boxes_per_image().tolist() == [1, 1]
    assert "1 annotations without box or outline are left out" in images.notes[0]


@pytest.mark.parametrize(
    "outline", [[[5, 7, 15, 30, 9, 9]], [[5, 7, 6, 8, 9, 9], [12, 30, 15, 9, 7, 8]], [5, 7, 15, 30, 9, 9]]
)
def test_read_coco__an_outline_alone_becomes_its_box(tmp_path, outline):
    document = changed(annotations_2={"segmentation": outline})
    del document["annotations"][2]["bbox"]
    images = read(tmp_path, document)
    assert images.boxes[2].tolist() == [5, 7, 15, 30]
    assert "1 annotations have only an outline, and became the box around it" in images.notes[0]


@pytest.mark.parametrize("outline", [{"size": [4, 4], "counts": "04"}, [[1, 2]], [[1, 2, 3, 4, 5, "6"]], "outline"])
def test_read_coco__an_outline_that_is_no_list_of_corners_needs_a_box(tmp_path, outline):
    text = refusal(tmp_path, changed(annotations_2={"bbox": None, "segmentation": outline}))
    assert "annotation 3 (image 4) 'an outline that is no list of corners'" in text
    assert read(tmp_path, changed(annotations_2={"segmentation": outline})).notes == ()


def test_read_coco__numbers_may_be_written_as_text_or_with_a_point(tmp_path):
    document = changed(
        images_0={"id": "9"},
        images_1={"id": 4.0},
        categories_1={"id": "90.0"},
        annotations_0={"id": "1", "image_id": "4"},
    )
    images = read(tmp_path, document)
    assert images.ids.tolist() == [9, 4]
    assert images.boxes_per_image().tolist() == [1, 2]
    assert images.category_ids.tolist() == [3, 90]
    assert "images[0] has 'id' '9.5'" in refusal(tmp_path, changed(images_0={"id": "9.5"}))


def test_read_coco__an_area_may_be_null(tmp_path):
    assert read(tmp_path, changed(annotations_0={"area": None})).areas[1] == 205


def test_read_coco__categories_from_zero_and_a_heading_of_roboflow(tmp_path):
    names = [("animals", "none"), ("cat", "animals"), ("dog", "animals")]
    listing = [{"id": place, "name": name, "supercategory": above} for place, (name, above) in enumerate(names)]
    document = changed(**{f"annotations_{row}": {"category_id": 1 + row % 2} for row in range(3)})
    images = read(tmp_path, {**document, "categories": listing})
    assert [(category.id, category.name) for category in images.categories] == [(1, "cat"), (2, "dog")]
    assert "1 categories without a box that are headings of others are left out ('animals')" in images.notes[0]
    document["annotations"][0]["category_id"] = 0
    assert len(read(tmp_path, {**document, "categories": listing}).categories) == 3


def test_read_coco__a_category_that_is_its_own_heading_stays(tmp_path):
    listing = [{**entry, "supercategory": entry["name"]} for entry in DOCUMENT["categories"]]
    assert len(read(tmp_path, {**DOCUMENT, "annotations": [], "categories": listing}).categories) == 2


def test_read_coco__sizes_that_the_file_does_not_say_are_read_from_the_images(tmp_path):
    document = changed(images_0={"width": None, "height": None})
    del document["images"][1]["width"], document["images"][1]["height"]
    images = read(tmp_path, document)
    assert images.sizes.tolist() == [[40, 60], [50, 50]]
    assert "the sizes of 2 images are not in it, and were read from them" in images.notes[0]
    (tmp_path / "nine.jpg").write_text("no image")
    with pytest.raises(
        DataError, match=r"without 'height' and 'width' that cannot be read either: the image .*nine\.jpg"
    ):
        read_coco(tmp_path / "annotations.json", tmp_path)


def names_like(*written: str) -> dict[str, Any]:
    """A document with these file names, as their tools write them: without info, licenses, areas and crowds."""
    images = [{"id": place, "file_name": name, "height": 40, "width": 60} for place, name in enumerate(written)]
    boxes = [{"id": place, "image_id": place, "category_id": 0, "bbox": [1, 1, 9, 9]} for place in range(len(written))]
    return {"images": images, "annotations": boxes, "categories": [{"id": 0, "name": "cat"}]}


def read_names(folder: Path, files: list[str], *written: str) -> ImageSet:
    for file in files:
        (folder / "pictures" / file).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (60, 40)).save(folder / "pictures" / file)
    (folder / "labels.json").write_text(json.dumps(names_like(*written)))
    return read_coco(folder / "labels.json", folder / "pictures")


@pytest.mark.parametrize(
    ("written", "way"),
    [
        ("/data/local-files/?d=in/a b.jpg", "by their paths without decoration"),
        ("/data/local-files/?d=home/me/pictures/in/a%20b.jpg&x=1", "by their paths without decoration"),
        ("in\\a b.jpg", "by their paths without decoration"),
        ("./in//a%20b.jpg", "by their paths without decoration"),
        ("..\\..\\pictures\\in\\a b.jpg", "by their paths without decoration"),
        ("s3://bucket/in/a b.jpg", "by their paths without decoration"),
        ("https://host/in/a%20b.jpg?signature=1", "by their paths without decoration"),
        ("/home/other/data/train/a b.jpg", "by the last part of their paths"),
        ("C:\\Users\\me\\a b.jpg", "by the last part of their paths"),
        ("a b.jpg", "by the last part of their paths"),
        ("/data/upload/1/3f2a9c1b-a_b.jpg", "by that without the prefix of an upload"),
        ("images\\3f2a9c1b-a_b.jpg", "by that without the prefix of an upload"),
        ("..\\..\\label-studio\\media\\upload\\4\\cb0618f6-a_b.jpg", "by that without the prefix of an upload"),
        ("images/3f2a9c1b__a_b.jpg", "by that without the prefix of an upload"),
    ],
)
def test_read_coco__names_of_labeling_tools_and_other_machines_are_found(tmp_path, written, way):
    images = read_names(tmp_path, ["in/a b.jpg", "in/c.jpg"], written, "in/c.jpg")
    assert [images.name(index) for index in range(2)] == ["in/a b.jpg", "in/c.jpg"]
    assert images.notes == (
        f"{tmp_path / 'labels.json'}: of 2 images, 1 by their names as they stand, 1 {way} were found",
    )


def test_read_coco__a_name_as_it_stands_comes_before_any_other(tmp_path):
    files = ["3f2a9c1b-a.jpg", "a.jpg", "in/a.jpg"]
    images = read_names(tmp_path, files, *files)
    assert [images.name(index) for index in range(3)] == files
    assert images.notes == ()


def test_read_coco__a_name_that_may_mean_two_images_names_both(tmp_path):
    with pytest.raises(DataError) as caught:
        read_names(tmp_path, ["one/a.jpg", "two/a.jpg"], "/data/upload/1/3f2a9c1b-a.jpg")
    assert "may mean several images: '/data/upload/1/3f2a9c1b-a.jpg' (one/a.jpg, two/a.jpg). Name" in str(caught.value)
    assert read_names(tmp_path, [], "/elsewhere/two/a.jpg").name(0) == "two/a.jpg"


def test_read_coco__two_names_that_mean_one_image_are_both_named(tmp_path):
    with pytest.raises(DataError) as caught:
        read_names(tmp_path, ["a.jpg"], "one/a.jpg", "two/a.jpg")
    assert "images that several names mean: a.jpg ('one/a.jpg', 'two/a.jpg')" in str(caught.value)


def test_read_coco__a_name_without_image_is_shown_as_it_is_written(tmp_path):
    with pytest.raises(DataError, match=r"image files that do not exist, of 2: .*/3f2a9c1b-b\.jpg\."):
        read_names(tmp_path, ["a.jpg"], "3f2a9c1b-a.jpg", "3f2a9c1b-b.jpg")

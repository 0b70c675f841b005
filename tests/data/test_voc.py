from pathlib import Path

import pytest
from PIL import Image

from ssodkit.data.annotations import ImageSet
from ssodkit.data.config import VocSource
from ssodkit.data.voc import read_voc
from ssodkit.errors import DataError

OBJECT = (
    "<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin>"
    "<xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox><part><name>head</name></part></object>"
)


def write_image(
    root: Path, name: str, objects: list[tuple[str, int, tuple[object, ...]]], size: object = (60, 40)
) -> None:
    """A VOC image with its annotation; `size` is width, height."""
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (60, 40)).save(root / "JPEGImages" / f"{name}.jpg")
    text = "".join(OBJECT.format(name=kind, difficult=difficult, box=box) for kind, difficult, box in objects)
    shape = "<size><width>{}</width><height>{}</height><depth>3</depth></size>".format(*size)
    (root / "Annotations" / f"{name}.xml").write_text(f"<annotation>{shape}{text}</annotation>")
    with (root / "ImageSets" / "Main" / "train.txt").open("a") as file:
        file.write(f"{name}\n")


def read(root: Path, **fields: object) -> ImageSet:
    return read_voc(VocSource.model_validate({"root": root, "split": "train", **fields}))


def refusal(root: Path, **fields: object) -> str:
    with pytest.raises(DataError) as caught:
        read(root, **fields)
    return str(caught.value)


def test_read_voc__boxes_count_from_zero_and_end_behind_the_last_pixel(tmp_path):
    write_image(tmp_path, "000005", [("dog", 0, (1, 1, 60, 40)), ("person", 1, (11, 5, 11, 8.5))])
    images = read(tmp_path)
    assert images.boxes.tolist() == [[0, 0, 60, 40], [10, 4, 11, 8.5]]
    assert [images.categories[label].name for label in images.labels] == ["dog", "person"]
    assert images.category_ids[images.labels].tolist() == [1, 2]
    assert images.difficult.tolist() == [False, True]
    assert images.sizes.tolist() == [[40, 60]]


def test_read_voc__image_ids_are_the_numbers_in_the_names(tmp_path):
    write_image(tmp_path, "2008_000002", [])
    write_image(tmp_path, "000007", [])
    assert read(tmp_path).ids.tolist() == [2008000002, 7]


def test_read_voc__images_with_other_names_are_counted(tmp_path):
    write_image(tmp_path, "street", [])
    write_image(tmp_path, "000007", [])
    assert read(tmp_path).ids.tolist() == [1, 2]


def test_read_voc__classes_are_those_of_the_annotations_sorted_or_as_they_are_given(tmp_path):
    write_image(tmp_path, "000005", [("kite", 0, (1, 1, 9, 9)), ("drone", 0, (1, 1, 9, 9)), ("kite", 0, (1, 1, 9, 9))])
    images = read(tmp_path)
    assert [(category.id, category.name) for category in images.categories] == [(1, "drone"), (2, "kite")]
    assert images.labels.tolist() == [1, 0, 1]
    images = read(tmp_path, classes=("kite", "bird", "drone"))
    assert images.labels.tolist() == [0, 2, 0]
    assert len(images.categories) == 3


def test_read_voc__another_class_than_those_that_are_given_is_refused(tmp_path):
    write_image(tmp_path, "000005", [("drone", 0, (1, 1, 9, 9))])
    assert "classes that are none of cat, kite: 'drone' in 000005.xml" in refusal(tmp_path, classes=["cat", "kite"])


def test_read_voc__an_object_without_a_name_is_refused(tmp_path):
    write_image(tmp_path, "000005", [(" ", 0, (1, 1, 9, 9))])
    assert "objects without a name: '' in 000005.xml" in refusal(tmp_path)


def test_read_voc__a_missing_split_is_said(tmp_path):
    text = refusal(tmp_path)
    assert "ImageSets/Main/train.txt does not exist" in text
    assert "VOCdevkit/VOC2007" in text
    write_image(tmp_path, "000005", [])
    assert "of which there are train; or give the path of a list" in refusal(tmp_path, split="tran")


def test_read_voc__a_split_that_is_no_text_is_said(tmp_path):
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Main" / "train.txt").write_bytes(b"\xff\xfe\x00")
    assert "train.txt is no UTF-8 text" in refusal(tmp_path)


def test_read_voc__an_image_listed_twice_is_refused(tmp_path):
    write_image(tmp_path, "000005", [])
    write_image(tmp_path, "000005", [])
    assert "images that the split names twice: 000005" in refusal(tmp_path)


def test_read_voc__a_missing_annotation_is_said(tmp_path):
    write_image(tmp_path, "000005", [])
    (tmp_path / "Annotations" / "000005.xml").unlink()
    assert "annotations that do not exist, or are no files: 000005.xml" in refusal(tmp_path)


def test_read_voc__a_missing_image_is_said(tmp_path):
    write_image(tmp_path, "000005", [])
    (tmp_path / "JPEGImages" / "000005.jpg").unlink()
    assert "image files that do not exist, of 1" in refusal(tmp_path)


def test_read_voc__a_broken_annotation_is_refused(tmp_path):
    write_image(tmp_path, "000005", [])
    (tmp_path / "Annotations" / "000005.xml").write_text("<annotation><size>")
    assert "annotations that are no XML: 000005.xml (no element found" in refusal(tmp_path)


def test_read_voc__a_box_without_size_names_its_object(tmp_path):
    write_image(tmp_path, "000004", [("cat", 0, (1, 1, 9, 9))])
    write_image(tmp_path, "000005", [("dog", 0, (1, 1, 9, 9)), ("dog", 0, (20, 5, 10, 9))])
    assert "object 2 of 000005.xml (xmin '20', ymin '5', xmax '10', ymax '9')" in refusal(tmp_path)
    assert len(read(tmp_path, zero_size_boxes="drop").boxes) == 2


def test_read_voc__a_coordinate_that_is_no_number_is_refused(tmp_path):
    write_image(tmp_path, "000005", [("dog", 0, (1, "left", 9, 9))])
    assert "ymin 'left'" in refusal(tmp_path)


def test_read_voc__not_a_number_is_refused(tmp_path):
    write_image(tmp_path, "000005", [("dog", 0, (1, "nan", 9, 9))])
    assert "not four finite numbers of pixels: object 1 of 000005.xml" in refusal(tmp_path)


@pytest.mark.parametrize("size", [(0, 0), ("nan", 4)])
def test_read_voc__an_image_without_size_is_refused(tmp_path, size):
    write_image(tmp_path, "000005", [], size)
    assert "000005.xml has height" in refusal(tmp_path)


def test_read_voc__an_empty_split_has_no_images(tmp_path):
    write_image(tmp_path, "000005", [])
    (tmp_path / "ImageSets" / "Main" / "train.txt").write_text("\n")
    assert len(read(tmp_path)) == 0


def test_read_voc__shows_all_kinds_of_mistakes_at_once(tmp_path):
    write_image(tmp_path, "000001", [("dog", 0, (1, 1, 9, 9))])
    write_image(tmp_path, "000002", [("drone", 0, (5, "left", 9, 9))])
    write_image(tmp_path, "000003", [("drone", 0, (9, 9, 5, 5))], (0, 40))
    write_image(tmp_path, "000004", [])
    (tmp_path / "JPEGImages" / "000001.jpg").unlink()
    (tmp_path / "Annotations" / "000004.xml").write_text("<annotation>")
    first, *lines = refusal(tmp_path, classes=["dog"]).splitlines()
    assert first == f"{tmp_path} has 6 kinds of mistakes:"
    assert [line.split(":")[0].split(" that are")[0].strip() for line in lines] == [
        "annotations",
        "sizes",
        "image files that do not exist, of 4",
        "classes",
        "boxes",
        "boxes without width or height",
    ]


@pytest.mark.parametrize("encoding", ["gb2312", "shift_jis", "big5", "euc-jp", "utf-16", "windows-1252"])
def test_read_voc__annotations_are_read_in_the_encoding_that_they_name(tmp_path, encoding):
    kind = "Käfer" if encoding == "windows-1252" else "犬"
    write_image(tmp_path, "000005", [(kind, 0, (1, 1, 9, 9))])
    file = tmp_path / "Annotations" / "000005.xml"
    text = f"<?xml version='1.0' encoding='{encoding}'?>\n{file.read_text(encoding='utf-8')}"
    file.write_bytes(text.encode(encoding))
    assert len(read(tmp_path, classes=[kind]).boxes) == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<?xml version='1.0' encoding='klingon'?><annotation/>", "written in 'klingon', which is no encoding"),
        (b"<?xml version='1.0' encoding='gb2312'?><annotation>\xff</annotation>", "not written in gb2312"),
        (b"<annotation>\xff</annotation>", "not written in utf-8"),
        (b"<?xml version='1.0' encoding='utf-7'?><annotation>+2AA-</annotation>", "surrogates not allowed"),
        (b'<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>', "declares entities"),
        (b"", "no element found"),
    ],
)
def test_read_voc__what_is_no_xml_is_said_with_its_file(tmp_path, content, said):
    write_image(tmp_path, "000005", [])
    (tmp_path / "Annotations" / "000005.xml").write_bytes(content)
    text = refusal(tmp_path)
    assert "000005.xml" in text
    assert said in text


@pytest.mark.parametrize("width", ["inf", "1e400", "1e12", "60.5", "", "-60"])
def test_read_voc__an_impossible_width_is_refused(tmp_path, width):
    write_image(tmp_path, "000005", [], (width, 40))
    assert f"000005.xml has height '40' and width '{width}'" in refusal(tmp_path)


def test_read_voc__a_nul_in_the_list_is_refused(tmp_path):
    write_image(tmp_path, "000005", [])
    (tmp_path / "ImageSets" / "Main" / "train.txt").write_bytes(b"000005\n\0\n")
    assert "train.txt is no list of image names: it holds a NUL" in refusal(tmp_path)


def test_read_voc__names_may_have_spaces_and_lists_of_one_class_a_second_column(tmp_path):
    for name in ("my v2", "image 1", "000005", "old 1"):
        write_image(tmp_path, name, [])
    (tmp_path / "ImageSets" / "Main" / "train.txt").write_text("my v2\nimage 1\n000005 -1\nold 1  0\n")
    images = read(tmp_path)
    names = [images.name(index) for index in range(4)]
    assert names == ["my v2.jpg", "image 1.jpg", "000005.jpg", "old 1.jpg"]


def write_pair(root: Path, annotation: str, image: str, written: str = "") -> None:
    """An annotation with one dog, and an image, wherever they lie below `root`; `written` is the name in the former."""
    for path in (root / annotation, root / image):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (60, 40)).save(root / image)
    box = OBJECT.format(name="dog", difficult=0, box=(1, 1, 60, 40))
    (root / annotation).write_text(
        f"<annotation><filename>{written}</filename><size><width>60</width><height>40</height></size>{box}</annotation>"
    )


def names_of(images: ImageSet) -> list[str]:
    return [images.path(index).name for index in range(len(images))]


@pytest.mark.parametrize(
    ("annotations", "images"),
    [
        ("ANNOTATIONS/{}.xml", "IMAGES/{}.png"),
        ("{}.xml", "{}.jpeg"),
        ("xml/{}.XML", "{}.bmp"),
        ("labels/all/{}.xml", "photos/{}/{}.webp"),
        ("marked/{}.xml", "marked/{}.PNG"),
    ],
)
def test_read_voc__without_a_split_all_annotations_in_any_folders_are_read(tmp_path, annotations, images):
    for name in ("b c", "a"):
        write_pair(tmp_path, annotations.format(name), images.format(name, name))
    found = read(tmp_path, split=None)
    assert [name.split(".")[0] for name in names_of(found)] == ["a", "b c"]
    assert found.boxes.tolist() == [[0, 0, 60, 40]] * 2
    assert found.path(1).is_file()
    assert found.notes == ()


def test_read_voc__images_without_an_annotation_are_left_out_and_counted(tmp_path):
    write_pair(tmp_path, "xml/a.xml", "pictures/a.png")
    Image.new("RGB", (60, 40)).save(tmp_path / "pictures" / "b.png")
    found = read(tmp_path, split=None)
    assert names_of(found) == ["a.png"]
    assert found.notes == (f"{tmp_path}: 1 images without an annotation are left out: b.png",)


def test_read_voc__a_split_may_be_the_path_of_a_list_anywhere(tmp_path):
    for name in ("a", "b", "c"):
        write_pair(tmp_path / "data", f"in/{name}.xml", f"pictures/{name}.png")
    (tmp_path / "mine.txt").write_text("c\nb.png\nin/a.xml\n")
    found = read(tmp_path / "data", split=str(tmp_path / "mine.txt"))
    assert names_of(found) == ["c.png", "b.png", "a.png"]
    assert f"{tmp_path / 'other.txt'} does not exist" in refusal(tmp_path / "data", split=tmp_path / "other.txt")
    (tmp_path / "mine.txt").write_text("c\nd\n")
    text = refusal(tmp_path / "data", split=tmp_path / "mine.txt")
    assert "annotations that do not exist, or are no files: d.xml" in text


def test_read_voc__several_folders_that_may_be_meant_are_named(tmp_path):
    for part in ("one", "two"):
        write_pair(tmp_path, f"{part}/a.xml", f"{part}/a.png")
    text = refusal(tmp_path, split=None)
    assert (
        f"several folders with XML files: '{tmp_path / 'one'}', '{tmp_path / 'two'}'. Name one as `annotations`" in text
    )
    text = refusal(tmp_path, split=None, annotations=tmp_path / "one")
    assert "Name one as `images`" in text
    assert len(read(tmp_path, split=None, annotations=tmp_path / "one", images=tmp_path / "two")) == 1


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "holds no XML file, nor do its subfolders. Name their folder as `annotations`"),
        ({"root": "absent"}, "is no folder. Check `root`"),
        ({"annotations": "absent"}, "is no folder. Check `annotations`"),
    ],
)
def test_read_voc__folders_that_are_not_there_are_said(tmp_path, fields, said):
    Image.new("RGB", (60, 40)).save(tmp_path / "a.png")
    given = {key: tmp_path / value for key, value in fields.items()}
    assert said in refusal(given.pop("root", tmp_path), split=None, **given)


def test_read_voc__an_image_with_another_name_is_found_by_what_its_annotation_says(tmp_path):
    write_pair(tmp_path, "xml/1.xml", "pictures/street.jpg", "C:\\old\\street.jpg")
    write_pair(tmp_path, "xml/2.xml", "pictures/2.jpg", "stale.jpg")
    found = read(tmp_path, split=None)
    assert names_of(found) == ["street.jpg", "2.jpg"]
    assert found.notes == (f"{tmp_path}: 1 images were found by the name in their annotation",)


def test_read_voc__two_images_for_an_annotation_are_both_named(tmp_path):
    write_pair(tmp_path, "xml/a.xml", "pictures/a.jpg")
    write_pair(tmp_path, "xml/a.xml", "pictures/a.png")
    assert "several images: a.xml (a.jpg, a.png)" in refusal(tmp_path, split=None)
    write_pair(tmp_path, "xml/a.xml", "pictures/a.png", "a.png")
    assert names_of(read(tmp_path, split=None)) == ["a.png"]


def test_read_voc__two_annotations_for_an_image_are_both_named(tmp_path):
    write_pair(tmp_path, "xml/cats/a.xml", "pictures/a.jpg")
    write_pair(tmp_path, "xml/dogs/a.xml", "pictures/a.jpg")
    text = refusal(tmp_path, split=None)
    assert "images with two annotations: a.jpg (cats/a.xml, dogs/a.xml)" in text


def test_read_voc__without_any_object_there_is_no_class(tmp_path):
    write_image(tmp_path, "000005", [])
    assert read(tmp_path).categories == ()


def test_read_voc__an_image_is_not_looked_for_elsewhere_where_its_folder_is_there(tmp_path):
    write_pair(tmp_path, "xml/cats/1.xml", "pictures/cats/2.jpg")
    write_pair(tmp_path, "xml/cats/2.xml", "pictures/dogs/1.jpg")
    text = refusal(tmp_path, split=None)
    assert f"image files that do not exist, of 2: {tmp_path / 'pictures' / 'cats' / '1.jpg'}. " in text


def test_read_voc__xml_of_another_tool_is_said(tmp_path):
    write_pair(tmp_path, "a.xml", "a.jpg")
    (tmp_path / "b.xml").write_text("<annotations><version>1.1</version></annotations>")
    text = refusal(tmp_path, split=None)
    assert "XML files that are no VOC annotations: b.xml (it begins with <annotations>). They begin" in text

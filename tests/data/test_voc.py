from pathlib import Path

import pytest
from PIL import Image

from ssodkit.data.config import VOC_CLASSES
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


def refusal(root: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_voc(root, "train", VOC_CLASSES)
    return str(caught.value)


def test_read_voc__boxes_count_from_zero_and_end_behind_the_last_pixel(tmp_path):
    write_image(tmp_path, "000005", [("dog", 0, (1, 1, 60, 40)), ("person", 1, (11, 5, 11, 8.5))])
    images = read_voc(tmp_path, "train", VOC_CLASSES)
    assert images.boxes.tolist() == [[0, 0, 60, 40], [10, 4, 11, 8.5]]
    assert [images.categories[label].name for label in images.labels] == ["dog", "person"]
    assert images.category_ids[images.labels].tolist() == [12, 15]
    assert images.difficult.tolist() == [False, True]
    assert images.sizes.tolist() == [[40, 60]]


def test_read_voc__image_ids_are_the_numbers_in_the_names(tmp_path):
    write_image(tmp_path, "2008_000002", [])
    write_image(tmp_path, "000007", [])
    assert read_voc(tmp_path, "train", VOC_CLASSES).ids.tolist() == [2008000002, 7]


def test_read_voc__images_with_other_names_are_counted(tmp_path):
    write_image(tmp_path, "street", [])
    write_image(tmp_path, "000007", [])
    assert read_voc(tmp_path, "train", VOC_CLASSES).ids.tolist() == [1, 2]


def test_read_voc__has_the_twenty_classes():
    assert len(set(VOC_CLASSES)) == 20
    assert list(VOC_CLASSES) == sorted(VOC_CLASSES)


def test_read_voc__another_class_needs_to_be_named(tmp_path):
    write_image(tmp_path, "000005", [("drone", 0, (1, 1, 9, 9))])
    assert "classes that are none of aeroplane, bicycle" in (text := refusal(tmp_path))
    assert "'drone' in 000005.xml" in text
    assert read_voc(tmp_path, "train", ("kite", "drone")).labels.tolist() == [1]


def test_read_voc__a_missing_split_is_said(tmp_path):
    text = refusal(tmp_path)
    assert "ImageSets/Main/train.txt cannot be read" in text
    assert "VOCdevkit/VOC2007" in text


def test_read_voc__a_split_that_is_no_text_is_said(tmp_path):
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Main" / "train.txt").write_bytes(b"\xff\xfe\x00")
    assert "train.txt is no UTF-8 text" in refusal(tmp_path)


def test_read_voc__an_image_listed_twice_is_refused(tmp_path):
    write_image(tmp_path, "000005", [])
    write_image(tmp_path, "000005", [])
    assert "images that ImageSets/Main/train.txt names twice: 000005" in refusal(tmp_path)


def test_read_voc__a_missing_annotation_is_said(tmp_path):
    write_image(tmp_path, "000005", [])
    (tmp_path / "Annotations" / "000005.xml").unlink()
    assert "annotations that cannot be read: 000005.xml (No such file or directory)" in refusal(tmp_path)


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
    assert len(read_voc(tmp_path, "train", VOC_CLASSES, zero_size="drop").boxes) == 2


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
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Main" / "train.txt").write_text("\n")
    assert len(read_voc(tmp_path, "train", VOC_CLASSES)) == 0


def test_read_voc__shows_all_kinds_of_mistakes_at_once(tmp_path):
    write_image(tmp_path, "000001", [("dog", 0, (1, 1, 9, 9))])
    write_image(tmp_path, "000002", [("drone", 0, (5, "left", 9, 9))])
    write_image(tmp_path, "000003", [("drone", 0, (9, 9, 5, 5))], (0, 40))
    write_image(tmp_path, "000004", [])
    (tmp_path / "JPEGImages" / "000001.jpg").unlink()
    (tmp_path / "Annotations" / "000004.xml").write_text("<annotation>")
    first, *lines = refusal(tmp_path).splitlines()
    assert first == f"{tmp_path} has 6 kinds of mistakes:"
    assert [line.split(":")[0].split(" that are")[0].strip() for line in lines] == [
        "image files that do not exist, of 4",
        "annotations",
        "sizes",
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
    assert len(read_voc(tmp_path, "train", [kind]).boxes) == 1


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
    images = read_voc(tmp_path, "train", VOC_CLASSES)
    names = [images.name(index) for index in range(4)]
    assert names == ["my v2.jpg", "image 1.jpg", "000005.jpg", "old 1.jpg"]

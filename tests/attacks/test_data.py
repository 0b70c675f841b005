"""Any harm to any file of a data set: a sentence that leads to it, or images and boxes that can be learned from.

One recipe reads all there is: COCO files, a VOC folder, a plain folder, stored labels, and a list of folds.
"""

import json
import os
import socket
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attack import Harm, budget, copied, files_below, harms
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ssodkit.data import writing
from ssodkit.data.annotations import Category, ImageSet, make_image_set
from ssodkit.data.batch_plan import derive_batch
from ssodkit.data.broken import look_into, refuse_many, sizes_of
from ssodkit.data.config import DataConfig
from ssodkit.data.loader import training_batches
from ssodkit.data.pictures import Pictures
from ssodkit.data.sets import open_data
from ssodkit.data.views import ViewConfig, ViewsConfig
from ssodkit.errors import DataError

CATEGORIES = (Category(1, "cat"), Category(2, "dog"))
HEIGHT, WIDTH = 12, 16
PARTS = {
    "train.json": "data.train",
    "train": "data.train",
    "folds.json": "data.folds",
    "test": "data.test",
    "chosen.json": "data.validation",
    "chosen": "data.validation",
    "labels.json": "data.unlabeled",
    "more": "data.unlabeled",
}
"""What lies in the folder, and the key of the recipe that leads there."""
OBJECT = (
    "<object><name>{}</name><difficult>0</difficult>"
    "<bndbox><xmin>2</xmin><ymin>3</ymin><xmax>9</xmax><ymax>11</ymax></bndbox></object>"
)
ODD = ["1" * 5000, "9" * 400, "-" + "9" * 30, "1e400", "-1e309", "1e300", "NaN", "-Infinity", "[" * 3000 + "]" * 3000]
"""Numbers and lists that JSON can say."""
VIEWS = ViewsConfig(labeled={"weak": ViewConfig()}, unlabeled={"weak": ViewConfig()})


def write_image(file: Path, number: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.RandomState(number).randint(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(file)


def write_coco(folder: Path, names: list[str], first_id: int) -> None:
    ids = range(first_id, first_id + len(names))
    for number, name in zip(ids, names, strict=True):
        write_image(folder / name, number)
    images = zip(ids, names, strict=True)
    document = {
        "images": [{"id": number, "file_name": name, "height": HEIGHT, "width": WIDTH} for number, name in images],
        "annotations": [
            {"id": number, "image_id": number, "category_id": 1 + number % 2, "bbox": [1, 2.5, 7, 8], "area": 50}
            for number in ids
        ],
        "categories": [category._asdict() for category in CATEGORIES],
    }
    folder.with_suffix(".json").write_text(json.dumps(document))


@pytest.fixture(scope="session")
def whole(tmp_path_factory) -> Path:
    """A folder with everything that `config_of` reads."""
    root = tmp_path_factory.mktemp("data")
    write_coco(root / "train", ["a.jpg", "b.png", "c.bmp", "d.jpg"], 1)
    write_coco(root / "chosen", ["e.png", "f.jpg"], 11)
    (root / "folds.json").write_text(json.dumps({"50": {"1": [0, 2]}}))
    for number, name in enumerate(("000001", "my 2"), start=21):
        write_image(root / "test" / "JPEGImages" / f"{name}.jpg", number)
        (root / "test" / "Annotations").mkdir(exist_ok=True)
        size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
        text = f"<annotation>{size}{OBJECT.format('cat')}{OBJECT.format('dog')}</annotation>"
        (root / "test" / "Annotations" / f"{name}.xml").write_text(text)
    (root / "test" / "ImageSets" / "Main").mkdir(parents=True)
    (root / "test" / "ImageSets" / "Main" / "test.txt").write_text("000001\nmy 2 1\n")
    names = ["g.png", "in/h.webp", "in/i.tif"]
    for number, name in enumerate(names, start=31):
        write_image(root / "more" / name, number)
    boxes, sizes = [[1, 1, 8, 9], [2, 2, 7, 10]], [(HEIGHT, WIDTH)] * 3
    stored = make_image_set(root, names, [1, 2, 3], sizes, CATEGORIES, [0, 2], boxes, [0, 1], scores=[0.95, 0.4])
    writing.write_coco(root / "labels.json", stored, {})
    return root


@pytest.fixture(scope="session")
def place(tmp_path_factory) -> Path:
    """Where copies lie, one after the other."""
    return tmp_path_factory.mktemp("attacked") / "data"


def config_of(root: Path) -> DataConfig:
    return DataConfig.model_validate(
        {
            "train": {"type": "coco", "annotations": root / "train.json", "images": root / "train"},
            "validation": {"type": "coco", "annotations": root / "chosen.json", "images": root / "chosen"},
            "test": {"type": "voc", "root": root / "test", "split": "test", "classes": ("cat", "dog")},
            "unlabeled": {
                "type": "stored",
                "file": root / "labels.json",
                "of": {"type": "folder", "images": root / "more"},
            },
            "folds": {"type": "list", "file": root / "folds.json"},
            "percent": 50.0,
            "batch": {"labeled": 2, "unlabeled": 1},
        }
    )


def look(root: Path, harmed: Path) -> None:
    """Read everything: what is said leads to the harmed file, or what is read is whole."""
    config = config_of(root)
    try:
        sets = open_data(config)
        refuse_many(look_into(sets), sizes_of(sets), config.broken)
    except DataError as error:
        text = str(error)
        part = harmed.relative_to(root).parts[0]
        assert all(line.startswith(("data.", "  ")) for line in text.splitlines()), text
        assert harmed.name in text or PARTS[part] in text, text
        assert text.rstrip(")").endswith((".", "?")) or " more" in text.splitlines()[-1], text
        return
    for images in (sets.labeled, sets.unlabeled, sets.hidden, sets.test, sets.validation):
        if images is not None:
            assert_usable(images, len(sets.categories))
    for ((batch,),) in [list(training_batches(sets, VIEWS, derive_batch(config.batch), 0, range(1)))]:
        assert len(batch.labeled.views["weak"].image_ids) == 2


def assert_usable(images: ImageSet, classes: int) -> None:
    pixels = [Pictures(images, keep=False).read(index) for index in range(len(images))]
    sizes = np.array([image.shape[:2] for image in pixels])[np.repeat(np.arange(len(images)), images.boxes_per_image())]
    left, top, right, bottom = images.boxes.T
    assert ((left >= 0) & (top >= 0) & (left < right) & (top < bottom)).all()
    assert ((right <= sizes.reshape(-1, 2)[:, 1]) & (bottom <= sizes.reshape(-1, 2)[:, 0])).all()
    assert ((images.labels >= 0) & (images.labels < classes)).all()
    assert np.isfinite(images.areas).all()
    assert ((images.scores >= 0) & (images.scores <= 1)).all()


def test_open_data__reads_what_no_harm_befell(whole):
    sets = open_data(config_of(whole))
    assert look_into(sets) == {}
    assert [len(images) for images in (sets.labeled, sets.unlabeled, sets.test, sets.validation)] == [2, 2, 2, 2]
    assert [len(images.boxes) for images in (sets.labeled, sets.unlabeled, sets.test)] == [2, 2, 4]


@given(data=st.data(), harm=harms())
@budget(70)
def test_open_data__a_harmed_file_is_named_or_can_be_used(whole, place, data, harm: Harm):
    root = copied(whole, place)
    file = data.draw(st.sampled_from(files_below(root)), label="file")
    harm.befall(file)
    look(root, file)


@given(data=st.data(), kind=st.sampled_from(["pipe", "socket", "up", "around", "twin", "full disk"]))
@budget(20)
def test_open_data__what_is_no_file_is_neither_opened_nor_followed_for_ever(whole, place, data, kind):
    root = copied(whole, place)
    file = data.draw(st.sampled_from(files_below(root)), label="file")
    match kind:
        case "pipe":
            file.unlink()
            os.mkfifo(file)
        case "socket":
            file.unlink()
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(os.path.relpath(file))
        case "up":
            (file.parent / "up").symlink_to("..")
        case "around":
            (file.parent / "around").symlink_to(".")
        case "twin":
            (file.parent / f"twin{file.suffix}").symlink_to(file)
        case "full disk":
            file.unlink()
            file.symlink_to("/dev/full")
    look(root, file)


def places_in(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where there is something in a document: the keys and places that lead there."""
    yield path
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places_in(item, (*path, key))


def json_texts() -> st.SearchStrategy[str]:
    """Any value as JSON says it, and what only JSON can say."""
    scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["\ud800", "a\0b"])
    values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner))
    return values.map(json.dumps) | st.sampled_from(ODD)


@given(data=st.data(), text=json_texts(), how=st.sampled_from(["instead", "twice", "not at all"]))
@budget(80)
def test_open_data__any_value_anywhere_in_json_is_refused_or_can_be_used(whole, place, data, text, how):
    root = copied(whole, place)
    file = data.draw(st.sampled_from(sorted(root.glob("*.json"))), label="file")
    document = json.loads(file.read_text())
    path = data.draw(st.sampled_from(list(places_in(document))), label="path")
    holder: Any = {"document": document}
    for key in ("document", *path)[: len(path)]:
        holder = holder[key]
    key = path[-1] if path else "document"
    before = json.dumps(holder[key])
    if how == "not at all" and path:
        del holder[key]
    else:
        holder[key] = "HERE"
    twice = f"{before}, {json.dumps(key)}: {text}" if isinstance(holder, dict) and path else f"{before}, {text}"
    whole_text = json.dumps(document) if path else '"HERE"'
    file.write_text(whole_text.replace('"HERE"', twice if how == "twice" else text))
    look(root, file)


@given(
    data=st.data(),
    text=st.text() | st.floats().map(str) | st.integers().map(str) | st.sampled_from(ODD),
    how=st.sampled_from(["text", "tag", "gone", "twice", "deep"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "gb2312", "big5", "ascii", "klingon", "rot13", "utf-7"]),
)
@budget(40)
def test_open_data__any_value_anywhere_in_xml_is_refused_or_can_be_used(whole, place, data, text, how, encoding):
    root = copied(whole, place)
    file = data.draw(st.sampled_from(sorted(root.glob("test/Annotations/*.xml"))), label="file")
    tree = ElementTree.fromstring(file.read_text())
    holders = [(parent, child) for parent in tree.iter() for child in parent]
    parent, child = data.draw(st.sampled_from(holders), label="element")
    match how:
        case "text":
            child.text = text
        case "tag":
            child.tag = data.draw(st.sampled_from(["object", "name", "size", "bndbox", "xmin", "x"]), label="tag")
        case "gone":
            parent.remove(child)
        case "twice":
            parent.append(child)
        case "deep":
            child.text = "DEEP"
    content = ElementTree.tostring(tree, encoding="unicode").replace("DEEP", "<a>" * 3000 + "</a>" * 3000)
    name = encoding if encoding in ("klingon", "rot13") else encoding.removesuffix("-sig")
    declared = f"<?xml version='1.0' encoding='{name}'?>{content}"
    written = "utf-8" if encoding in ("klingon", "rot13") else encoding
    file.write_bytes(declared.encode(written, "xmlcharrefreplace"))
    look(root, file)

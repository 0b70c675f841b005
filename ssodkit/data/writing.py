"""Images with boxes as files of other tools: COCO JSON, Pascal VOC XML, YOLO txt.

Each of them reads back as the same images, classes and boxes: COCO JSON exactly, with scores; YOLO to a millionth of
the image; VOC in whole pixels, as most of its readers want them. Neither YOLO's training labels nor VOC have a place
for scores. Image files are not copied: folders hold links to them.
"""

import json
import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ssodkit.data.annotations import ImageSet
from ssodkit.data.checks import duplicates
from ssodkit.data.files import write_whole
from ssodkit.data.lookup import stem_of
from ssodkit.data.mistakes import Mistakes, printable, shown


def write_coco(file: Path, images: ImageSet, info: Mapping[str, Any]) -> None:
    """Write images, boxes and scores; the file appears whole or not at all, and reads back as the same numbers.

    Numbers are those of the set, in fp32: 16-bit floats would move boxes by half a pixel from 512 on, and turn 0.9 into
    0.899902.
    """
    write_whole(file, _pieces(images, info))


def write_voc(folder: Path, images: ImageSet) -> list[str]:
    """Fill an empty folder with JPEGImages, Annotations and ImageSets/Main/train.txt; returns what has no place there.

    Image sizes must be known. Crowd boxes are tagged difficult. Raises DataError for names that VOC cannot hold.
    """
    refuse_alike(images)
    names = _names(images)
    kinds = [category.name for category in images.categories]
    mistakes = Mistakes(folder.name)
    odd = [name for name in kinds if not name.isprintable()]
    mistakes.add("class names that XML cannot hold", "Give them other names, or choose another format.", odd, shown)
    mistakes.refuse()
    _link(images, [folder / "JPEGImages" / name for name in names])
    for index, name in enumerate(names):
        file = folder / "Annotations" / f"{stem_of(name)}.xml"
        file.parent.mkdir(parents=True, exist_ok=True)
        root = _annotation(images, index, name, kinds)
        ElementTree.indent(root)
        ElementTree.ElementTree(root).write(file, encoding="utf-8")
    (folder / "Annotations").mkdir(exist_ok=True)
    listing = folder / "ImageSets" / "Main" / "train.txt"
    listing.parent.mkdir(parents=True)
    listing.write_bytes(b"".join(os.fsencode(stem_of(name)) + b"\n" for name in names))
    crowds = np.count_nonzero(images.crowd)
    return [f"{crowds} crowd boxes are tagged difficult"] * bool(crowds)


def write_yolo(folder: Path, images: ImageSet) -> list[str]:
    """Fill an empty folder with images, labels and a data.yaml with the split train; returns what has no place there.

    Image sizes must be known. A folder of the images that is called images gets a `_` behind its name, as label files
    are found by that name. An image without boxes has an empty label file.
    """
    refuse_alike(images)
    names = [_beside_labels(name) for name in _names(images)]
    _link(images, [folder / "images" / name for name in names])
    counted = ~(images.crowd | images.difficult)
    for index, name in enumerate(names):
        file = folder / "labels" / f"{stem_of(name)}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        height, width = images.sizes[index].tolist()
        rows = range(*images.offsets[index : index + 2].tolist())
        boxes = (_row(images, row, width, height) for row in rows if counted[row])
        file.write_text("".join(boxes), encoding="utf-8")
    (folder / "labels").mkdir(exist_ok=True)
    table = {label: category.name for label, category in enumerate(images.categories)}
    text = yaml.safe_dump({"train": "images", "nc": len(table), "names": table}, sort_keys=False, allow_unicode=True)
    (folder / "data.yaml").write_text(text, encoding="utf-8")
    left_out = np.count_nonzero(~counted)
    return [f"{left_out} crowd and difficult boxes are left out, which YOLO cannot tell from others"] * bool(left_out)


def refuse_alike(images: ImageSet) -> None:
    """Raise DataError where two images differ only in their suffix: they would have one label file."""
    names = _names(images)
    mistakes = Mistakes(images.root)
    twice = duplicates([stem_of(name) for name in names])
    mistakes.add(
        "images that would have one label file",
        "Rename one of each, or write COCO JSON.",
        twice,
        lambda pair: f"{names[pair[0]]}, {names[pair[1]]}",
    )
    mistakes.refuse()


def _pieces(images: ImageSet, info: Mapping[str, Any]) -> Iterator[str]:
    """The document, an entry a line: of COCO's unlabeled images a text in one piece would be gigabytes."""
    yield f'{{"info": {json.dumps(dict(info))},\n"images": ['
    for index, (number, (height, width)) in enumerate(zip(images.ids.tolist(), images.sizes.tolist(), strict=True)):
        entry = {"id": number, "file_name": images.name(index), "height": height, "width": width}
        yield f"{',' * (index > 0)}\n{json.dumps(entry)}"
    yield '\n],\n"annotations": ['
    image_ids = np.repeat(images.ids, images.boxes_per_image())
    category_ids = images.category_ids
    for row in range(len(images.boxes)):
        left, top, right, bottom = images.boxes[row].astype(np.float64).tolist()  # float64: differences are exact
        entry = {
            "id": row + 1,
            "image_id": int(image_ids[row]),
            "category_id": int(category_ids[images.labels[row]]),
            "bbox": [left, top, right - left, bottom - top],
            "area": (right - left) * (bottom - top),
            "iscrowd": 0,
            "score": float(images.scores[row]),
        }
        yield f"{',' * (row > 0)}\n{json.dumps(entry)}"
    yield f'\n],\n"categories": {json.dumps([category._asdict() for category in images.categories])}}}\n'


def _names(images: ImageSet) -> list[str]:
    return [images.name(index) for index in range(len(images))]


def _link(images: ImageSet, places: Sequence[Path]) -> None:
    for index, place in enumerate(places):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(os.path.abspath(images.path(index)))


def _annotation(images: ImageSet, index: int, name: str, kinds: Sequence[str]) -> ElementTree.Element:
    """The XML of an image; VOC counts pixels from 1, and a box ends with its last one."""
    height, width = images.sizes[index].tolist()
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "folder").text = "JPEGImages"
    ElementTree.SubElement(root, "filename").text = printable(os.path.basename(name))
    size = ElementTree.SubElement(root, "size")
    for side, pixels in (("width", width), ("height", height), ("depth", 3)):
        ElementTree.SubElement(size, side).text = str(pixels)
    for row in range(*images.offsets[index : index + 2].tolist()):
        entry = ElementTree.SubElement(root, "object")
        ElementTree.SubElement(entry, "name").text = kinds[images.labels[row]]
        ElementTree.SubElement(entry, "difficult").text = str(int(images.difficult[row] or images.crowd[row]))
        left, top, right, bottom = np.round(images.boxes[row]).astype(int).tolist()
        left, top = min(left, width - 1), min(top, height - 1)  # so that a box thinner than a pixel has one
        corners = {"xmin": left + 1, "ymin": top + 1, "xmax": max(right, left + 1), "ymax": max(bottom, top + 1)}
        box = ElementTree.SubElement(entry, "bndbox")
        for corner, pixel in corners.items():
            ElementTree.SubElement(box, corner).text = str(pixel)
    return root


def _beside_labels(name: str) -> str:
    *folders, file = name.split(os.sep)
    return os.sep.join([*(f"{part}_" if part.casefold() == "images" else part for part in folders), file])


def _row(images: ImageSet, row: int, width: int, height: int) -> str:
    left, top, right, bottom = images.boxes[row].astype(np.float64).tolist()
    shares = ((left + right) / 2 / width, (top + bottom) / 2 / height, (right - left) / width, (bottom - top) / height)
    return f"{images.labels[row]} {' '.join(f'{share:.6f}' for share in shares)}\n"

"""The embedded data: digit scenes, made on first use from what scikit-learn ships, and kept as COCO JSON and PNG."""

import json
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

from ssodkit.data.annotations import ImageSet
from ssodkit.data.coco import read_coco
from ssodkit.data.config import DigitsSource
from ssodkit.data.files import draft_folder
from ssodkit.data.scenes import LEVELS, Material, Scene, draw_scene, make_material
from ssodkit.errors import DataError

VERSION = 2
"""Of the scenes; a change that moves a pixel raises it, and a cache of another version is not read."""
PARTS = ("train", "val")


def open_digits(source: DigitsSource, on_progress: Callable[[int, int], None] | None = None) -> ImageSet:
    """The images of the embedded data, from the cache; made first (about 5 s) if they are not there.

    `on_progress(done, total)` is called while they are made. Raises DataError if the cache cannot be written.
    """
    folder = cache_folder() / folder_name(source)
    if not folder.is_dir():
        try:
            _make(source, folder, on_progress)
        except OSError as error:
            raise DataError(
                f"the embedded data cannot be written to {folder.parent}: {error.strerror or error}. Set the "
                "environment variable SSODKIT_CACHE to a folder with 100 MB of space."
            ) from error
    try:
        return read_coco(folder / "annotations.json", folder / "images")
    except DataError as error:
        raise DataError(f"{error} If somebody changed {folder}, delete it: it is made again.") from error


def cache_folder() -> Path:
    """Where made data is kept: `SSODKIT_CACHE`, else `~/.cache/ssodkit`."""
    return Path(os.environ.get("SSODKIT_CACHE") or Path.home() / ".cache" / "ssodkit")


def folder_name(source: DigitsSource) -> str:
    """The name of a set in the cache; all settings that change it are in it."""
    return f"digits-v{VERSION}-{source.level}-{source.part}-{source.images}x{source.side}px-seed{source.seed}"


def read_digits() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The handwritten digits (1797, 8, 8), ink from 0 to 1, and which digit each is."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return digits.images / 16, digits.target.astype(np.int64)


def read_photographs() -> list[NDArray[np.uint8]]:
    """The two photographs (427, 640, 3): a pagoda and a flower."""
    from sklearn.datasets import load_sample_images

    return list(load_sample_images().images)


def read_material(part: Literal["train", "val"]) -> Material:
    """What one part of the data is drawn from."""
    return make_material(*read_digits(), read_photographs(), part)


def make_scene(source: DigitsSource, material: Material, index: int) -> Scene:
    """Image `index` of a set: it depends on the seed, the part and its own number, not on how many there are."""
    random = RandomState([source.seed, PARTS.index(source.part), index])
    return draw_scene(material, LEVELS[source.level], source.side, random)


def _make(source: DigitsSource, folder: Path, on_progress: Callable[[int, int], None] | None) -> None:
    """Write the set beside its place and move it there when it is whole; who comes second throws its own away."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with draft_folder(folder.parent) as draft:
        _write(source, draft, on_progress)
        try:
            draft.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise


def _write(source: DigitsSource, folder: Path, on_progress: Callable[[int, int], None] | None) -> None:
    from PIL import Image

    material = read_material(source.part)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    (folder / "images").mkdir()
    for index in range(source.images):
        scene = make_scene(source, material, index)
        name = f"{index + 1:06d}.png"
        Image.fromarray(scene.pixels).save(folder / "images" / name, compress_type=zlib.Z_RLE)
        images.append({"id": index + 1, "file_name": name, "height": source.side, "width": source.side})
        annotations += _annotations(scene, index + 1, len(annotations) + 1)
        if on_progress is not None:
            on_progress(index + 1, source.images)
    document = {
        "info": {"description": f"ssodkit digit scenes, version {VERSION}", "settings": source.model_dump()},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": digit, "name": str(digit)} for digit in range(10)],
    }
    (folder / "annotations.json").write_text(json.dumps(document), encoding="utf-8")


def _annotations(scene: Scene, image_id: int, first_id: int) -> list[dict[str, Any]]:
    found = []
    for place, (box, label) in enumerate(zip(scene.boxes.tolist(), scene.labels.tolist(), strict=True)):
        left, top, width, height = box[0], box[1], box[2] - box[0], box[3] - box[1]
        found.append(
            {
                "id": first_id + place,
                "image_id": image_id,
                "category_id": label,
                "bbox": [left, top, width, height],
                "area": width * height,
                "iscrowd": 0,
            }
        )
    return found

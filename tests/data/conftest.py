import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ssodkit.data.config import CocoSource

CATEGORIES = [{"id": 2, "name": "cat"}, {"id": 7, "name": "dog"}]
SIZES = [(40, 60), (60, 40), (50, 50)]
"""Height and width, in turn."""


@pytest.fixture
def write_coco(tmp_path) -> Callable[..., CocoSource]:
    """Writes a COCO file with `count` images of random pixels; image i has i % 3 boxes."""

    def write(name: str, count: int, first_id: int = 1, seed: int = 0, **edits: Any) -> CocoSource:
        random = np.random.RandomState(seed)
        folder = tmp_path / name
        folder.mkdir()
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for place in range(count):
            height, width = SIZES[place % 3]
            file = f"{place:03d}.{'png' if place % 2 else 'jpg'}"
            pixels = random.randint(0, 255, size=(height, width, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / file)
            images.append({"id": first_id + place, "file_name": file, "height": height, "width": width})
            annotations += [
                {
                    "id": 10 * place + number + 1,
                    "image_id": first_id + place,
                    "category_id": CATEGORIES[(place + number) % 2]["id"],
                    "bbox": [5 * number, 3, 12, 10 + place % 7],
                }
                for number in range(place % 3)
            ]
        document = {"images": images, "annotations": annotations, "categories": CATEGORIES, **edits}
        return write_document(folder, document)

    return write


def write_document(folder: Path, document: object) -> CocoSource:
    file = folder.with_suffix(".json")
    file.write_text(json.dumps(document))
    return CocoSource(annotations=file, images=folder)

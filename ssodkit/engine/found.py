"""What a detector found in a picture, as a program takes it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ssodkit.data.annotations import Category
from ssodkit.data.given import read_picture
from ssodkit.engine.metrics import DetectionTable
from ssodkit.engine.pictures import Boxes, draw_boxes


@dataclass(frozen=True, eq=False)
class Found:
    """The detections in one picture, best first; perhaps there is none."""

    boxes: NDArray[np.float32]
    """(n, 4): left, top, right, bottom in pixels of the picture, which is upright."""
    scores: NDArray[np.float32]
    """(n,), 0 to 1."""
    labels: NDArray[np.int64]
    """(n,): places in `categories`."""
    categories: tuple[Category, ...]
    """All classes that the detector knows, with the ids that they have in its data set."""
    picture: Path | NDArray[np.uint8]
    """What was looked at: a file, or RGB pixels (height, width, 3)."""

    @property
    def names(self) -> list[str]:
        """The name of each detection's class."""
        return [self.categories[label].name for label in self.labels.tolist()]

    def __len__(self) -> int:
        return len(self.scores)

    def draw(self) -> Image.Image:
        """The picture with its boxes. Raises DataError if it was a file that can no longer be read."""
        names = [category.name for category in self.categories]
        boxes = Boxes(self.boxes, self.labels, names, self.scores.tolist())
        return draw_boxes(read_picture(self.picture), boxes)

    def to_coco(self, image_id: int = 1) -> list[dict[str, object]]:
        """COCO's result format, with the data set's own category ids; `bbox` is left, top, width, height."""
        ids = np.array([category.id for category in self.categories], dtype=np.int64)
        return DetectionTable(np.full(len(self), image_id), self.boxes, self.labels, self.scores).as_coco(ids)

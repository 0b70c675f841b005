"""Mosaic: four images around a point of one canvas, from which views are then made as from one image.

Sources: Bochkovskiy et al., YOLOv4, arXiv:2004.10934, section 3.3; Xu et al., Efficient Teacher, arXiv:2302.07577, and
its code for the canvas and where the four meet.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Int64
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from ssodkit.data.annotations import ImageSet
from ssodkit.data.augment.resize import resized
from ssodkit.data.raw import RawBatch, stack_images
from ssodkit.ops.homography import scaling, translation
from ssodkit.ops.random import derive_keys, integers, uniform
from ssodkit.ops.rows import first_rows, take_rows
from ssodkit.plugins import Config
from ssodkit.structures.geometry import move_boxes
from ssodkit.structures.records import join, map_tensors
from ssodkit.structures.teaching import Targets

Found = tuple[int, NDArray[np.uint8]]
"""An image's place in its set, and its RGB pixels (height, width, 3)."""
Read = Callable[[int, Callable[[int], int]], Found]
"""The image at a place, or where it cannot be used that at the place which the function gives for attempt 0, 1, ..."""


class MosaicConfig(Config):
    """An image is seen with three others of its set, all equally likely, as four parts of one image."""

    side: int = Field(640, ge=2, le=8192)
    """Pixels of the long side of each of the four. They meet in a point of a square canvas with twice that side; all
    points of the canvas's middle half are equally likely."""
    probability: float = Field(1.0, ge=0.0, le=1.0)
    """With which an image is seen so; else it is seen alone, in its own size."""
    fill: int = Field(114, ge=0, le=255)
    """Gray value of the canvas where no image lies."""

    def draw(self, keys: Int64[Tensor, "batch"], count: int) -> "Mosaics":
        """What images draw, each from its own key, whose set has `count` images."""
        keys, side = derive_keys(keys, "mosaic"), self.side
        return Mosaics(
            side=side,
            happens=uniform(keys, (), "happens") < self.probability,
            partners=integers(keys, (3,), 0, max(count - 1, 0), "partners"),
            centers=integers(keys, (2,), side // 2, 2 * side - side // 2, "center"),
        )

    def instead(self, key: int, number: int, count: int, attempt: int) -> int:
        """The place of an image to take for partner `number` of the image with this key, which cannot be used."""
        keys = derive_keys(torch.tensor([key]), f"mosaic/{number}/{attempt}")
        return int(integers(keys, (), 0, count - 1, "instead"))


@dataclass(frozen=True)
class Mosaics:
    """Which images of a batch become mosaics, and of what; on the CPU."""

    side: int
    happens: Bool[Tensor, "batch"]
    partners: Int64[Tensor, "batch 3"]
    """Places of the images to the right, below, and below to the right."""
    centers: Int64[Tensor, "batch 2"]
    """The point x, y in which the four meet, in whole pixels of the canvas."""


def mosaic_batch(
    config: MosaicConfig, images: ImageSet, own: Sequence[Found], keys: Sequence[int], visible: float, read: Read
) -> RawBatch:
    """Images with their labels, each alone or as the top left part of its mosaic; ids are those of the own images.

    A box of which less than `visible` (a fraction) lies on the canvas is dropped. Raises what `read` raises.
    """
    drawn = config.draw(torch.tensor(keys, dtype=torch.int64), len(images))
    places, sizes, pixels = [], [], []
    for row, found in enumerate(own):
        four = [found] * 4
        if drawn.happens[row]:
            four[1:] = [
                read(place, partial(config.instead, keys[row], number, len(images)))
                for number, place in enumerate(drawn.partners[row].tolist())
            ]
        places.append([place for place, _ in four])
        sizes.append([part.shape[:2] for _, part in four])
        is_alone = not drawn.happens[row]
        pixels.append(found[1] if is_alone else _paint(config, [part for _, part in four], drawn.centers[row]))
    targets = mosaic_targets(
        images,
        torch.tensor(places, dtype=torch.int64).view(-1, 4),
        torch.tensor(sizes, dtype=torch.int64).view(-1, 4, 2),
        drawn,
        visible,
    )
    return stack_images(pixels, images.ids[[place for place, _ in own]].tolist(), keys, targets)


def mosaic_targets(
    images: ImageSet,
    places: Int64[Tensor, "batch 4"],
    sizes: Int64[Tensor, "batch 4 2"],
    drawn: Mosaics,
    visible: float,
) -> Targets:
    """The labels of images that are seen alone, the first of each four, and of mosaics; see `mosaic_batch`.

    `sizes` are heights and widths of the images, not yet resized.
    """
    alone, laid = (~drawn.happens).nonzero()[:, 0], drawn.happens.nonzero()[:, 0]
    new, corners = (part.flatten(0, 1) for part in _lay(sizes[laid], drawn.centers[laid], drawn.side))
    height, width = (new.double() / sizes[laid].flatten(0, 1)).unbind(dim=1)
    left, top = corners.double().unbind(dim=1)
    moved = move_boxes(
        images.targets(places[laid].flatten().numpy()),
        (translation(left, top) @ scaling(width, height)).float(),
        torch.full((4 * len(laid), 2), 2 * drawn.side),
        visible,
    )
    together = map_tensors(moved, lambda part: part.reshape(len(laid), 4 * part.shape[1], *part.shape[2:]))
    kept = first_rows(together.valid, max(together.valid.sum(dim=1).tolist(), default=0))
    together = map_tensors(together, lambda part: take_rows(part, kept))
    back = torch.cat([alone, laid]).argsort()
    return map_tensors(join([images.targets(places[alone, 0].numpy()), together]), lambda part: part[back])


def _lay(
    sizes: Int64[Tensor, "canvases 4 2"], centers: Int64[Tensor, "canvases 2"], side: int
) -> tuple[Int64[Tensor, "canvases 4 2"], Int64[Tensor, "canvases 4 2"]]:
    """Heights and widths of four images on their canvas, and where their top left corners lie, x and y."""
    new = resized(sizes.flatten(0, 1), side / sizes.flatten(0, 1).amax(dim=1).double()).view(-1, 4, 2)
    before = torch.tensor([[1, 1], [0, 1], [1, 0], [0, 0]])  # which sides, of x and of y, end at the center
    return new, centers[:, None] - before * new.flip(2)


def _paint(config: MosaicConfig, four: Sequence[NDArray[np.uint8]], center: Int64[Tensor, "2"]) -> NDArray[np.uint8]:
    """The canvas (height, width, 3); images are resized by Pillow's antialiased filter, as those of views are."""
    from PIL import Image

    sizes = torch.tensor([[image.shape[:2] for image in four]])
    new, corners = _lay(sizes, center[None], config.side)
    canvas = Image.new("RGB", (2 * config.side, 2 * config.side), (config.fill,) * 3)
    for image, (height, width), (left, top) in zip(four, new[0].tolist(), corners[0].tolist(), strict=True):
        tile = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
        canvas.paste(tile, (left, top))
    return np.array(canvas)

"""The pixels of an image set: decoded when asked for, or once and kept where they are few."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ssodkit.data.annotations import ImageSet
from ssodkit.data.decode import check_image, decode_image, read_size
from ssodkit.data.raw import RawBatch, stack_images
from ssodkit.errors import DataError

KEPT = 256 * 2**20
"""Bytes of pixels up to which a set is decoded to check it, and kept in memory; worker processes share it."""
LISTED = 10
"""Broken images that a message names."""


class Pictures:
    """Decoded images of a set. Small sets are decoded here and now.

    Raises DataError as `decode_image` does.
    """

    def __init__(self, images: ImageSet, keep: bool = True) -> None:
        self.images = images
        self._kept: NDArray[np.uint8] | None = None
        self._ends = np.cumsum(images.sizes.astype(np.int64).prod(axis=1) * 3)
        annotated = bool(len(images)) and images.sizes.min() > 0
        if keep and annotated and self._ends[-1] <= KEPT:
            # One array: as many small ones would be copied into each worker that touches their reference counts.
            pixels = np.empty(self._ends[-1], dtype=np.uint8)
            for index in range(len(images)):
                image = self._decode(index)
                pixels[self._ends[index] - image.size : self._ends[index]] = image.reshape(-1)
            self._kept = pixels

    def read(self, index: int) -> NDArray[np.uint8]:
        """RGB pixels (height, width, 3) of an image."""
        if self._kept is None:
            return self._decode(index)
        height, width = self.images.sizes[index].tolist()
        end = int(self._ends[index])
        return self._kept[end - height * width * 3 : end].reshape(height, width, 3)

    def batch(self, places: Sequence[int], keys: Sequence[int]) -> RawBatch:
        """These images with their labels, as one batch."""
        ids = self.images.ids[np.asarray(places, dtype=np.int64)].tolist()
        return stack_images([self.read(place) for place in places], ids, keys, self.images.targets(places))

    def _decode(self, index: int) -> NDArray[np.uint8]:
        return decode_image(self.images.path(index), _annotated_size(self.images, index))


def refuse_broken(images: ImageSet, on_image: Callable[[], None] = lambda: None) -> None:
    """Raise DataError that lists the images that cannot be read or have another size than annotated.

    Small sets are decoded. Of larger ones only the two ends of each file are looked at, as `check_image` does: that
    takes 0.3 s for 1,000 photographs of 640 x 480, and decoding them 6 s. `on_image()` is called for each image.
    """
    problems = {}
    pixels = 0
    for index in range(len(images)):
        try:
            pixels += check_image(images.path(index), _annotated_size(images, index))
        except DataError as error:
            problems[index] = str(error)
        on_image()
    for index in range(len(images)) if 3 * pixels <= KEPT else ():
        try:
            if index not in problems:
                decode_image(images.path(index), _annotated_size(images, index))
        except DataError as error:
            problems[index] = str(error)
    if problems:
        more = [f"and {len(problems) - LISTED} more"] if len(problems) > LISTED else []
        lines = "".join(f"\n  {line}" for line in [problems[index] for index in sorted(problems)][:LISTED] + more)
        raise DataError(f"{len(problems)} of {len(images)} images cannot be used:{lines}")


def _annotated_size(images: ImageSet, index: int) -> tuple[int, int] | None:
    height, width = images.sizes[index].tolist()
    return (height, width) if height else None


def measured(images: ImageSet, on_progress: Callable[[int, int], None]) -> ImageSet:
    """The same images, the sizes of all of them known. Raises DataError as `refuse_broken` does.

    `on_progress(done, total)` is called on the way.
    """
    done, total = itertools.count(1), len(images) + int(np.count_nonzero(images.sizes[:, 0] == 0))

    def on_image() -> None:
        on_progress(next(done), total)

    refuse_broken(images, on_image)
    return replace(images, sizes=known_sizes(images, on_image))


def known_sizes(images: ImageSet, on_image: Callable[[], None] = lambda: None) -> NDArray[np.int32]:
    """Height and width (n, 2) of all images; where nobody annotated them, from the files, and `on_image()` is called.

    To know whether a PNG file is to be turned, Pillow reads all of it.
    """
    sizes = images.sizes.copy()
    for index in np.flatnonzero(sizes[:, 0] == 0).tolist():
        sizes[index] = read_size(images.path(index))
        on_image()
    return sizes

"""The pixels of an image set: decoded when asked for, or once and kept where they are few."""

import itertools
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ssodkit.data.annotations import ImageSet
from ssodkit.data.decode import check_image, decode_image, read_size
from ssodkit.data.mistakes import printable
from ssodkit.data.raw import RawBatch, stack_images
from ssodkit.errors import DataError

KEPT = 256 * 2**20
"""Bytes of pixels up to which a set is decoded to check it, and kept in memory; worker processes share it."""
LISTED = 10
"""Broken images that a message names."""


class Pictures:
    """Decoded images of a set. Small sets are decoded here and now.

    Raises DataError as `decode_image` does; with `patient`, only where a broken image is asked for.
    """

    def __init__(self, images: ImageSet, keep: bool = True, patient: bool = False) -> None:
        self.images = images
        self._broken: dict[int, DataError] = {}
        self._kept: NDArray[np.uint8] | None = None
        self._ends = np.cumsum(images.sizes.astype(np.int64).prod(axis=1) * 3)
        annotated = bool(len(images)) and images.sizes.min() > 0
        if keep and annotated and self._ends[-1] <= KEPT:
            # One array: as many small ones would be copied into each worker that touches their reference counts.
            pixels = np.empty(self._ends[-1], dtype=np.uint8)
            for index in range(len(images)):
                try:
                    image = self._decode(index)
                except DataError as error:
                    if not patient:
                        raise
                    self._broken[index] = error
                else:
                    pixels[self._ends[index] - image.size : self._ends[index]] = image.reshape(-1)
            self._kept = pixels

    def read(self, index: int) -> NDArray[np.uint8]:
        """RGB pixels (height, width, 3) of an image."""
        if index in self._broken:
            raise self._broken[index]
        if self._kept is None:
            return self._decode(index)
        height, width = self.images.sizes[index].tolist()
        end = int(self._ends[index])
        return self._kept[end - height * width * 3 : end].reshape(height, width, 3)

    def batch(
        self, places: Sequence[int], keys: Sequence[int], pixels: Sequence[NDArray[np.uint8]] | None = None
    ) -> RawBatch:
        """These images with their labels, as one batch; `pixels` are theirs where they have been read."""
        ids = self.images.ids[np.asarray(places, dtype=np.int64)].tolist()
        read = [self.read(place) for place in places] if pixels is None else pixels
        return stack_images(read, ids, keys, self.images.targets(places))

    def _decode(self, index: int) -> NDArray[np.uint8]:
        return decode_image(self.images.path(index), _annotated_size(self.images, index))


def find_broken(images: ImageSet, on_image: Callable[[], None] = lambda: None) -> dict[int, str]:
    """Place -> why, of the images that cannot be read or have another size than annotated.

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
    return dict(sorted(problems.items()))


def list_broken(problems: Collection[str], total: int, what: str = "cannot be used") -> str:
    """How many of how many images, and the first few of the sentences about them, a line each."""
    more = [f"and {len(problems) - LISTED} more"] if len(problems) > LISTED else []
    lines = "".join(f"\n  {line}" for line in [*itertools.islice(problems, LISTED), *more])
    return f"{len(problems)} of {total} images {what}:{lines}"


def _annotated_size(images: ImageSet, index: int) -> tuple[int, int] | None:
    height, width = images.sizes[index].tolist()
    return (height, width) if height else None


def measured(images: ImageSet, on_progress: Callable[[int, int], None], skip: bool = False) -> ImageSet:
    """The same images, the sizes of all of them known; with `skip`, without those that cannot be used, in a note.

    `on_progress(done, total)` is called on the way. Raises DataError that lists the images that cannot be used, and
    where with `skip` no image is left.
    """
    done, total = itertools.count(1), len(images) + int(np.count_nonzero(images.sizes[:, 0] == 0))

    def on_image() -> None:
        on_progress(next(done), total)

    problems = find_broken(images, on_image)
    if problems and not (skip and len(problems) < len(images)):
        raise DataError(list_broken(problems.values(), len(images)))
    if problems:
        note = list_broken(
            [problems[place] for place in sorted(problems)], len(images), "cannot be used and are left out"
        )
        images = images.subset([place for place in range(len(images)) if place not in problems])
        images = replace(images, notes=(*images.notes, printable(note)))
    return replace(images, sizes=known_sizes(images, on_image))


def known_sizes(images: ImageSet, on_image: Callable[[], None] = lambda: None) -> NDArray[np.int32]:
    """Height and width (n, 2) of all images; where not annotated, from the files, and `on_image()` is called."""
    sizes = images.sizes.copy()
    for index in np.flatnonzero(sizes[:, 0] == 0).tolist():
        sizes[index] = read_size(images.path(index))
        on_image()
    return sizes

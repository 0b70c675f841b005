"""What the labels are like: boxes that stand twice, classes that are rare or missing, sizes of images."""

from collections.abc import Iterator, Mapping

import numpy as np

from ssodkit.data.annotations import ImageSet
from ssodkit.data.decode import read_size
from ssodkit.data.mistakes import listed
from ssodkit.data.sets import DataSets
from ssodkit.data.survey import Survey, drawn_twice, spread
from ssodkit.engine.doctor.findings import Finding
from ssodkit.errors import DataError

RARE = 50
"""A class with so many times fewer boxes than the most frequent one is named."""
SIZES = 200
"""Unlabeled images, evenly spaced, whose sizes are read."""
DIFFERENT = 2.0
"""By which factor images of two sets may differ in size."""


def check_labels(read: Mapping[str, ImageSet], sets: DataSets, seen: Survey) -> list[Finding]:
    """What looks strange in labels and images, and what reading them noted; `seen` is of the labeled ones."""
    notes = [Finding("warning", "data", "", note.removesuffix(".")) for note in sets.notes]
    return [*notes, *_twins(read), *_classes(seen, sets), *_sizes(sets, seen)]


def _twins(read: Mapping[str, ImageSet]) -> Iterator[Finding]:
    for key, images in read.items():
        twice = drawn_twice(images)
        if twice:
            what = f"in {len(twice)} images two boxes of one class are almost the same: {listed(twice, images.name)}"
            yield Finding("warning", "boxes", key, what, "Remove one of each pair: one object is found once")


def _classes(seen: Survey, sets: DataSets) -> Iterator[Finding]:
    counts = listed(seen.classes, lambda each: f"{each.name} {each.boxes} in {each.images}", at_most=30)
    per_image = f"{seen.per_image.median:g} boxes an image in the median, up to {seen.per_image.most:g}"
    yield Finding("note", "classes", "", f"boxes in {seen.images} labeled images: {counts}; {per_image}")
    tested = sets.test.boxes_per_class().tolist()
    untaught = [each.name for each, boxes in zip(seen.classes, tested, strict=True) if boxes and not each.boxes]
    if untaught:
        what = f"{len(untaught)} classes are scored, and no labeled image shows them: {listed(untaught)}"
        yield Finding("warning", "classes", "data.train", what, "Label some, or draw by class: data.shots")
    most = max((each.boxes for each in seen.classes), default=0)
    rare = [each for each in seen.classes if 0 < RARE * each.boxes < most]
    if rare:
        shown = listed(rare, lambda each: f"{each.name} {each.boxes}")
        what = f"classes with fewer than one {RARE}th of the boxes of the most frequent one: {shown}"
        yield Finding("warning", "classes", "data.train", what, "Label more of them: so few boxes teach little")
    if seen.images and seen.empty > seen.images / 2:
        what = f"{seen.empty} of {seen.images} labeled images have no box"
        yield Finding("warning", "classes", "data.labeled", what, "`data.labeled.empty_images: drop` leaves them out")


def _sizes(sets: DataSets, seen: Survey) -> Iterator[Finding]:
    short, long = seen.short_sides, seen.long_sides
    what = f"labeled images are {short.median:g} x {long.median:g} pixels in the median"
    yield Finding("note", "sizes", "", f"{what}, with short sides of {short.least:g} to {short.most:g}")
    for key, images in (("data.unlabeled", sets.unlabeled), ("data.test", sets.test)):
        other = 0.0 if images is None else _median_short_side(images)
        if other and short.median and not 1 / DIFFERENT <= other / short.median <= DIFFERENT:
            what = f"its images have short sides of {other:g} pixels in the median, the labeled ones {short.median:g}"
            yield Finding("warning", "sizes", key, what, "If their objects differ in size, too, set `views.size`")


def _median_short_side(images: ImageSet) -> float:
    """Of up to 200 images, where their sizes are known or can be read; 0 where none is."""
    sides = []
    for place in np.linspace(0, len(images) - 1, min(SIZES, len(images))).astype(np.int64).tolist():
        height, width = images.sizes[place].tolist()
        try:
            sides.append(min((height, width) if height else read_size(images.path(place))))
        except DataError:
            continue  # broken files are listed with all others
    return spread(sides).median

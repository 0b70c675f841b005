"""Several sets of images as one: what a list of sources in a recipe means."""

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssodkit.data.annotations import Category, ImageSet, make_image_set
from ssodkit.data.checks import ROUNDING, in_table
from ssodkit.data.lookup import below_one_folder
from ssodkit.data.mistakes import listed
from ssodkit.errors import DataError


def join(parts: Sequence[ImageSet], labeled: bool = True) -> ImageSet:
    """All images in the order of their sets; image ids count from 1, and a single set stays as it is.

    Classes are joined by name: those of the first set keep order and ids, new names follow as they appear. An image
    file that is in two sets, under whatever path, is taken once where it has the same boxes in both. Raises DataError
    where it has others; of images that need not be `labeled`, the first set counts. Where nobody looked for boxes in
    one set, none has any.
    """
    if len(parts) == 1:
        return parts[0]
    if not labeled and not all(part.categories for part in parts):
        parts = [part.without_labels() for part in parts]
    table = _table(parts)
    parts = [in_table("", part, table) for part in parts]
    whole = _concatenated(parts, table)
    again = _again(whole, [len(part) for part in parts], labeled)
    if not again:
        return whole
    shown = listed((str(whole.path(place)) for place in again), at_most=3)
    kept = whole.subset(np.setdiff1d(np.arange(len(whole)), again))
    return replace(
        kept,
        ids=np.arange(1, len(kept) + 1),
        notes=(*whole.notes, f"{len(again)} images are in two sources, and are taken once: {shown}"),
    )


def _table(parts: Sequence[ImageSet]) -> tuple[Category, ...]:
    table = list(parts[0].categories)
    names = {category.name for category in table}
    for name in dict.fromkeys(category.name for part in parts for category in part.categories):
        if name not in names:
            table.append(Category(max((category.id for category in table), default=0) + 1, name))
    return tuple(table)


def _concatenated(parts: Sequence[ImageSet], table: tuple[Category, ...]) -> ImageSet:
    root, names = below_one_folder([str(part.path(index)) for part in parts for index in range(len(part))])
    starts = np.cumsum([0, *(len(part) for part in parts)])

    def column(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(part, name) for part in parts])

    owners = [np.repeat(np.arange(len(part)), part.boxes_per_image()) for part in parts]
    return make_image_set(
        root,
        names,
        range(1, len(names) + 1),
        column("sizes"),
        table,
        np.concatenate([owner + start for owner, start in zip(owners, starts[:-1], strict=True)]),
        **{name: column(name) for name in ("boxes", "labels", "areas", "crowd", "difficult", "scores")},
        notes=[note for part in parts for note in part.notes],
    )


def _again(images: ImageSet, counts: Sequence[int], labeled: bool) -> list[int]:
    """Places of images whose files are in an earlier set. Raises DataError where their boxes differ."""
    source = np.repeat(np.arange(len(counts)), counts)
    places: defaultdict[str, list[int]] = defaultdict(list)
    for place in range(len(images)):
        places[os.path.realpath(images.path(place))].append(place)
    pairs = [(same[0], place) for same in places.values() for place in same[1:] if source[same[0]] != source[place]]
    wrong = [pair for pair in pairs if labeled and not _same_boxes(images, *pair)]
    if wrong:
        counts_of = images.boxes_per_image()
        shown = listed(
            wrong,
            lambda pair: (
                f"{images.path(pair[0])} (of source {source[pair[0]]}, {counts_of[pair[0]]} boxes) = "
                f"{images.path(pair[1])} (of source {source[pair[1]]}, {counts_of[pair[1]]} boxes)"
            ),
            at_most=3,
        )
        raise DataError(
            f"{len(wrong)} images are in two sources with different boxes: {shown}. Leave each in one of them; sources "
            "are counted from 0."
        )
    return sorted(place for _, place in pairs)


def _same_boxes(images: ImageSet, first: int, second: int) -> bool:
    mine, theirs = (_sorted_boxes(images, place) for place in (first, second))
    return mine.shape == theirs.shape and bool(np.allclose(mine, theirs, rtol=0, atol=ROUNDING))


def _sorted_boxes(images: ImageSet, place: int) -> NDArray[Any]:
    """What is known of each box of an image, a row each, in an order that follows from it."""
    part = slice(*images.offsets[place : place + 2].tolist())
    rows = np.column_stack([images.labels[part], images.crowd[part], images.difficult[part], images.boxes[part]])
    return rows[np.lexsort(rows.T[::-1])]

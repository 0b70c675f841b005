"""Stored pseudo-labels: the file that `ssodkit label` writes, and the images that a run trains on with it.

It is COCO JSON with a `score` per annotation (`data/writing.py`), and says in `info` which network labeled.
Source: Sohn et al., STAC, arXiv:2005.04757; google-research/ssl_detection.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssodkit.data.annotations import Category, ImageSet
from ssodkit.data.checks import in_table
from ssodkit.data.coco import load_coco, parse_coco
from ssodkit.data.config import StoredSource
from ssodkit.data.mistakes import listed, naming
from ssodkit.errors import DataError

FOLD = "labeled_fold"
"""In `info`: the hash of the images whose labels the network has learned; absent or null where it is not known."""


def read_stored(file: Path) -> tuple[ImageSet, Mapping[str, Any]]:
    """The images of a file with their scored boxes, and its `info`. Image files need not exist.

    Raises DataError for whatever is no COCO file with scores.
    """
    document = load_coco(file, key="file")
    info = document.get("info")
    return parse_coco(document, file, None, "drop", scored=True), info if isinstance(info, dict) else {}


def with_stored_labels(
    pool: ImageSet, source: StoredSource, categories: tuple[Category, ...], fold: str
) -> tuple[ImageSet, tuple[str, ...]]:
    """The images of `pool` of which boxes are stored, with those that teach; and what was left out, in sentences.

    Images are known by their file names. `fold` is the hash of this run's labeled images. Raises DataError that
    lists whatever shows that the boxes are not for these images, classes or this fold.
    """
    assert source.file is not None
    with naming("data.unlabeled"):
        stored, info = read_stored(source.file)
    places = _places(stored, pool)
    _refuse_other(stored, pool, places, categories, info.get(FOLD) or fold, fold, source.file)
    stored = in_table("data.unlabeled", stored, categories)
    keep = sure_boxes(stored.scores, stored.offsets, source.above, source.at_least)
    counts = stored.boxes_per_image(keep)
    taught = np.flatnonzero(counts)
    taught = taught[np.argsort(places[taught], kind="stable")]
    mine = pool.subset(places[taught])
    kept = stored.with_boxes(keep).subset(taught)
    labels = replace(kept, root=mine.root, ids=mine.ids, sizes=np.where(mine.sizes > 0, mine.sizes, kept.sizes))
    below = counts - stored.boxes_per_image(keep & (stored.scores >= np.float32(source.above)))
    return labels, (*stored.notes, *_notes(source, labels, below, len(pool)))


def sure_boxes(
    scores: NDArray[np.float32], offsets: NDArray[np.int64], above: float, at_least: int
) -> NDArray[np.bool_]:
    """Which boxes teach: those that score `above` or more, or as much as the `at_least`-th best of their image.

    The boxes of image i are the rows `offsets[i]` to `offsets[i + 1]`. `above` is STAC's tau: with `at_least` 0 the
    threshold is tau, as in the paper; with 1 it is min(tau, best score), as in google-research/ssl_detection.
    """
    counts = np.diff(offsets)
    owner = np.repeat(np.arange(len(counts)), counts)
    limit = np.full(len(counts), above, dtype=np.float32)  # in fp32 as the scores: 0.9 reaches 0.9
    if at_least and len(scores):
        falling = scores[np.lexsort((-scores, owner))]
        filled = counts > 0
        place = offsets[:-1] + np.minimum(at_least, counts) - 1
        limit[filled] = np.minimum(limit[filled], falling[place[filled]])
    return np.asarray(scores >= limit[owner])


def _places(stored: ImageSet, pool: ImageSet) -> NDArray[np.int64]:
    """Where each stored image stands in the pool; -1 where it is not there."""
    place_of = {pool.name(index): index for index in range(len(pool))}
    return np.array([place_of.get(stored.name(index), -1) for index in range(len(stored))], dtype=np.int64)


def _refuse_other(
    stored: ImageSet,
    pool: ImageSet,
    places: NDArray[np.int64],
    categories: tuple[Category, ...],
    labeled_by: object,
    fold: str,
    file: Path,
) -> None:
    problems = []
    unknown = np.flatnonzero(places < 0).tolist()
    if unknown:
        problems.append(
            f"{len(unknown)} of its {len(stored)} images are not among the {len(pool)} unlabeled ones "
            f"({listed(unknown, stored.name)}). Name in data.unlabeled.of the images that were labeled."
        )
    known = np.flatnonzero(places >= 0)
    theirs, mine = stored.sizes[known], pool.sizes[places[known]]
    resized = known[((mine > 0) & (theirs != mine)).any(axis=1)].tolist()
    if resized:
        shown = listed(resized, lambda index: f"{stored.name(index)} {_size(stored, index)}")
        problems.append(f"{len(resized)} images have other sizes there, height x width, than here ({shown}).")
    try:
        in_table("the file", stored, categories)
    except DataError as error:
        problems.append(str(error))
    if labeled_by != fold:
        problems.append(
            f"the network that made it learned from other labeled images (hash {labeled_by} there, {fold} here): what "
            "it knows of them would leak into this fold. Label with a run of the same data.percent and data.fold."
        )
    if problems:
        lines = "".join(f"\n  {problem}" for problem in problems)
        raise DataError(f"data.unlabeled: {file} holds no labels for this run:{lines}")


def _size(images: ImageSet, index: int) -> str:
    return "x".join(str(side) for side in images.sizes[index].tolist())


def _notes(source: StoredSource, labels: ImageSet, below: NDArray[np.int64], images: int) -> list[str]:
    """What teaches, and what does not; `below` counts per stored image the boxes that teach as the best of it."""
    if not len(labels):
        return [
            f"{source.file} has no box that reaches {source.above:g}, or none at all: no unlabeled image is left, and "
            "this run learns from labeled images alone"
        ]
    text = f"{len(labels.boxes)} stored boxes of {len(labels)} unlabeled images teach"
    if below.any():
        text += (
            f"; {below.sum()} of them are the best of their {np.count_nonzero(below)} images and below {source.above:g}"
        )
    if len(labels) < images:
        text += f"; {images - len(labels)} images without such a box are left out"
    return [text]

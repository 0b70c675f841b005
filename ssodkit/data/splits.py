"""Folds: which images of a training set keep their labels.

`stac` and `soft_teacher` draw places in the file order of the annotation file from NumPy's legacy generator, as
google-research/ssl_detection and microsoft/SoftTeacher do; `list` reads the explicit lists of
facebookresearch/unbiased-teacher.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

from ssodkit.data.annotations import ImageSet
from ssodkit.data.checks import duplicates
from ssodkit.data.config import ListFolds
from ssodkit.data.files import write_whole
from ssodkit.data.mistakes import listed, naming, shown
from ssodkit.data.reading import read_json
from ssodkit.errors import DataError


@dataclass(frozen=True)
class Fold:
    """The labeled images of a run, by their ids."""

    mode: str
    """`stac`, `soft_teacher` or `list`; `all` where every image is labeled."""
    percent: float
    fold: int
    image_ids: tuple[int, ...]
    """Sorted."""

    @property
    def hash(self) -> str:
        """16 hexadecimal digits that stand for the image ids: equal sets of images, equal hashes."""
        return hashlib.blake2b(np.array(self.image_ids, dtype="<i8").tobytes(), digest_size=8).hexdigest()

    def facts(self) -> dict[str, Any]:
        """What a result must be read with: which fold, and how many images."""
        names = ("mode", "percent", "fold", "hash")
        return {**{name: getattr(self, name) for name in names}, "images": len(self.image_ids)}

    def save(self, file: Path) -> None:
        """Write the fold as JSON; the file appears whole or not at all."""
        write_whole(file, json.dumps({**asdict(self), "hash": self.hash}) + "\n")


def draw_fold(images: ImageSet, mode: str | ListFolds, percent: float, fold: int) -> Fold:
    """The labeled images at `percent` of `images`, which stand in the file order of their annotations.

    At 100 percent all images are labeled, in every mode. Raises DataError if no image is.
    """
    if percent == 100.0:
        name, places = "all", np.arange(len(images))
    elif isinstance(mode, ListFolds):
        name = mode.type
        with naming("data.folds"):
            places = _listed_places(images, mode.file, percent, fold)
    else:
        name, places = mode, draw_places(mode, len(images), percent, fold)
    if not len(places):
        raise DataError(
            f"data.percent: {percent:g} percent of {len(images)} training images is not one image. "
            f"Set data.percent to {100 / max(len(images), 1):.2g} or more."
        )
    return Fold(name, percent, fold, tuple(np.sort(images.ids[places]).tolist()))


def draw_places(mode: str, count: int, percent: float, fold: int) -> NDArray[np.int64]:
    """Distinct places, sorted, of the labeled ones among `count` images.

    `stac` draws with replacement and keeps the distinct places, so that 10 percent are about 9.5.
    """
    random = RandomState(fold)
    draws = int(percent / 100 * count)  # truncated in double precision, as all code bases have it
    if mode == "stac":
        return np.unique(random.randint(0, count, size=draws)) if draws else np.zeros(0, dtype=np.int64)
    return np.sort(random.choice(count, size=draws, replace=False))


def _listed_places(images: ImageSet, file: Path, percent: float, fold: int) -> NDArray[np.int64]:
    """Places of a listed run: the file counts in the id-sorted list of images that have a box which is no crowd."""
    filled = np.flatnonzero(images.boxes_per_image(~images.crowd))
    base = filled[np.argsort(images.ids[filled], kind="stable")]
    chosen = _listed_run(file, percent, fold)
    wrong = [place for place in chosen if type(place) is not int or not 0 <= place < len(base)]
    if wrong:
        raise DataError(
            f"{file}: {percent:g} percent, run {fold} has the position {shown(wrong[0])}; positions are whole numbers "
            f"below {len(base)}, the images of data.train with a box. Was the list made for another set?"
        )
    twice = duplicates(chosen)
    if twice:
        raise DataError(f"{file}: {percent:g} percent, run {fold} has the position {chosen[twice[0][0]]} twice.")
    return np.sort(base[np.array(chosen, dtype=np.int64)])


def _listed_run(file: Path, percent: float, fold: int) -> list[Any]:
    form = "a list of folds is JSON, percent -> run -> positions"
    lists = read_json(file, "Check `file`.")
    if not isinstance(lists, dict):
        raise DataError(f"{file} is no list of folds: it holds a {type(lists).__name__}, but {form}.")
    try:
        percents = [float(key) for key in lists]
    except ValueError as error:
        raise DataError(f"{file} is no list of folds: {error}, but {form}.") from error
    if twice := duplicates(percents):
        raise DataError(f"{file} has the percent {percents[twice[0][0]]:g} twice. Remove one of them.")
    run = dict(zip(percents, lists.values(), strict=True)).get(percent)
    if not isinstance(run, dict) or not isinstance(run.get(str(fold)), list):
        has = f"the runs {listed(run, shown)}" if isinstance(run, dict) else f"the percents {listed(lists, shown)}"
        raise DataError(f"{file} has no list for {percent:g} percent, run {fold}; it has {has}.")
    chosen: list[Any] = run[str(fold)]
    if not chosen:
        raise DataError(f"{file}: {percent:g} percent, run {fold} is an empty list, and a run needs a labeled image.")
    return chosen

"""Folds: which images of a training set keep their labels: a share of them, or so many of each class.

Of a share, `stac` and `soft_teacher` draw places in the file order of the annotation file from NumPy's legacy
generator, as google-research/ssl_detection and microsoft/SoftTeacher do; `list` reads the explicit lists of
facebookresearch/unbiased-teacher. So many of each class are drawn by the images' ids, in whatever order they stand.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.random import RandomState
from numpy.typing import NDArray

from ssodkit.data.annotations import ImageSet
from ssodkit.data.checks import duplicates
from ssodkit.data.config import ListFolds
from ssodkit.data.files import write_whole
from ssodkit.data.mistakes import listed, naming, shown
from ssodkit.data.reading import read_json
from ssodkit.data.shares import Share
from ssodkit.errors import DataError
from ssodkit.ops.random import make_key, uniform


@dataclass(frozen=True)
class Fold:
    """The labeled images of a run, by their ids."""

    mode: str
    """`stac`, `soft_teacher`, `list` or `shots`; `all` where every image is labeled."""
    percent: float
    shots: int | None
    """Images of each class, where they were drawn by class; `percent` says nothing then."""
    fold: int
    image_ids: tuple[int, ...]
    """Sorted."""
    validation_ids: tuple[int, ...] = ()
    test_ids: tuple[int, ...] = ()
    """Of the training images that are held out, which have labels and teach nothing; sorted."""

    @property
    def hash(self) -> str:
        """16 hexadecimal digits that stand for the image ids: equal sets of images, equal hashes."""
        return hashlib.blake2b(np.array(self.image_ids, dtype="<i8").tobytes(), digest_size=8).hexdigest()

    def describe(self) -> str:
        """In words, without the hash."""
        share = Share(self.percent, self.shots)
        match self.mode:
            case "all":
                return "all"
            case "shots":
                return f"{share.heading}, fold {self.fold}"
        return f"{share}, folds {self.mode}, fold {self.fold}"

    def facts(self) -> dict[str, Any]:
        """What a result must be read with: which fold, and how many images."""
        names = ("mode", "percent", "shots", "fold", "hash")
        return {**{name: getattr(self, name) for name in names}, "images": len(self.image_ids)}

    def save(self, file: Path) -> None:
        """Write the fold as JSON; the file appears whole or not at all."""
        write_whole(file, json.dumps({**asdict(self), "hash": self.hash}) + "\n")


def draw_fold(images: ImageSet, mode: str | ListFolds, share: Share, fold: int) -> Fold:
    """The labeled images at this share of `images`, which stand in the file order of their annotations.

    At 100 percent all images are labeled, in every mode, which says how percentages are drawn. Raises DataError if no
    image is.
    """
    percent = share.percent
    if share.shots is not None:
        name, places = "shots", draw_shots(images, share.shots, fold)
    elif percent == 100.0:
        name, places = "all", np.arange(len(images))
    elif isinstance(mode, ListFolds):
        name = mode.type
        with naming("data.folds"):
            places = _listed_places(images, mode.file, percent, fold)
    else:
        name, places = mode, draw_places(mode, len(images), percent, fold)
    if not len(places) and share.shots is not None:
        raise DataError("data.shots: no training image has a box that can be learned. Set data.percent instead.")
    if not len(places):
        raise DataError(
            f"data.percent: {percent:g} percent of {len(images)} training images is not one image. "
            f"Set data.percent to {100 / max(len(images), 1):.2g} or more."
        )
    return Fold(name, *share, fold, tuple(np.sort(images.ids[places]).tolist()))


def draw_places(mode: str, count: int, percent: float, fold: int) -> NDArray[np.int64]:
    """Distinct places, sorted, of the labeled ones among `count` images.

    `stac` draws with replacement and keeps the distinct places, so that 10 percent are about 9.5.
    """
    random = RandomState(fold)
    draws = int(percent / 100 * count)  # truncated in double precision, as all code bases have it
    if mode == "stac":
        return np.unique(random.randint(0, count, size=draws)) if draws else np.zeros(0, dtype=np.int64)
    return np.sort(random.choice(count, size=draws, replace=False))


def draw_shots(images: ImageSet, shots: int, fold: int) -> NDArray[np.int64]:
    """Distinct places, sorted, such that each class is shown by so many images at least, or by all that show it.

    An image shows a class by a box that can be learned, and counts for every class that it shows; those that show none
    are not drawn. All images stand in one order, drawn from `fold` and their ids. Round by round, up to `shots` of
    them, each class that fewer of the drawn images show than rounds have begun takes the next image of that order that
    shows it, the class of the fewest images first. So fewer shots are a beginning of more, and a class that stands
    beside others in their images takes none of its own: the images are fewer than classes times shots.
    """
    shown = shown_classes(images)
    order = drawn_order(images.ids, "shots", fold)
    queues = {label: order[shown[order, label]].tolist() for label in by_rarity(shown)}
    drawn = np.zeros(len(images), dtype=bool)
    counts = np.zeros(shown.shape[1], dtype=np.int64)
    for begun in range(1, shots + 1):
        for label, queue in queues.items():
            if counts[label] < min(begun, len(queue)):
                place = next(place for place in queue if not drawn[place])
                drawn[place] = True
                counts += shown[place]
    return np.flatnonzero(drawn)


def few_shots(images: ImageSet, shots: int) -> tuple[str, ...]:
    """A sentence on the classes that fewer than `shots` of `images` show; of those that none shows, others speak."""
    counts = zip(images.categories, shown_classes(images).sum(axis=0).tolist(), strict=True)
    few = [f"{category.name} ({count})" for category, count in counts if 0 < count < shots]
    if not few:
        return ()
    return (f"data.shots is {shots}, but fewer images show these classes, and all of them are labeled: {listed(few)}",)


def shown_classes(images: ImageSet) -> NDArray[np.bool_]:
    """Whether each image shows each class (n, classes): has a box of it that can be learned."""
    shown = np.zeros((len(images), len(images.categories)), dtype=bool)
    taught = ~(images.crowd | images.difficult)
    owners = np.repeat(np.arange(len(images)), images.boxes_per_image())
    shown[owners[taught], images.labels[taught]] = True
    return shown


def by_rarity(shown: NDArray[np.bool_]) -> list[int]:
    """The classes that any image shows, the one of the fewest images first."""
    counts = shown.sum(axis=0)
    return [label for label in np.argsort(counts, kind="stable").tolist() if counts[label]]


def drawn_order(ids: NDArray[np.int64], *purpose: int | str) -> NDArray[np.int64]:
    """Places of images in an order drawn from their ids and a purpose; the order they stand in says nothing."""
    keys = torch.tensor([make_key(*purpose, number) for number in ids.tolist()], dtype=torch.int64)
    return np.lexsort((ids, uniform(keys, (1,), "order")[:, 0].numpy()))


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

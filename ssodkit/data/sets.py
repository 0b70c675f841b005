"""The image sets of a recipe, read, checked and split: everything that can fail about data fails here."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ssodkit.data.annotations import Category, ImageSet
from ssodkit.data.checks import in_table, listed
from ssodkit.data.coco import read_coco
from ssodkit.data.config import (
    CocoSource,
    DataConfig,
    DigitsSource,
    FolderSource,
    ImageSource,
    LabeledRule,
    LabeledSource,
    RestSource,
    StoredSource,
    VocSource,
)
from ssodkit.data.digits import open_digits
from ssodkit.data.folder import read_folder
from ssodkit.data.overlap import shared_files
from ssodkit.data.pictures import refuse_broken
from ssodkit.data.splits import Fold, draw_fold
from ssodkit.data.stored import with_stored_labels
from ssodkit.data.voc import read_voc
from ssodkit.errors import DataError

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class DataSets:
    """What a recipe's `data` opens. All labels count in the table `categories`."""

    labeled: ImageSet
    unlabeled: ImageSet | None
    """Without labels, or with stored ones; None where a step takes no unlabeled image."""
    hidden: ImageSet | None
    """The unlabeled images, in the same order, with the labels that no step may see; None where nobody knows them."""
    labeled_too: NDArray[np.int64]
    """Ids of those unlabeled images that are labeled ones as well, which health reports leave out."""
    test: ImageSet
    validation: ImageSet | None
    fold: Fold
    categories: tuple[Category, ...]
    notes: tuple[str, ...]
    """What was left out, clipped or looks suspicious, in sentences."""


def open_data(config: DataConfig, on_progress: OnProgress | None = None) -> DataSets:
    """Read all sets of a recipe. `on_progress(done, total)` is called while embedded data is made.

    Raises DataError that begins with the key of the recipe it is about. Of the image files only their names are
    looked at: `check_images` looks into them.
    """
    train = _read("data.train", config.train, on_progress)
    fold = draw_fold(train, config.folds, config.percent, config.fold)
    chosen = np.isin(train.ids, fold.image_ids)
    labeled = apply_rule(_without_dropped(train.subset(np.flatnonzero(chosen)), config), config.labeled)
    pool = _unlabeled_pool(train, chosen, config.unlabeled_images, on_progress) if config.batch.unlabeled else None
    # The one place where labels are taken from unlabeled images: whatever trains on them gets this set.
    unlabeled = None if pool is None else pool.without_labels()
    notes: tuple[str, ...] = ()
    if pool is not None and unlabeled is not None and isinstance(config.unlabeled, StoredSource):
        unlabeled, notes = with_stored_labels(unlabeled, config.unlabeled, train.categories, fold.hash)
        pool = pool.subset(pool.positions(unlabeled.ids)) if len(unlabeled) else None
        unlabeled = unlabeled if len(unlabeled) else None
    test = in_table("data.test", _read("data.test", config.test, on_progress), train.categories)
    validation = None
    if config.validation is not None:
        validation = _read("data.validation", config.validation, on_progress)
        validation = in_table("data.validation", validation, train.categories)
    read = [images for images in (train, labeled, pool, test, validation) if images is not None]
    return DataSets(
        labeled=labeled,
        unlabeled=unlabeled,
        hidden=_known_labels(pool, train.categories),
        labeled_too=_same_files(labeled, unlabeled),
        test=test,
        validation=validation,
        fold=fold,
        categories=train.categories,
        notes=tuple(
            dict.fromkeys(
                [note for images in read for note in images.notes]
                + list(notes)
                + _missing_boxes(labeled, test)
                + _leaks(config, train, pool, test)
            )
        ),
    )


def open_unlabeled(config: DataConfig, on_progress: OnProgress | None = None) -> ImageSet:
    """The unlabeled images of a recipe, without labels, also where its steps take none; perhaps there is no image.

    Raises DataError as `open_data` does, and where the recipe names no unlabeled images.
    """
    source = config.unlabeled_images
    if source is None:
        raise DataError("data.unlabeled names no images. Give a folder of images, or name the images there.")
    if not isinstance(source, RestSource):
        return _read("data.unlabeled", source, on_progress).without_labels()
    train = _read("data.train", config.train, on_progress)
    if source.include_labeled:
        return train.without_labels()
    fold = draw_fold(train, config.folds, config.percent, config.fold)
    return train.subset(np.flatnonzero(~np.isin(train.ids, fold.image_ids))).without_labels()


def check_images(sets: DataSets) -> None:
    """Read the headers of all image files that a run will open: that each is an image, of the size that was annotated.

    Raises DataError that lists those which cannot be used.
    """
    every = {"train": sets.labeled, "unlabeled": sets.unlabeled, "test": sets.test, "validation": sets.validation}
    for key, images in every.items():
        try:
            if images is not None:
                refuse_broken(images)
        except DataError as error:
            raise DataError(f"data.{key}: {error}") from error


def apply_rule(images: ImageSet, rule: LabeledRule) -> ImageSet:
    """Labeled images as a recipe wants them; the answer's notes say how many images and boxes were left out.

    Raises DataError if no image is left.
    """
    notes = []
    if rule.crowd == "drop" and images.crowd.any():
        notes.append(f"{np.count_nonzero(images.crowd)} crowd boxes of labeled images are not used")
        images = images.with_boxes(~images.crowd)
    small = images.sizes.min(axis=1) < rule.minimum_side
    if small.any():
        notes.append(f"{np.count_nonzero(small)} labeled images with a side under {rule.minimum_side} px are left out")
        images = images.subset(np.flatnonzero(~small))
    kept = _largest(images, rule.at_most)
    if not kept.all():
        notes.append(f"{np.count_nonzero(~kept)} boxes beyond the {rule.at_most} largest of their images are not used")
        images = images.with_boxes(kept)
    empty = images.boxes_per_image(~(images.crowd | images.difficult)) == 0
    if rule.empty_images == "drop" and empty.any():
        notes.append(f"{np.count_nonzero(empty)} labeled images without a box that can be learned are left out")
        images = images.subset(np.flatnonzero(~empty))
    if not len(images):
        raise DataError(
            f"data.labeled leaves no labeled image: {'; '.join(notes)}. Change data.labeled, or give more labels."
        )
    return replace(images, notes=images.notes + tuple(notes))


def _read(key: str, source: LabeledSource | FolderSource, on_progress: OnProgress | None) -> ImageSet:
    try:
        match source:
            case CocoSource():
                labeled = key != "data.unlabeled"
                images = read_coco(source.annotations, source.images, source.zero_size_boxes, labeled)
            case VocSource():
                images = read_voc(source.root, source.split, source.classes, source.zero_size_boxes)
            case DigitsSource():
                images = open_digits(source, on_progress)
            case FolderSource():
                images = read_folder(source.images)
    except DataError as error:
        raise DataError(f"{key}: {error}") from error
    if not len(images):
        raise DataError(f"{key}: no image is listed there.")
    return images


def _without_dropped(images: ImageSet, config: DataConfig) -> ImageSet:
    if not (isinstance(config.train, VocSource) and config.train.difficult == "drop" and images.difficult.any()):
        return images
    note = f"{np.count_nonzero(images.difficult)} difficult boxes of labeled images are not used"
    return replace(images.with_boxes(~images.difficult), notes=(*images.notes, note))


def _unlabeled_pool(
    train: ImageSet, chosen: NDArray[np.bool_], source: ImageSource | None, on_progress: OnProgress | None
) -> ImageSet | None:
    """The unlabeled images, still with the labels their source has."""
    if source is None:
        return None
    if not isinstance(source, RestSource):
        return _read("data.unlabeled", source, on_progress)
    rest = train if source.include_labeled else train.subset(np.flatnonzero(~chosen))
    if not len(rest):
        raise DataError(
            "data.unlabeled: every training image is labeled, so there is no rest. Lower data.percent, set "
            "data.unlabeled.include_labeled, or set data.batch.unlabeled to 0."
        )
    return rest


def _known_labels(pool: ImageSet | None, categories: tuple[Category, ...]) -> ImageSet | None:
    if pool is None or not len(pool.boxes) or set(pool.categories) != set(categories):
        return None
    return in_table("data.unlabeled", pool, categories)


def _largest(images: ImageSet, at_most: int) -> NDArray[np.bool_]:
    """Which boxes are among the `at_most` largest of their image."""
    owner = np.repeat(np.arange(len(images)), images.boxes_per_image())
    areas = np.prod(images.boxes[:, 2:] - images.boxes[:, :2], axis=1)
    order = np.lexsort((-areas, owner))
    kept = np.empty(len(order), dtype=bool)
    kept[order] = np.arange(len(order)) - images.offsets[owner] < at_most
    return kept


def _missing_boxes(labeled: ImageSet, test: ImageSet) -> list[str]:
    """Warnings about classes without a box that is learned or scored."""
    names = [category.name for category in labeled.categories]
    notes = []
    for what, images in (("labeled", labeled), ("test", test)):
        counts = np.bincount(images.labels[~(images.crowd | images.difficult)], minlength=len(names))
        missing = [name for name, count in zip(names, counts.tolist(), strict=True) if not count]
        if len(missing) == len(names):
            notes.append(f"no {what} image has a box")
        elif missing:
            notes.append(f"{len(missing)} of {len(names)} classes have no box in the {what} images: {listed(missing)}")
    return notes


def _same_files(labeled: ImageSet, unlabeled: ImageSet | None) -> NDArray[np.int64]:
    """Ids of the unlabeled images that are labeled ones. Equal ids of two sources mean nothing: many count from 1."""
    if unlabeled is None:
        return np.zeros(0, dtype=np.int64)
    known = {str(labeled.path(place)) for place in range(len(labeled))}
    return unlabeled.ids[[str(unlabeled.path(place)) in known for place in range(len(unlabeled))]]


def _leaks(config: DataConfig, train: ImageSet, pool: ImageSet | None, test: ImageSet) -> list[str]:
    """Warnings about images that are trained on and tested on. Parts of the embedded data are apart by construction."""
    trained: dict[str, tuple[LabeledSource | FolderSource, ImageSet]] = {"data.train": (config.train, train)}
    source = config.unlabeled_images
    if pool is not None and source is not None and not isinstance(source, RestSource):
        trained["data.unlabeled"] = (source, pool)
    notes = []
    for key, (source, images) in trained.items():
        if (
            isinstance(source, DigitsSource)
            and isinstance(config.test, DigitsSource)
            and source.part != config.test.part
        ):
            continue
        pairs = shared_files(images, test)
        if pairs:
            shown = listed(pairs, lambda pair: f"{pair[0]} = {pair[1]}", at_most=3)
            notes.append(f"{key} and data.test share {len(pairs)} images by content ({shown}): results say too much")
    return notes

"""The image sets of a recipe, read, checked and split: everything that can fail about data fails here."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssodkit.data.annotations import Category, ImageSet
from ssodkit.data.checks import in_table
from ssodkit.data.coco import read_coco
from ssodkit.data.config import (
    CocoSource,
    DataConfig,
    DigitsSource,
    FolderSource,
    HeldOutSource,
    LabeledRule,
    ReadSource,
    RestSource,
    StoredSource,
    VocSource,
    YoloSource,
    sources_of,
)
from ssodkit.data.digits import open_digits
from ssodkit.data.folder import read_folder
from ssodkit.data.joined import join
from ssodkit.data.mistakes import Refusals, listed, naming, printable
from ssodkit.data.overlap import shared_files
from ssodkit.data.parts import Parts, take_parts
from ssodkit.data.recognize import recognize
from ssodkit.data.splits import Fold
from ssodkit.data.stored import with_stored_labels
from ssodkit.data.voc import read_voc
from ssodkit.data.yolo import read_yolo
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
    """Read all sets of a recipe. `on_progress(done, total)` is called while embedded data is made or sizes are read.

    Raises one DataError that shows the mistakes in all of them, each with the key of the recipe it is about. Of the
    image files only their names are looked at: `look_into` opens them.
    """
    return assemble(config, *read_sources(config, on_progress))


def read_sources(config: DataConfig, on_progress: OnProgress | None = None) -> tuple[dict[str, ImageSet], Refusals]:
    """What each source of a recipe holds, by its key such as `data.train`, and the mistakes in the others.

    Of an unlabeled source that is only the rest of the training images, and of one that no step takes, there is none.
    """
    refusals = Refusals()
    read: dict[str, ImageSet] = {}
    for key, sources in _sources(config).items():
        with refusals:
            read[key] = _read(key, sources, on_progress)
    return read, refusals


def assemble(config: DataConfig, read: Mapping[str, ImageSet], refusals: Refusals) -> DataSets:
    """The sets of a recipe, of what `read_sources` has read; raises one DataError as `open_data` does."""
    read = dict(read)
    if "data.train" in read:
        table = read["data.train"].categories
        with refusals:
            if not table:
                raise DataError(
                    "data.train: no annotation has an object, so no class is known. Name them as `classes`."
                )
            parts = take_parts(config, read["data.train"])
            held_out = {"data.test": parts.test, "data.validation": parts.validation}
            read |= {"data.train": parts.learned, **{key: part for key, part in held_out.items() if part is not None}}
            split = _split(config, parts, read.get("data.unlabeled"))
            if "data.unlabeled" in read and split.pool is not None:
                read["data.unlabeled"] = split.pool
        for key in ("data.test", "data.validation"):
            with refusals:
                if key in read:
                    read[key] = in_table(key, read[key], table)
    refusals.refuse()
    notes = [note for images in (*read.values(), split.labeled) for note in images.notes]
    notes += [*split.notes, *_missing_boxes(split.labeled, read["data.test"]), *_leaks(config, read)]
    return DataSets(
        labeled=split.labeled,
        unlabeled=split.unlabeled,
        hidden=_known_labels(split.pool, table),
        labeled_too=_same_files(split.labeled, split.unlabeled),
        test=read["data.test"],
        validation=read.get("data.validation"),
        fold=parts.fold,
        categories=table,
        notes=tuple(printable(note) for note in dict.fromkeys(notes)),
    )


def open_test(config: DataConfig, on_progress: OnProgress | None = None) -> ImageSet:
    """The test images of a recipe; their labels count in a table of their own. Raises DataError as `open_data` does."""
    if not isinstance(config.test, HeldOutSource):
        return _read("data.test", config.test, on_progress)
    held_out = take_parts(config, _read("data.train", config.train, on_progress)).test
    assert held_out is not None
    return held_out


def open_other(
    path: Path, images: Path | None, categories: tuple[Category, ...], on_progress: OnProgress | None = None
) -> ImageSet:
    """Labeled images that lie at `path`, for networks that know `categories`: classes are joined by their names.

    `path` is what `recognize` takes, `images` the folder of the images where it cannot be known. Of several splits the
    test split is taken, else the validation split. Boxes of other classes are left out, as a note says. Raises
    DataError for what is not labeled, and where no class is known.
    """
    splits = recognize(path, images)
    split = next(name for name in ("all", "test", "val", "train") if name in splits)
    source = splits[split]
    if isinstance(source, FolderSource):
        raise DataError(f"{path} holds images without labels, so nothing can be scored on them. Give their labels.")
    read = _read(str(path), source, on_progress)
    place = {category.name: label for label, category in enumerate(categories)}
    label_of = np.array([place.get(category.name, -1) for category in read.categories], dtype=np.int16)
    counts = np.bincount(read.labels, minlength=len(read.categories)).tolist()
    boxed = [category.name for category, count in zip(read.categories, counts, strict=True) if count]
    unknown = [name for name in boxed if name not in place]
    if boxed and len(unknown) == len(boxed):
        raise DataError(
            f"{path} has boxes of {listed(boxed)} alone, and the run knows {listed(place)}. Give equal classes equal "
            "names."
        )
    notes = [f"{path} has the splits {', '.join(splits)}: {split} is taken"] if len(splits) > 1 else []
    if unknown:
        notes.append(f"{path} has boxes of classes that the run does not know, which are left out: {listed(unknown)}")
    kept = read.with_boxes(label_of[read.labels] >= 0)
    return replace(kept, labels=label_of[kept.labels], categories=categories, notes=(*read.notes, *notes))


def open_unlabeled(config: DataConfig, on_progress: OnProgress | None = None) -> ImageSet:
    """The unlabeled images of a recipe, without labels, also where its steps take none; perhaps there is no image.

    Raises DataError as `open_data` does, and where the recipe names no unlabeled images.
    """
    source = config.unlabeled_images
    if source is None:
        raise DataError("data.unlabeled names no images. Give a folder of images, or name the images there.")
    own = None if isinstance(source, RestSource) else _read("data.unlabeled", source, on_progress)
    if own is not None and HeldOutSource not in (type(config.test), type(config.validation)):
        return own.without_labels()
    parts = take_parts(config, _read("data.train", config.train, on_progress))
    return parts.unlabeled(source, own)[0].without_labels()


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


def _sources(config: DataConfig) -> dict[str, ReadSource | tuple[ReadSource, ...]]:
    """What is read: all but parts of the training images, and unlabeled images that no step takes."""
    sources: dict[str, ReadSource | tuple[ReadSource, ...]] = {"data.train": config.train}
    for key, held in (("data.test", config.test), ("data.validation", config.validation)):
        if held is not None and not isinstance(held, HeldOutSource):
            sources[key] = held
    unlabeled = config.unlabeled_images if config.batch.unlabeled else None
    if unlabeled is not None and not isinstance(unlabeled, RestSource):
        sources["data.unlabeled"] = unlabeled
    return sources


def _read(key: str, sources: ReadSource | tuple[ReadSource, ...], on_progress: OnProgress | None) -> ImageSet:
    """The images of one source, or of a list of them; mistakes in these are shown all at once, with their places."""
    labeled = key != "data.unlabeled"
    if not isinstance(sources, tuple):
        return _read_one(key, sources, labeled, on_progress)
    refusals = Refusals()
    parts = []
    for place, source in enumerate(sources):
        with refusals:
            parts.append(_read_one(f"{key}.{place}", source, labeled, on_progress))
    refusals.refuse()
    with naming(key):
        return join(parts, labeled)


def _read_one(key: str, source: ReadSource, labeled: bool, on_progress: OnProgress | None) -> ImageSet:
    with naming(key):
        match source:
            case CocoSource():
                images = read_coco(source.annotations, source.images, source.zero_size_boxes, labeled)
            case VocSource():
                images = read_voc(source)
            case YoloSource():
                images = read_yolo(source, on_progress, labeled)
            case DigitsSource():
                images = open_digits(source, on_progress)
            case FolderSource():
                images = read_folder(source.images)
        if not len(images):
            raise DataError("no image is listed there.")
        return images


def _without_dropped(images: ImageSet, config: DataConfig) -> ImageSet:
    drops = any(isinstance(source, VocSource) and source.difficult == "drop" for source in sources_of(config.train))
    if not (drops and images.difficult.any()):
        return images
    note = f"{np.count_nonzero(images.difficult)} difficult boxes of labeled images are not used"
    return replace(images.with_boxes(~images.difficult), notes=(*images.notes, note))


@dataclass(frozen=True)
class _Split:
    """The images that a run learns from."""

    labeled: ImageSet
    pool: ImageSet | None
    """The unlabeled images, still with the labels that their source has."""
    unlabeled: ImageSet | None
    notes: tuple[str, ...]


def _split(config: DataConfig, parts: Parts, own: ImageSet | None) -> _Split:
    """The labeled and the unlabeled images; `own` are those of an unlabeled source other than the rest."""
    labeled = apply_rule(_without_dropped(parts.labeled, config), config.labeled)
    pool, notes = _unlabeled_pool(config, parts, own)
    # The one place where labels are taken from unlabeled images: whatever trains on them gets this set.
    unlabeled = None if pool is None else pool.without_labels()
    if pool is not None and unlabeled is not None and isinstance(config.unlabeled, StoredSource):
        unlabeled, more = with_stored_labels(unlabeled, config.unlabeled, parts.labeled.categories, parts.fold.hash)
        notes = (*notes, *more)
        pool = pool.subset(pool.positions(unlabeled.ids)) if len(unlabeled) else None
        unlabeled = unlabeled if len(unlabeled) else None
    return _Split(labeled, pool, unlabeled, (*parts.notes, *notes))


def _unlabeled_pool(config: DataConfig, parts: Parts, own: ImageSet | None) -> tuple[ImageSet | None, tuple[str, ...]]:
    source = config.unlabeled_images
    # An own source may be missing here: it could not be read, which is told with the mistakes of all others.
    if not config.batch.unlabeled or source is None or (own is None and not isinstance(source, RestSource)):
        return None, ()
    pool, notes = parts.unlabeled(source, own)
    if not len(pool) and isinstance(source, RestSource):
        raise DataError(
            "data.unlabeled: every training image is labeled, so there is no rest. Lower data.percent or data.shots, "
            "set data.unlabeled.include_labeled, or set data.batch.unlabeled to 0."
        )
    if not len(pool):
        raise DataError("data.unlabeled: each of its images is held out, by content. Give others.")
    return pool, notes


def _known_labels(pool: ImageSet | None, categories: tuple[Category, ...]) -> ImageSet | None:
    if pool is None or not len(pool.boxes):
        return None
    mine, theirs = ({category.name for category in table} for table in (pool.categories, categories))
    if mine != theirs:  # what was not looked for is not labeled
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
    known = {os.path.abspath(labeled.path(place)) for place in range(len(labeled))}
    return unlabeled.ids[[os.path.abspath(unlabeled.path(place)) in known for place in range(len(unlabeled))]]


def _leaks(config: DataConfig, read: Mapping[str, ImageSet]) -> list[str]:
    """Warnings about images that are trained on, chosen by or tested on, two of these, by their content.

    Raises DataError where all validation images are test images. Parts of the embedded data are apart by construction.
    """
    sources = _sources(config)
    notes = []
    for key, other, harm in (
        ("data.train", "data.test", "results say too much"),
        ("data.unlabeled", "data.test", "results say too much"),
        ("data.train", "data.validation", "the best checkpoint is chosen by images that were learned"),
        ("data.unlabeled", "data.validation", "the best checkpoint is chosen by images that were learned"),
        ("data.validation", "data.test", "the best checkpoint is chosen by test images, so results say too much"),
    ):
        if not {key, other} <= read.keys() or _are_apart(sources.get(key), sources.get(other)):
            continue
        pairs = shared_files(read[key], read[other])
        if key == "data.validation" and len(pairs) == len(read[key]):
            raise DataError(
                f"data.validation: each of its {len(pairs)} images is a test image, by content; a checkpoint chosen on "
                "the test set proves nothing. Give other images, or none."
            )
        if pairs:
            shown = listed(pairs, lambda pair: f"{pair[0]} = {pair[1]}", at_most=3)
            notes.append(f"{key} and {other} share {len(pairs)} images by content ({shown}): {harm}")
    return notes


def _are_apart(
    first: ReadSource | tuple[ReadSource, ...] | None, second: ReadSource | tuple[ReadSource, ...] | None
) -> bool:
    """Whether all of both is embedded data, made apart."""
    pairs = [(one, other) for one in sources_of(first) for other in sources_of(second)]
    return bool(pairs) and all(
        isinstance(one, DigitsSource) and isinstance(other, DigitsSource) and one.part != other.part
        for one, other in pairs
    )

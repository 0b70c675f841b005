"""What becomes of the images of `data.train`: labeled ones, the rest, and what is held out of training altogether."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ssodkit.data.annotations import ImageSet
from ssodkit.data.config import DataConfig, HeldOutSource, ImageSources, RestSource
from ssodkit.data.mistakes import listed, naming
from ssodkit.data.overlap import shared_files
from ssodkit.data.splits import Fold, by_rarity, draw_fold, drawn_order, few_shots, shown_classes
from ssodkit.errors import DataError


@dataclass(frozen=True)
class Parts:
    """The training images of a run, each in one of these sets."""

    fold: Fold
    labeled: ImageSet
    rest: ImageSet
    """What is neither labeled nor held out."""
    validation: ImageSet | None
    test: ImageSet | None
    """What is held out, where the recipe says so."""
    learned: ImageSet
    """Labeled ones and the rest, in the order of their annotations."""
    notes: tuple[str, ...]

    def unlabeled(self, source: ImageSources, own: ImageSet | None) -> tuple[ImageSet, tuple[str, ...]]:
        """The images that `source` means, still with labels, and notes on those that were left out; perhaps none.

        `own` are those of a source of its own, which may hold images that are held out: they are known by content.
        """
        if isinstance(source, RestSource):
            return self._without_held_out(self.learned if source.include_labeled else self.rest)
        assert own is not None
        return self._without_held_out(own)

    def _without_held_out(self, images: ImageSet) -> tuple[ImageSet, tuple[str, ...]]:
        notes = []
        for key, part in (("data.test", self.test), ("data.validation", self.validation)):
            twins = [] if part is None else shared_files(images, part)
            if twins:
                paths = {pair[0] for pair in twins}
                images = images.subset([place for place in range(len(images)) if images.path(place) not in paths])
                shown = listed(sorted(paths), at_most=3)
                notes.append(f"{len(paths)} unlabeled images are held out for {key}, and are not learned from: {shown}")
        return images, tuple(notes)


def take_parts(config: DataConfig, train: ImageSet) -> Parts:
    """Hold out the test images, draw the labeled ones, and hold out the validation images of these.

    So the test images are the same for every fold and every number of labels. Raises DataError where a part is empty.
    """
    kept, test = _taken(train, config.test, "data.test")
    fold = draw_fold(kept, config.folds, config.share, config.fold)
    notes = () if config.shots is None else few_shots(kept, config.shots)
    drawn = np.isin(kept.ids, fold.image_ids)
    labeled, validation = _taken(kept.subset(np.flatnonzero(drawn)), config.validation, "data.validation")
    fold = replace(fold, image_ids=_sorted(labeled), validation_ids=_sorted(validation), test_ids=_sorted(test))
    learned = kept.subset(np.flatnonzero(~np.isin(kept.ids, fold.validation_ids)))
    return Parts(fold, labeled, kept.subset(np.flatnonzero(~drawn)), validation, test, learned, notes)


def hold_out(images: ImageSet, percent: float) -> NDArray[np.int64]:
    """Distinct places, sorted, of this share of `images`, for which each class gives its share as far as it can.

    All follows from ids and labels. Class by class, the one of the fewest images first, then of those that show none,
    then of all, images are held out in an order drawn from their ids until the share is: rounded, but of a class that
    two or more show at least one and never all. An image counts for every class that it shows, and the last one of a
    class stays, unless there is no other. Raises DataError where there are fewer than two images.
    """
    if len(images) < 2:
        raise DataError(
            f"{percent:g} percent of {len(images)} image{'s' * (len(images) != 1)} cannot be held out: one must be, "
            "and one must be left to learn from. Label more images, or name a source of its own here."
        )
    shown, order = shown_classes(images), drawn_order(images.ids, "held out")
    left = shown.sum(axis=0)
    part = np.zeros(len(images), dtype=bool)
    strata: list[NDArray[np.bool_]] = [shown[:, label] for label in by_rarity(shown)]
    strata += [np.logical_not(shown.any(axis=1)), np.ones(len(images), dtype=bool)]
    for stratum in strata:
        total = int(np.count_nonzero(stratum))
        missing = min(max(1, int(total * percent / 100 + 0.5)), total - 1) - int(np.count_nonzero(part & stratum))
        for place in order[stratum[order] & ~part[order]].tolist():
            if missing > 0 and (left[shown[place]] > 1).all():
                part[place] = True
                left -= shown[place]
                missing -= 1
    if not part.any():  # each image is the last one of a class
        part[order[0]] = True
    return np.flatnonzero(part)


def _taken(images: ImageSet, source: object, key: str) -> tuple[ImageSet, ImageSet | None]:
    """What is left of `images`, and what is held out for `key`, if its source says so."""
    if not isinstance(source, HeldOutSource):
        return images, None
    with naming(key):
        places = hold_out(images, source.percent)
    left = np.setdiff1d(np.arange(len(images)), places)
    return images.subset(left), images.subset(places)


def _sorted(images: ImageSet | None) -> tuple[int, ...]:
    return () if images is None else tuple(np.sort(images.ids).tolist())

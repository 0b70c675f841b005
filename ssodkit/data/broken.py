"""Image files that cannot be used, and what a recipe wants done: the run stops, or goes on without them.

Those that are found before step 1 are left out of their sets. One that breaks later keeps its place in the sampler's
order, and another image is taken wherever it is drawn: so what a step gets still depends on its number alone, and on
which files can be read.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from ssodkit.data.annotations import ImageSet
from ssodkit.data.config import BrokenRule
from ssodkit.data.mistakes import printable
from ssodkit.data.pictures import find_broken, list_broken
from ssodkit.data.sets import DataSets, OnProgress
from ssodkit.errors import DataError

Broken = dict[str, dict[int, str]]
"""Set of a run, such as `unlabeled` -> image id -> why it cannot be used, in a sentence that names the file."""
LEARNED = ("train", "unlabeled")
"""The sets that steps draw from."""


@dataclass(frozen=True)
class Skipped:
    """An image in whose place a step has taken another one."""

    key: str
    """`train` or `unlabeled`."""
    image_id: int
    why: str


def look_into(sets: DataSets, on_progress: OnProgress = lambda done, total: None) -> Broken:
    """All images of a run that cannot be used: that are no whole images, or have another size than annotated.

    Of large sets only the ends of the files are looked at (see `find_broken`). `on_progress(done, total)` is called on
    the way.
    """
    every = dict(_each(sets))
    total, done = sum(map(len, every.values())), 0

    def on_image() -> None:
        nonlocal done
        done += 1
        on_progress(done, total)

    found = {key: find_broken(images, on_image) for key, images in every.items()}
    return {
        key: {int(every[key].ids[place]): why for place, why in problems.items()}
        for key, problems in found.items()
        if problems
    }


def refuse_many(broken: Broken, sizes: Mapping[str, int], rule: BrokenRule) -> None:
    """Raise one DataError that lists them, set by set, where there are any, or more than the rule allows to skip.

    `sizes` says of each set how many images it had when all were there.
    """
    count, total = sum(map(len, broken.values())), sum(sizes.values())
    allowed = rule.allowed(total)
    if count <= allowed:
        return
    lines = [f"data.{key}: {list_broken(problems.values(), sizes[key])}" for key, problems in broken.items()]
    if rule.skip:
        lines.append(f"These are {count} of {total} images, and data.broken.at_most allows to skip {allowed}.")
    raise DataError("\n".join(lines))


def sizes_of(sets: DataSets, left_out: Broken | None = None) -> dict[str, int]:
    """How many images each set of a run has, with those that were left out of it."""
    return {key: len(images) + len((left_out or {}).get(key, ())) for key, images in _each(sets)}


def leave_out(sets: DataSets, broken: Broken) -> DataSets:
    """The same sets without these images, and a note on each that has lost some. Raises DataError for an empty one."""
    if not broken:
        return sets
    kept = {key: _without(images, broken.get(key, {})) for key, images in _each(sets)}
    sizes = sizes_of(sets)
    notes = []
    for key, problems in broken.items():
        if not len(kept[key]):
            raise DataError(f"data.{key}: {list_broken(problems.values(), sizes[key])}")
        notes.append(f"data.{key}: {list_broken(problems.values(), sizes[key], 'cannot be used and are left out')}")
    lost = list(broken.get("unlabeled", ()))
    return replace(
        sets,
        labeled=kept["train"],
        unlabeled=kept.get("unlabeled"),
        hidden=None if sets.hidden is None else _without(sets.hidden, broken.get("unlabeled", {})),
        labeled_too=sets.labeled_too[~np.isin(sets.labeled_too, lost)],
        test=kept["test"],
        validation=kept.get("validation"),
        notes=(*sets.notes, *map(printable, notes)),
    )


def _each(sets: DataSets) -> Iterator[tuple[str, ImageSet]]:
    every = {"train": sets.labeled, "unlabeled": sets.unlabeled, "test": sets.test, "validation": sets.validation}
    yield from ((key, images) for key, images in every.items() if images is not None)


def _without(images: ImageSet, broken: Mapping[int, str]) -> ImageSet:
    return images.subset(np.flatnonzero(~np.isin(images.ids, list(broken))))

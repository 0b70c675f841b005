"""A first recipe for one's own pictures: the labels are recognized and looked at, and numbers follow from them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssodkit.data.checks import NO_AREA
from ssodkit.data.config import (
    DataConfig,
    EvaluationSource,
    FolderSource,
    HeldOutSource,
    LabeledSource,
    RestSource,
    sources_of,
)
from ssodkit.data.mistakes import listed
from ssodkit.data.recognize import Source, recognize
from ssodkit.data.sets import DataSets, OnProgress, open_data
from ssodkit.errors import DataError, RecipeError
from ssodkit.plugins import suggest
from ssodkit.recipe.draft.plan import PRESETS, Line, batch_of, plan_recipe
from ssodkit.recipe.draft.weights import AUTO, choose_start, gpu_memory
from ssodkit.recipe.draft.write import as_yaml

DEFAULT = next(iter(PRESETS))
"""The method of a recipe where none is asked for."""
HELD_OUT = HeldOutSource(percent=20.0)
"""What is taken of the labels where there is no other test set."""
VALIDATION = HeldOutSource(percent=10.0)
"""What is taken of those that are left, where there is no other validation set."""
LEAST_FOR_VALIDATION = 100
"""Labeled pictures, below which none are taken."""

FORMS = {"coco": "COCO JSON", "voc": "Pascal VOC", "yolo": "YOLO"}


@dataclass(frozen=True)
class Wish:
    """What a user says about a first recipe."""

    labeled: Path
    """Labels: a COCO JSON file, a data.yaml, or a folder with VOC or YOLO labels."""
    images: Path | None = None
    """Folder of their pictures, where it cannot be found from the labels."""
    unlabeled: Path | None = None
    """Folder of pictures without labels."""
    test: Path | None = None
    """Labels of the test pictures; None: the labels' own test part, else a share of them."""
    test_images: Path | None = None
    shots: int | None = None
    """Use so many labeled pictures of each class, the rest of them without their labels."""
    any_way_up: bool = False
    """The pictures have no upright: networks learn them upside down as well."""
    method: str = DEFAULT
    weights: str = AUTO
    """What the network starts from, as `choose_start` takes it."""


@dataclass(frozen=True)
class Draft:
    """A recipe, and what it was made from."""

    text: str
    """YAML with the reason of each line."""
    found: tuple[str, ...]
    """What was recognized, and what looks strange in it, a sentence each."""
    compares: str
    """What `ssodkit run` is to be given besides."""


def draft(wish: Wish, name: str, on_progress: OnProgress | None = None) -> Draft:
    """The recipe for these pictures. Labels and sizes are read, pictures are not: `on_progress(done, total)`.

    Raises DataError for what cannot be used, RecipeError for a method or weights that are not offered.
    """
    if wish.method not in PRESETS:
        raise RecipeError(f"--method '{wish.method}' is not offered; {suggest(wish.method, PRESETS)}")
    start = choose_start(wish.weights, gpu_memory())
    labels = _with_labels(wish.labeled, recognize(wish.labeled, wish.images))
    train, test, validation, why = _roles(labels, wish)
    data = DataConfig(
        train=train,
        test=test,
        validation=validation,
        unlabeled=_unlabeled(wish),
        shots=wish.shots,
        batch=batch_of(wish.method, start),
    )
    sets = open_data(data, on_progress)
    if validation is None and wish.shots is None and len(sets.labeled) >= LEAST_FOR_VALIDATION:
        data = data.model_copy(update={"validation": VALIDATION})
        why["validation"] = "this part never trains either way: by it, the best checkpoint is chosen"
        sets = open_data(data, on_progress)
    compares = " --compare supervised" if data.batch.unlabeled else ""
    lines = _lines(data, sets, why)
    plan = plan_recipe(name, wish.method, start, sets, lines, _head(name, compares), wish.any_way_up)
    notes = (f"note       {note}" for note in sets.notes)
    found = (*_found(data, sets), f"weights    {start.describe()}", *notes)
    return Draft(as_yaml(plan), found, compares)


def _with_labels(path: Path, found: dict[str, Source]) -> dict[str, LabeledSource]:
    """What was recognized, none of it mere pictures; boxes without area are left out, and `_lines` says so."""
    labels: dict[str, LabeledSource] = {}
    for split, source in found.items():
        if isinstance(source, FolderSource):
            raise DataError(
                f"{path} holds pictures and no labels that are known. Give it as --unlabeled, and labels as --labeled: "
                "COCO JSON, Pascal VOC XML or YOLO."
            )
        labels[split] = source.model_copy(update={"zero_size_boxes": "drop"})
    return labels


def _roles(
    labels: dict[str, LabeledSource], wish: Wish
) -> tuple[LabeledSource, EvaluationSource, EvaluationSource | None, dict[str, str]]:
    """Which labels train, test and validate, and why, by key."""
    train_split = "train" if "train" in labels else next(iter(labels))
    rest = {split: source for split, source in labels.items() if split != train_split}
    why = {"train": f"the part `{train_split}` of these labels" if rest else ""}
    if wish.test is not None:
        given = _with_labels(wish.test, recognize(wish.test, wish.test_images))
        split = "test" if "test" in given else next(iter(given))
        return labels[train_split], given[split], rest.get("val"), why
    for split in ("test", "val"):
        if split in rest:
            test = rest.pop(split)
            why["test"] = f"the part `{split}` of these labels"
            return labels[train_split], test, rest.get("val"), why
    why["test"] = "there is no other test set, so this part of the labels never trains"
    return labels[train_split], HELD_OUT, None, why


def _unlabeled(wish: Wish) -> FolderSource | RestSource | None:
    if wish.unlabeled is not None:
        if not wish.unlabeled.is_dir():
            raise DataError(f"{wish.unlabeled} is no folder. Give the folder of the pictures without labels.")
        return FolderSource(images=wish.unlabeled)
    if not PRESETS[wish.method].learns_unlabeled:
        return None
    if wish.shots is None:
        raise DataError(
            "no unlabeled pictures are named: give their folder as --unlabeled, or use a few of the labels with "
            "--shots K, and the rest of their pictures without."
        )
    return RestSource(include_labeled=True)


def _found(data: DataConfig, sets: DataSets) -> list[str]:
    labeled = sets.labeled
    forms = listed(dict.fromkeys(FORMS[source.type] for source in sources_of(data.train)))
    lines = [
        f"labels     {forms}: {len(labeled)} pictures, {len(labeled.boxes)} boxes, "
        f"{len(sets.categories)} classes ({listed(sets.categories, lambda each: each.name)})",
        f"test       {len(sets.test)} pictures",
    ]
    if sets.validation is not None:
        lines.append(f"validation {len(sets.validation)} pictures")
    if sets.unlabeled is not None:
        lines.append(f"unlabeled  {len(sets.unlabeled)} pictures")
    return lines


def _lines(data: DataConfig, sets: DataSets, why: dict[str, str]) -> tuple[Line, ...]:
    """The lines that say where pictures and labels lie."""
    has_no_area = any(NO_AREA in note for note in sets.notes)
    lines = [
        Line(f"data.{key}", _plain(source, has_no_area), why.get(key, ""))
        for key, source in (("train", data.train), ("test", data.test), ("validation", data.validation))
        if source is not None
    ]
    if data.shots is not None:
        lines.append(Line("data.shots", data.shots, "labeled pictures of each class; data.fold is which draw of them"))
    unlabeled = None if data.unlabeled is None else _plain(data.unlabeled, has_no_area)
    return (*lines, Line("data.unlabeled", unlabeled))


def _plain(source: Any, has_no_area: bool) -> dict[str, Any]:
    """A source as a recipe says it: its type, and what differs from the defaults."""
    plain: dict[str, Any] = source.model_dump(mode="json", exclude_defaults=True)
    if not has_no_area:
        plain.pop("zero_size_boxes", None)
    return {"type": source.type, **plain}


def _head(name: str, compares: str) -> tuple[str, ...]:
    return (
        f"{name}: written by `ssodkit init` from the pictures and labels below; every line may be changed.",
        f"`ssodkit doctor {name}.yaml` looks at the data, `ssodkit run {name}.yaml{compares}` trains.",
    )

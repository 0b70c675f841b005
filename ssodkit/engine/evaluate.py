"""Evaluation: all networks of a run look at every image once, and are scored at every test threshold of the recipe."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

from ssodkit.data.annotations import Category, ImageSet
from ssodkit.data.loader import batches_in_order
from ssodkit.data.mistakes import printable
from ssodkit.data.sets import OnProgress, open_data, open_other
from ssodkit.data.views import ViewMaker
from ssodkit.detectors.base import Detector
from ssodkit.engine.bars import showing
from ssodkit.engine.build import build_method, place
from ssodkit.engine.checkpoint import load_network, read_categories, read_run, read_step
from ssodkit.engine.distributed import Processes, open_processes
from ssodkit.engine.failures import explained
from ssodkit.engine.metrics import ClassScores, DetectionTable, Scores, coco_scores, voc_scores
from ssodkit.engine.precision import Precision, autocast
from ssodkit.engine.tables import class_table, score_table
from ssodkit.errors import TrainingError
from ssodkit.recipe.model import Recipe
from ssodkit.structures.geometry import Stream, carry
from ssodkit.structures.predictions import Detections
from ssodkit.structures.progress import Progress
from ssodkit.structures.views import View


@dataclass
class NetworkScores:
    """What the networks of a run score; empty on all processes but the first, until they are shared."""

    thresholds: dict[str, dict[str, Scores]] = field(default_factory=dict)
    """Test threshold, such as `0.05` -> network -> its scores."""
    per_class: dict[str, ClassScores] = field(default_factory=dict)
    """Network -> its scores of each class, at the recipe's first test threshold."""


def evaluate(
    run: Path | str,
    device: str | None = None,
    trust_plugins: bool = False,
    data: Path | str | None = None,
    images: Path | str | None = None,
) -> dict[str, Any]:
    """Score the networks of a run's last checkpoint on its test images, and show the tables of the run's end.

    On the device of the run the numbers are exactly those of its `result.json`. With `data`, other labeled images are
    scored: a COCO file, or what VOC or YOLO labels lie in, with the folder `images` where that cannot be known; classes
    are joined by their names. Raises TrainingError if there is no checkpoint or it does not fit the recipe, DataError
    for images and labels that are missing, RecipeError for plug-ins that were never run here, unless `trust_plugins`.
    """
    recipe, checkpoint = read_run(Path(run), trust_plugins)
    categories = read_categories(checkpoint)
    with open_processes(device) as processes, explained():
        if data is None:
            truth = _test_images(recipe, checkpoint, categories)
        else:
            with showing("reading labels") as on_progress:
                truth = open_other(Path(data), None if images is None else Path(images), categories, on_progress)
        method = place(build_method(recipe, len(categories), load_weights=False), recipe, processes.device)
        for name, network in method.networks().items():
            load_network(checkpoint, name, network)
        with showing("scoring") as on_progress:
            scores = score_networks(method.networks(), truth, recipe, processes, on_progress)
        result = {"step": read_step(checkpoint), **as_result(scores, recipe)}
        console = Console(quiet=not processes.is_first, soft_wrap=True)
        if data is not None:
            console.print(f"{len(truth)} images of {data}", markup=False, highlight=False)
            for note in truth.notes:
                console.print(f"note       {printable(note)}", markup=False, highlight=False)
        console.print(score_table(result))
        console.print(class_table(result))
        return result


def _test_images(recipe: Recipe, checkpoint: Path, categories: tuple[Category, ...]) -> ImageSet:
    sets = open_data(recipe.data.model_copy(update={"unlabeled": None}))  # nobody looks at unlabeled images here
    if sets.categories != categories:
        raise TrainingError(
            f"{checkpoint} was trained for other classes than data.train has now. "
            "Give data.train back the classes of the run."
        )
    return sets.test


def as_result(scores: NetworkScores, recipe: Recipe) -> dict[str, Any]:
    """Scores as `result.json` has them: by network at the recipe's first threshold, by threshold, and by class."""
    first = scores.thresholds[str(recipe.evaluation.thresholds[0])]
    chosen = recipe.evaluation.result if recipe.evaluation.result in first else next(iter(first))
    return {**first, "result": chosen, "thresholds": scores.thresholds, "per_class": scores.per_class}


def score_networks(
    networks: Mapping[str, Detector],
    images: ImageSet,
    recipe: Recipe,
    processes: Processes,
    on_progress: OnProgress | None = None,
    progress: Progress | None = None,
) -> NetworkScores:
    """The scores of all networks on `images`, the same on all processes; `on_progress` and `progress` as for
    `find_all`."""
    thresholds = recipe.evaluation.thresholds
    found = find_all(networks, images, test_views(recipe), thresholds, recipe, processes, on_progress, progress)
    scores = NetworkScores()
    if processes.is_first:
        metric = {"coco": coco_scores, "voc": _both_scores}[recipe.evaluation.metric]
        for place, threshold in enumerate(thresholds):
            of_all = {name: metric(tables[place], images) for name, tables in found.items()}
            scores.thresholds[str(threshold)] = {name: total for name, (total, _) in of_all.items()}
            scores.per_class = scores.per_class or {name: classes for name, (_, classes) in of_all.items()}
    return processes.gather(scores)[0]


def find_all(
    networks: Mapping[str, Detector],
    images: ImageSet,
    views: ViewMaker,
    thresholds: Sequence[float],
    recipe: Recipe,
    processes: Processes,
    on_progress: OnProgress | None = None,
    progress: Progress | None = None,
) -> dict[str, list[DetectionTable]]:
    """Detections in all `images`, which the processes share: network -> those at each threshold; the same on all.

    `on_progress(done, total)` is called for every batch of this process. `progress` is how far networks in training
    are; the recipe of a checkpoint has their test rule already.
    """
    each = recipe.evaluation.images
    batches = batches_in_order(
        images, views, each, processes.rank, processes.count, processes.device, recipe.engine.workers
    )
    if on_progress is not None:
        share = len(images) * (processes.rank + 1) // processes.count - len(images) * processes.rank // processes.count
        batches = _told(batches, math.ceil(share / each), on_progress)
    found = processes.together(lambda: detect(networks, batches, images, thresholds, recipe.engine.precision, progress))
    return {name: [DetectionTable.join(processes.gather(table)) for table in tables] for name, tables in found.items()}


def test_views(recipe: Recipe) -> ViewMaker:
    """Makes the one view in which a recipe's networks are tested."""
    return recipe.views.maker({"test": recipe.views.test})


@torch.no_grad()
def detect(
    networks: Mapping[str, Detector],
    batches: Iterable[Stream],
    images: ImageSet,
    thresholds: Sequence[float],
    precision: Precision,
    progress: Progress | None = None,
) -> dict[str, list[DetectionTable]]:
    """Network -> its detections at each test threshold, in pixels of the original images; `progress` as for
    `Detector.detect`.

    Each threshold is asked for: where another answer than the class ranks, a lower one does more than add detections
    behind those that a higher one leaves.
    """
    parts: dict[str, list[list[DetectionTable]]] = {name: [[] for _ in thresholds] for name in networks}
    with evaluating(networks.values()):
        for stream in batches:
            (view,) = stream.views.values()
            original = _original_frame(view, images)
            for name, network in networks.items():
                with autocast(precision, view.pixels.device):
                    stages = network.predict(network.extract(view))
                    found = [network.detect(stages, threshold, progress=progress) for threshold in thresholds]
                for tables, one in zip(parts[name], found, strict=True):
                    tables.append(_as_table(carry(one, view, original), original.image_ids))
    return {name: [DetectionTable.join(tables) for tables in each] for name, each in parts.items()}


@contextmanager
def evaluating(networks: Iterable[nn.Module]) -> Iterator[None]:
    """Within it the networks are in eval mode; afterwards every module is as it was."""
    modes = {module: module.training for network in networks for module in network.modules()}
    for module in modes:
        module.training = False
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _told(batches: Iterable[Stream], total: int, on_progress: OnProgress) -> Iterator[Stream]:
    """The same batches; each is told of when the next is asked for."""
    on_progress(0, total)
    for done, batch in enumerate(batches, start=1):
        yield batch
        on_progress(done, total)


def _original_frame(view: View, images: ImageSet) -> View:
    """The images of `view` before any transform, without pixels."""
    device = view.homography.device
    sizes = images.sizes[images.positions(view.image_ids.cpu().numpy())]
    return replace(
        view.without_pixels(),
        sizes=torch.from_numpy(sizes).long().to(device),
        homography=torch.eye(3, device=device).expand(len(sizes), 3, 3),
    )


def _as_table(found: Detections, image_ids: Tensor) -> DetectionTable:
    owner = image_ids[:, None].expand_as(found.labels)
    keep = found.valid
    columns = (owner[keep], found.boxes[keep].float(), found.labels[keep], found.confidence[keep].float())
    return DetectionTable(*(column.cpu().numpy() for column in columns))


def _both_scores(found: DetectionTable, truth: ImageSet) -> tuple[Scores, ClassScores]:
    total, classes = coco_scores(found, truth)
    return {**total, **voc_scores(found, truth)}, classes

"""Labeling: a run's network looks at unlabeled images once, and what it finds is stored for another training.

Source: Sohn et al., STAC, arXiv:2005.04757; google-research/ssl_detection: no flip, every box and class above the test
threshold. The images are seen as in the test; STAC's code sees them in their original size.
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from rich.console import Console
from rich.text import Text

from ssodkit.data.annotations import Category, ImageSet, make_image_set
from ssodkit.data.augment.base import draw_view
from ssodkit.data.folder import read_folder
from ssodkit.data.pictures import measured
from ssodkit.data.sets import open_unlabeled
from ssodkit.data.stored import FOLD
from ssodkit.data.views import ViewConfig, ViewMaker
from ssodkit.data.writing import refuse_alike, write_coco, write_voc, write_yolo
from ssodkit.engine.bars import showing
from ssodkit.engine.checkpoint import read_categories, read_fold, read_run, read_step
from ssodkit.engine.distributed import Processes, open_processes
from ssodkit.engine.evaluate import find_all, test_views
from ssodkit.engine.failures import explained
from ssodkit.engine.folders import filled_whole, refuse_existing
from ssodkit.engine.metrics import DetectionTable
from ssodkit.engine.networks import open_network
from ssodkit.engine.predict import print_notes
from ssodkit.recipe.model import Recipe

Size = Literal["test", "original"]
"""Of the images that the network sees: that of the recipe's test view, or their own."""
Form = Literal["coco", "voc", "yolo"]
"""Of what is written."""
SURE = 0.5
"""Lowest score of boxes in a form that cannot tell sure ones from others."""


def label(
    run: Path | str,
    out: Path | str,
    images: Path | str | None = None,
    network: str | None = None,
    score: float | None = None,
    size: Size = "test",
    device: str | None = None,
    trust_plugins: bool = False,
    form: Form = "coco",
) -> Path:
    """Write what the last checkpoint of a run finds in its unlabeled images, or in the folder `images`, to `out`.

    As `coco`, `out` is a JSON file with a `score` per annotation, the image ids and file names of the data set, and the
    category ids of the run's classes; as `voc` or `yolo` it is a folder, with links to the images and without scores.
    `network` is the recipe's result if not given, `score` its first test threshold, or 0.5 where no scores are written.
    Where the original size is not that of the test, it warns of the factor. Raises DataError for an image that cannot
    be read, TrainingError for a run without that network, and where `out` exists, RecipeError for plug-ins that were
    never run here, unless `trust_plugins`.
    """
    run, out = Path(run), Path(out)
    refuse_existing(out)
    recipe, checkpoint = read_run(run, trust_plugins)
    with open_processes(device) as processes, explained():
        pictures = processes.first_alone(lambda: open_images(recipe, images))
        pictures = open_images(recipe, images) if pictures is None else pictures
        return write_labels(recipe, checkpoint, pictures, out, processes, network, score, size, form)


def write_labels(
    recipe: Recipe,
    checkpoint: Path,
    images: ImageSet,
    out: Path,
    processes: Processes,
    network: str | None = None,
    score: float | None = None,
    size: Size = "test",
    form: Form = "coco",
) -> Path:
    """Store what a checkpoint's network finds in `images`; the processes share them, and the first one writes."""
    categories = read_categories(checkpoint)
    name, chosen = open_network(recipe, checkpoint, network, processes.device)
    if form != "coco":
        refuse_alike(images)
    threshold = recipe.evaluation.thresholds[0] if form == "coco" else SURE
    lowest = threshold if score is None else score
    views = test_views(recipe)
    if size == "original":
        if processes.is_first:
            _warn_of_size(images, recipe)
        views = ViewMaker({"original": ViewConfig()}, recipe.views.minimum_visible, recipe.views.pad_to)
    with showing("labeling") as on_progress:
        (found,) = find_all({name: chosen}, images, views, [lowest], recipe, processes, on_progress)[name]
    if processes.is_first:
        about = {
            "description": "pseudo-labels, stored by ssodkit label",
            "recipe": recipe.name,
            "network": name,
            "step": read_step(checkpoint),
            "score_above": lowest,
            "size": size,
            FOLD: read_fold(checkpoint),
        }
        notes = _write(_labeled(found, images, categories), about, out, form)
        filled = len(set(found.image_ids.tolist()))
        print(f"{len(found.scores)} boxes of the {name} above {lowest:g} in {filled} of {len(images)} images")
        print_notes(images)
        for note in notes:
            print(f"note       {note}")
        print(f"labels     {out}")
    processes.gather(None)  # the others do not go on before the file is there
    return out


def open_images(recipe: Recipe, folder: Path | str | None = None) -> ImageSet:
    """The images that are labeled, their sizes known; a recipe's unlabeled ones where there is no `folder`."""
    images = open_unlabeled(recipe.data) if folder is None else read_folder(Path(folder))
    with showing("looking at images") as on_progress:
        return measured(images, on_progress, recipe.data.broken.skip)


def _warn_of_size(images: ImageSet, recipe: Recipe) -> None:
    """Say by which factor images in their original size differ from what the network was tested on, if they do."""
    sizes = torch.from_numpy(images.sizes).long()
    drawn = draw_view(test_views(recipe).views["test"].transforms, sizes, torch.zeros(len(sizes), dtype=torch.int64))
    scale = torch.linalg.det(drawn.homography[:, :2, :2]).abs().sqrt()
    factor = float(np.median(1.0 / scale.numpy())) if len(sizes) else 1.0
    if f"{factor:.2f}" != "1.00":
        text = (
            f"warning: in their original size the images are {factor:.2f} times as large as in the test view (median), "
            "for which the run's scores hold; boxes may be much worse. The size `test` labels as the test does"
        )
        Console(soft_wrap=True).print(Text(text, style="yellow"))


def _labeled(found: DetectionTable, images: ImageSet, categories: tuple[Category, ...]) -> ImageSet:
    """The images with the boxes that were found in them."""
    names = [images.name(index) for index in range(len(images))]
    return make_image_set(
        images.root,
        names,
        images.ids,
        images.sizes,
        categories,
        images.positions(found.image_ids),
        found.boxes,
        found.labels,
        scores=found.scores,
    )


def _write(labeled: ImageSet, about: dict[str, Any], out: Path, form: Form) -> list[str]:
    """Write a file or folder, whole or not at all; returns what has no place there."""
    if form == "coco":
        write_coco(out, labeled, about)
        return []
    with filled_whole(out) as draft:
        return write_voc(draft, labeled) if form == "voc" else write_yolo(draft, labeled)

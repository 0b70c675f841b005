"""Prediction: a run's network looks at any images; its detections are drawn, and written as COCO results."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ssodkit.data.annotations import Category, ImageSet, make_image_set
from ssodkit.data.decode import decode_image
from ssodkit.data.files import write_whole, written_whole
from ssodkit.data.folder import read_folder
from ssodkit.data.mistakes import printable
from ssodkit.data.pictures import measured
from ssodkit.detectors.base import Detector
from ssodkit.engine.bars import showing
from ssodkit.engine.build import build_method, place
from ssodkit.engine.checkpoint import load_network, read_categories, read_run
from ssodkit.engine.distributed import open_processes
from ssodkit.engine.evaluate import find_all, test_views
from ssodkit.engine.failures import explained
from ssodkit.engine.folders import filled_whole, refuse_used
from ssodkit.engine.metrics import DetectionTable
from ssodkit.engine.pictures import Boxes, draw_boxes
from ssodkit.errors import TrainingError
from ssodkit.recipe.model import Recipe

RESULTS = "results.json"


def predict(
    run: Path | str,
    images: Sequence[Path | str],
    out: Path | str,
    network: str | None = None,
    score: float = 0.5,
    device: str | None = None,
    trust_plugins: bool = False,
) -> Path:
    """Detect in image files, and in all images of folders; draw what scores above `score` into the folder `out`.

    The file it returns holds those detections as COCO results with the data set's own category ids; images count
    from 1 in the order given, and `file_name` says which is which. `network` is the recipe's result if not given.
    Raises DataError for an image that cannot be read, TrainingError for a run without that network, and where `out`
    holds anything, RecipeError for plug-ins that were never run here, unless `trust_plugins`.
    """
    out = Path(out)
    refuse_used(out)
    recipe, checkpoint = read_run(Path(run), trust_plugins)
    categories = read_categories(checkpoint)
    pictures = _gather_images([Path(image) for image in images])
    with open_processes(device) as processes, explained():
        name, chosen = open_network(recipe, checkpoint, network, processes.device)
        found = find_all({name: chosen}, pictures, test_views(recipe), score, recipe, processes)[name]
        with filled_whole(out) as draft:
            _draw(found, pictures, categories, draft)
            _write(found, pictures, categories, draft / RESULTS)
        path = out / RESULTS
        images_seen = f"{len(pictures)} image{'s' * (len(pictures) != 1)}"
        print(f"{len(found.scores)} detections of the {name} above {score:g} in {images_seen}")
        print_notes(pictures)
        print(f"results    {path}\npictures   {out}")
        return path


def open_network(recipe: Recipe, checkpoint: Path, name: str | None, device: torch.device) -> tuple[str, Detector]:
    """A network of a checkpoint by its name, on a device; without a name, the recipe's result.

    Raises TrainingError for a run without that network.
    """
    classes = len(read_categories(checkpoint))
    networks = place(build_method(recipe, classes, load_weights=False), recipe, device).networks()
    name = name or (recipe.evaluation.result if recipe.evaluation.result in networks else next(iter(networks)))
    if name not in networks:
        run = checkpoint.parent.parent
        raise TrainingError(f"{run} has no {name}; its networks: {', '.join(networks)}")
    load_network(checkpoint, name, networks[name])
    return name, networks[name]


def print_notes(images: ImageSet) -> None:
    """What reading the images left out or found strange, a sentence a line."""
    for note in images.notes:
        print(f"note       {printable(note)}")


def _gather_images(paths: Sequence[Path]) -> ImageSet:
    files: list[Path] = []
    notes: list[str] = []
    for path in paths:
        folder = read_folder(path) if path.is_dir() else None
        files += [path] if folder is None else [folder.path(index) for index in range(len(folder))]
        notes += folder.notes if folder is not None else ()
    names = [str(file) for file in files]
    images = make_image_set(Path(), names, range(1, len(names) + 1), [(0, 0)] * len(names), notes=notes)
    with showing("looking at images") as on_progress:
        return measured(images, on_progress)


def _draw(found: DetectionTable, images: ImageSet, categories: Sequence[Category], out: Path) -> None:
    """One PNG for each image."""
    names = picture_names([images.path(index).stem for index in range(len(images))])
    for index, number in enumerate(images.ids.tolist()):
        rows = found.image_ids == number
        labels, scores = found.labels[rows], found.scores[rows].tolist()
        captions = [f"{categories[label].name} {score:.2f}" for label, score in zip(labels, scores, strict=True)]
        picture = draw_boxes(decode_image(images.path(index)), Boxes(found.boxes[rows], labels, captions))
        with written_whole(out / f"{names[index]}.png") as stream:
            picture.save(stream, format="PNG")


def picture_names(stems: Sequence[str]) -> list[str]:
    """A name for each image: its own, or with its number from 1 on behind it, as often as it takes.

    No two are alike, also where upper and lower case are.
    """
    taken: set[str] = set()
    names = []
    for number, stem in enumerate(stems, start=1):
        name = stem
        while name.casefold() in taken:
            name = f"{name}_{number}"
        taken.add(name.casefold())
        names.append(name)
    return names


def _write(found: DetectionTable, images: ImageSet, categories: Sequence[Category], path: Path) -> None:
    names = {number: images.name(index) for index, number in enumerate(images.ids.tolist())}
    ids = np.array([category.id for category in categories], dtype=np.int64)
    rows = [
        {**row, "file_name": names[image]}
        for row, image in zip(found.as_coco(ids), found.image_ids.tolist(), strict=True)
    ]
    write_whole(path, json.dumps(rows, indent=1) + "\n")

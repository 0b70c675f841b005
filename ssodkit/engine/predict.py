"""Prediction: a run's network looks at any images; its detections are drawn, and written as COCO results."""

import json
from collections.abc import Sequence
from pathlib import Path

from ssodkit.data.annotations import ImageSet, make_image_set
from ssodkit.data.files import write_whole, written_whole
from ssodkit.data.folder import read_folder
from ssodkit.data.mistakes import printable
from ssodkit.data.pictures import measured
from ssodkit.engine.bars import showing
from ssodkit.engine.failures import explained
from ssodkit.engine.folders import filled_whole, refuse_used
from ssodkit.engine.trained import TrainedDetector, load

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
    detector = load(run, network, device, score, trust_plugins)
    pictures = _gather_images([Path(image) for image in images])
    with explained(), filled_whole(out) as draft:
        rows = _draw(detector, pictures, draft)
        write_whole(draft / RESULTS, json.dumps(rows, indent=1) + "\n")
    path = out / RESULTS
    images_seen = f"{len(pictures)} image{'s' * (len(pictures) != 1)}"
    print(f"{len(rows)} detections of the {detector.name} above {score:g} in {images_seen}")
    print_notes(pictures)
    print(f"results    {path}\npictures   {out}")
    return path


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


def _draw(detector: TrainedDetector, images: ImageSet, out: Path) -> list[dict[str, object]]:
    """One PNG for each image; the COCO results of all of them."""
    paths = [images.path(index) for index in range(len(images))]
    names, rows = picture_names([path.stem for path in paths]), []
    with showing("detecting") as on_progress:
        for place, found in enumerate(detector.look_at(paths)):
            on_progress(place, len(paths))
            with written_whole(out / f"{names[place]}.png") as stream:
                found.draw().save(stream, format="PNG")
            number = int(images.ids[place])
            rows += [{**row, "file_name": images.name(place)} for row in found.to_coco(number)]
    return rows


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

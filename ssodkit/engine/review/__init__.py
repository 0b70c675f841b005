"""Review: a page, opened from the disk, on which somebody looks through what a run's network found.

Pictures come in the order of doubt. The page's answer is a COCO file, which it hands over as a download: there is no
server.
"""

import hashlib
import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ssodkit.data.annotations import ImageSet
from ssodkit.data.files import write_whole, written_whole
from ssodkit.data.given import read_picture
from ssodkit.engine.bars import showing
from ssodkit.engine.checkpoint import read_run
from ssodkit.engine.failures import explained
from ssodkit.engine.folders import filled_whole, refuse_used
from ssodkit.engine.found import Found
from ssodkit.engine.label import open_images
from ssodkit.engine.predict import print_notes
from ssodkit.engine.trained import TrainedDetector, load
from ssodkit.errors import TrainingError

PAGE, DATA = "index.html", "data.js"
LARGE, SMALL = 1600, 240
"""Pixels of the longer side of the pictures, and of their thumbnails."""


def review(
    run: Path | str,
    out: Path | str,
    images: Path | str | None = None,
    network: str | None = None,
    score: float = 0.1,
    device: str | None = None,
    trust_plugins: bool = False,
) -> Path:
    """Write the page for a run's unlabeled images, or those of the folder `images`, into the new or empty folder `out`.

    It shows boxes that score above `score`, a slider on it begins at 0.5. The answer is the file that is to be opened.
    `network` is the recipe's result if not given. Raises DataError for an image that cannot be read, TrainingError for
    a run without that network and where `out` holds anything, RecipeError for plug-ins that were never run here,
    unless `trust_plugins`.
    """
    out = Path(out)
    refuse_used(out)
    detector = load(run, network, device, score, trust_plugins)
    if images is None and Path(run).is_file():
        raise TrainingError(f"{run} is a detector without a run, so it has no unlabeled images. Name a FOLDER of them.")
    with explained(), filled_whole(out) as draft:
        pictures = open_images(detector.recipe if images is not None else read_run(Path(run), trust_plugins)[0], images)
        looked = sorted(_look(detector, pictures, draft), key=lambda picture: -picture["doubt"])
        data: dict[str, Any] = {
            "categories": [{"id": category.id, "name": category.name} for category in detector.categories],
            "about": {"recipe": detector.recipe.name, "network": detector.name, "score_above": score},
            "pictures": looked,
        }
        text = json.dumps(data, allow_nan=False)
        data["key"] = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
        write_whole(draft / DATA, f"const REVIEW = {json.dumps(data, allow_nan=False)};\n")
        for name in (PAGE, "review.js", "review.css"):
            write_whole(draft / name, files(__package__).joinpath(name).read_text(encoding="utf-8"))
    boxes = sum(len(picture["scores"]) for picture in looked)
    print(f"{boxes} detections of the {detector.name} above {score:g} in {len(pictures)} images, sorted by doubt")
    print_notes(pictures)
    print(f"open       {out / PAGE}")
    return out / PAGE


def doubt(scores: NDArray[np.float32]) -> float:
    """How many of the detections in a picture are undecided: the sum of 1 - |2 s - 1|, 1 at a score of 0.5.

    Source: the margin between the two best classes, here a thing or nothing, summed over the detections of a picture;
    Brust et al., Active Learning for Deep Object Detection, VISAPP 2019, arXiv:1809.09875, section 3 (there squared).
    """
    return float((1.0 - np.abs(2.0 * scores.astype(np.float64) - 1.0)).sum())


def _look(detector: TrainedDetector, images: ImageSet, out: Path) -> Iterator[dict[str, Any]]:
    """What the page knows of each picture, whose files are written below `out`."""
    for folder in ("pictures", "thumbs"):
        (out / folder).mkdir()
    paths = [images.path(place) for place in range(len(images))]
    with showing("detecting") as on_progress:
        for place, found in enumerate(detector.look_at(paths)):
            on_progress(place, len(paths))
            picture = Image.fromarray(read_picture(found.picture))
            for folder, side in (("pictures", LARGE), ("thumbs", SMALL)):
                smaller = picture.copy()
                smaller.thumbnail((side, side))
                with written_whole(out / folder / f"{place}.jpg") as stream:
                    smaller.save(stream, format="JPEG", quality=88)
            yield _describe(found, int(images.ids[place]), images.name(place), place, picture.size)


def _describe(found: Found, number: int, name: str, place: int, size: tuple[int, int]) -> dict[str, Any]:
    return {
        "id": number,
        "name": name.encode(errors="backslashreplace").decode(),
        "file": place,
        "size": size,
        "doubt": round(doubt(found.scores), 3),
        "boxes": [[round(side, 2) for side in box] for box in found.boxes.astype(np.float64).tolist()],
        "scores": [round(score, 4) for score in found.scores.astype(np.float64).tolist()],
        "labels": found.labels.tolist(),
    }

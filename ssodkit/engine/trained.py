"""A trained network as a function: pictures in, what it found in them out."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import overload

import torch

from ssodkit.data.annotations import Category, make_image_set
from ssodkit.data.given import Picture, read_picture
from ssodkit.data.raw import stack_images
from ssodkit.data.views import ViewMaker
from ssodkit.detectors.base import Detector
from ssodkit.engine.checkpoint import read_categories, read_run
from ssodkit.engine.detector_file import read_detector
from ssodkit.engine.distributed import choose_device
from ssodkit.engine.evaluate import detect, test_views
from ssodkit.engine.failures import explained
from ssodkit.engine.found import Found
from ssodkit.engine.networks import open_network
from ssodkit.errors import TrainingError
from ssodkit.ops.random import make_key
from ssodkit.recipe.model import Recipe
from ssodkit.structures.teaching import Targets


def load(
    run: Path | str,
    network: str | None = None,
    device: str | None = None,
    score: float | None = None,
    trust_plugins: bool = False,
) -> "TrainedDetector":
    """The detector that a run has trained, ready to be called with pictures.

    `run` is its folder, whose newest checkpoint is taken; the folder of a checkpoint; or a file of `ssodkit export
    --format safetensors`. `network` is the recipe's result if not given, `device` CUDA where there is one, `score` the
    recipe's first test threshold. Raises TrainingError where there is no checkpoint or not that network, RecipeError
    for plug-ins that were never run here, unless `trust_plugins`.
    """
    path, chosen = Path(run), choose_device(device)
    if not path.is_file():
        return open_trained(*read_run(path, trust_plugins), network, chosen, score)
    saved = read_detector(path, trust_plugins)
    name, built = saved.open(network, chosen)
    return TrainedDetector(built, name, saved.recipe, saved.categories, chosen, _lowest(saved.recipe, score))


def open_trained(
    recipe: Recipe, checkpoint: Path, network: str | None, device: torch.device, score: float | None = None
) -> "TrainedDetector":
    """The detector of a checkpoint, as `recipe` has it; errors are those of `open_network`."""
    name, built = open_network(recipe, checkpoint, network, device)
    return TrainedDetector(built, name, recipe, read_categories(checkpoint), device, _lowest(recipe, score))


@dataclass(frozen=True, eq=False)
class TrainedDetector:
    """Sees pictures as the recipe's test does, in batches of its `evaluation.images`.

    A picture is a path; an image of Pillow's; an array (height, width, 3), uint8, RGB; or a tensor (3, height, width),
    RGB, uint8 or floats from 0 to 1.
    """

    network: Detector
    name: str
    """`student` or `teacher`."""
    recipe: Recipe
    categories: tuple[Category, ...]
    device: torch.device
    score: float
    """Detections score above it, unless a call says otherwise."""

    @property
    def at_most(self) -> int:
        """Detections in a picture."""
        return self.recipe.detector.test.at_most

    @overload
    def __call__(self, pictures: Picture, score: float | None = None) -> Found: ...

    @overload
    def __call__(self, pictures: list[Picture] | tuple[Picture, ...], score: float | None = None) -> list[Found]: ...

    def __call__(
        self, pictures: Picture | list[Picture] | tuple[Picture, ...], score: float | None = None
    ) -> Found | list[Found]:
        """What is found above `score` in a picture, or in each of a list of them.

        Pictures of one batch share a canvas, so what is found may depend a little on the sizes of the others. Raises
        DataError for a picture that cannot be read.
        """
        if isinstance(pictures, list | tuple):
            return list(self.look_at(pictures, score))
        return next(self.look_at([pictures], score))

    def look_at(self, pictures: Iterable[Picture], score: float | None = None) -> Iterator[Found]:
        """The same for any number of pictures, of which one batch at a time is read and held."""
        lowest = self.score if score is None else score
        if not 0.0 <= lowest <= 1.0:
            raise TrainingError(f"score is {lowest:g}; detections score from 0 to 1, so give a number between these.")
        views, first, waiting = test_views(self.recipe), 0, iter(pictures)
        while given := list(islice(waiting, self.recipe.evaluation.images)):
            with explained():
                yield from self._look(given, first, views, lowest)
            first += len(given)

    def _look(self, given: Sequence[Picture], first: int, views: ViewMaker, score: float) -> Iterator[Found]:
        """One batch; `first` pictures were looked at before it."""
        numbers = range(first, first + len(given))
        pixels = [
            read_picture(picture, f"picture {number + 1}") for number, picture in zip(numbers, given, strict=True)
        ]
        keys = [make_key("test", number) for number in numbers]
        raw = stack_images(pixels, numbers, keys, Targets.empty(len(given))).to(self.device)
        images = make_image_set(Path(), [""] * len(given), numbers, [image.shape[:2] for image in pixels])
        precision = self.recipe.engine.precision
        (found,) = detect({self.name: self.network}, [views.make(raw)], images, [score], precision)[self.name]
        for number, picture, image in zip(numbers, given, pixels, strict=True):
            rows = found.image_ids == number
            source = Path(picture) if isinstance(picture, str | Path) else image
            yield Found(found.boxes[rows], found.scores[rows], found.labels[rows], self.categories, source)


def _lowest(recipe: Recipe, score: float | None) -> float:
    return recipe.evaluation.thresholds[0] if score is None else score

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
from ssodkit.engine.build import build_method, place
from ssodkit.engine.checkpoint import load_network, read_categories, read_run
from ssodkit.engine.distributed import choose_device
from ssodkit.engine.evaluate import detect, test_views
from ssodkit.engine.failures import explained
from ssodkit.engine.found import Found
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

    `run` is its folder, whose newest checkpoint is taken, or the folder of a checkpoint. `network` is the recipe's
    result if not given, `device` CUDA where there is one, `score` the recipe's first test threshold. Raises
    TrainingError for a folder without a checkpoint and a run without that network, RecipeError for plug-ins that were
    never run here, unless `trust_plugins`.
    """
    recipe, checkpoint = read_run(Path(run), trust_plugins)
    chosen = choose_device(device)
    name, built = open_network(recipe, checkpoint, network, chosen)
    lowest = recipe.evaluation.thresholds[0] if score is None else score
    return TrainedDetector(built, name, recipe, read_categories(checkpoint), chosen, lowest)


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
        found = detect({self.name: self.network}, [views.make(raw)], images, score, self.recipe.engine.precision)[
            self.name
        ]
        for number, picture, image in zip(numbers, given, pixels, strict=True):
            rows = found.image_ids == number
            source = Path(picture) if isinstance(picture, str | Path) else image
            yield Found(found.boxes[rows], found.scores[rows], found.labels[rows], self.categories, source)


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

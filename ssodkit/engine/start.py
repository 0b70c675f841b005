"""The weights that a recipe's `detector.weights` names: found, read, and compared with the detector."""

import json
from collections.abc import Sequence
from pathlib import Path

from ssodkit.detectors.base import DetectorConfig
from ssodkit.detectors.starting import Start, misfit
from ssodkit.detectors.torchvision_weights import KNOWN, from_torchvision, is_torchvisions, weights_of
from ssodkit.detectors.weight_files import fetch_weights, read_weights
from ssodkit.detectors.weight_source import Source
from ssodkit.engine.checkpoint import NETWORK, STUDENT, read_run
from ssodkit.errors import RecipeError, SsodkitError
from ssodkit.plugins import suggest
from ssodkit.recipe.model import Recipe
from ssodkit.recipe.read import Mistake, Written, refuse
from ssodkit.recipe.validate import dotted, locate

KEY = ("detector", "weights")
AS_TRAINED = "the detector of the recipe that it was trained with"


def find_start(config: DetectorConfig, classes: Sequence[str]) -> Start | None:
    """What a detector of these classes starts from; None where its recipe names no weights.

    Raises RecipeError where they cannot be read or are another detector's. No network has been built then.
    """
    if config.weights is None:
        return None
    try:
        return Start(_fitting(config), tuple(classes))
    except RecipeError as error:
        raise RecipeError(f"{dotted(KEY)}: {error}") from error


def check_start(recipe: Recipe, tree: Written) -> None:
    """Raise RecipeError with the place in the recipe where its weights cannot be read or are another detector's."""
    if recipe.detector.weights is None:
        return
    try:
        _fitting(recipe.detector)
    except RecipeError as error:
        refuse([Mistake(locate(tree, KEY)[1].place, dotted(KEY), str(error))], error)


def read_source(weights: str | Path) -> Source:
    """The weights by a name of torchvision's network, or at a path. Raises RecipeError where they cannot be read."""
    if isinstance(weights, str):
        return from_torchvision(fetch_weights(weights), f"torchvision's {weights}", published=weights)
    try:
        is_run, is_file = weights.is_dir(), weights.is_file()
    except OSError as error:  # such as a name that is too long
        raise RecipeError(f"{weights} cannot be looked for: {error.strerror}") from error
    if is_run:
        return _of_run(weights)
    if not is_file:
        raise RecipeError(
            f"there is no file or run {weights}, and no network of this name: {suggest(str(weights), KNOWN)}"
        )
    return _of_file(weights)


def _fitting(config: DetectorConfig) -> Source:
    assert config.weights is not None
    source = read_source(config.weights)
    why = misfit(source, config)
    if why is not None:
        raise RecipeError(why)
    return source


def _of_run(run: Path) -> Source:
    """The result of a run, or of one of its checkpoints."""
    try:
        recipe, checkpoint = read_run(run)
    except SsodkitError as error:
        raise RecipeError(str(error)) from error
    result = checkpoint / f"{recipe.evaluation.result}{NETWORK}"
    return _of_file(result if result.is_file() else checkpoint / STUDENT)


def _of_file(path: Path) -> Source:
    """A file of ours, which says its classes, or a state of torchvision's network."""
    state, about = read_weights(path)
    if about.get("format", "").startswith("ssodkit"):
        names = tuple(str(name) for _, name in json.loads(about["categories"]))
        return Source(str(path), state, len(names), names, AS_TRAINED)
    if not is_torchvisions(state):
        raise RecipeError(
            f"{path} holds weights of no detector that is known. Name a run, a file of `ssodkit export --format "
            "safetensors`, or the weights of one of torchvision's: " + ", ".join(KNOWN)
        )
    published = (name for name in KNOWN if Path(weights_of(name).url).name == path.name)
    return from_torchvision(state, str(path), next(published, None))

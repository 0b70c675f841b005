"""One network of those that a run has trained."""

from collections.abc import Iterable
from pathlib import Path

import torch

from ssodkit.detectors.base import Detector
from ssodkit.engine.build import build_method, place
from ssodkit.engine.checkpoint import load_network, read_categories
from ssodkit.errors import TrainingError
from ssodkit.recipe.model import Recipe


def open_network(recipe: Recipe, checkpoint: Path, name: str | None, device: torch.device) -> tuple[str, Detector]:
    """A network of a checkpoint by its name, on a device; without a name, the recipe's result.

    Raises TrainingError for a run without that network.
    """
    networks = place(
        build_method(recipe, len(read_categories(checkpoint)), load_weights=False), recipe, device
    ).networks()
    name = name or result_of(recipe, networks)
    if name not in networks:
        run = checkpoint.parent.parent
        raise TrainingError(f"{run} has no {name}; its networks: {', '.join(networks)}")
    load_network(checkpoint, name, networks[name])
    return name, networks[name]


def result_of(recipe: Recipe, networks: Iterable[str]) -> str:
    """Which of these networks is a run's result: the one that the recipe names, else the first."""
    names = list(networks)
    return recipe.evaluation.result if recipe.evaluation.result in names else names[0]

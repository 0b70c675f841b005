"""A trained detector as one safetensors file: its weights, and in the metadata what else `load` needs."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from ssodkit.data.annotations import Category
from ssodkit.data.config import StoredSource
from ssodkit.detectors.base import Detector
from ssodkit.engine.build import build_method, place
from ssodkit.engine.checkpoint import RECIPE
from ssodkit.errors import TrainingError
from ssodkit.recipe.check import load_recipe
from ssodkit.recipe.model import Recipe
from ssodkit.recipe.show import dump_recipe

FORMAT = "ssodkit detector"
"""In the metadata, as `format`: weights of a checkpoint, which lack the recipe, say `ssodkit`."""


@dataclass(frozen=True)
class SavedDetector:
    """What such a file holds."""

    path: Path
    recipe: Recipe
    name: str
    """Of the network."""
    categories: tuple[Category, ...]
    tensors: Mapping[str, Tensor]

    def open(self, name: str | None, device: torch.device) -> tuple[str, Detector]:
        """Its network on a device. Raises TrainingError where another one is asked for."""
        if name not in (None, self.name):
            raise TrainingError(f"{self.path} has no {name}; it holds the {self.name} alone.")
        built = build_method(self.recipe, len(self.categories), load_weights=False)
        network = place(built, self.recipe, device).networks()[self.name]
        try:
            network.load_state_dict(dict(self.tensors))
        except RuntimeError as error:
            raise TrainingError(
                f"{self.path} holds other weights than this version of ssodkit, or of a plug-in, builds. Export the "
                "run again."
            ) from error
        return self.name, network


def dump_detector(recipe: Recipe, name: str, categories: tuple[Category, ...], network: Detector, step: int) -> bytes:
    """The content of such a file."""
    from safetensors.torch import save

    about = {
        "format": FORMAT,
        "recipe": dump_recipe(_without_first_stage(recipe)),
        "network": name,
        "categories": json.dumps(categories),
        "step": str(step),
    }
    return save({key: tensor.cpu().contiguous() for key, tensor in network.state_dict().items()}, metadata=about)


def read_detector(path: Path, trust_plugins: bool = False) -> SavedDetector:
    """What a file holds. Raises TrainingError for other files, RecipeError for plug-ins as `load_recipe` does."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  it is no mapping
    except (OSError, SafetensorError) as error:
        raise TrainingError(
            f"{path} is no file that can be loaded: {error}. Give the folder of a run, or a file of `ssodkit export "
            "--format safetensors`."
        ) from error
    if about.get("format") != FORMAT:
        raise TrainingError(
            f"{path} holds weights alone, not what they belong to. Give the folder of their run, or a file of `ssodkit "
            "export --format safetensors`."
        )
    with TemporaryDirectory() as folder:
        written = Path(folder) / RECIPE
        written.write_text(about["recipe"], encoding="utf-8")
        recipe = load_recipe(written, trust_plugins=trust_plugins)
    categories = tuple(Category(*pair) for pair in json.loads(about["categories"]))
    return SavedDetector(path, recipe, about["network"], categories, tensors)


def _without_first_stage(recipe: Recipe) -> Recipe:
    """The recipe that has made its labels need not be where a detector is loaded: the same, its labels in a file."""
    source = recipe.data.unlabeled
    if not isinstance(source, StoredSource) or source.made_by is None:
        return recipe
    told = StoredSource(file=Path("pseudo_labels.json"), of=source.of, above=source.above, at_least=source.at_least)
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"unlabeled": told})})

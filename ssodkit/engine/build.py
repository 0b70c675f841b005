"""From a recipe to its method: the one place where networks are built."""

import torch

from ssodkit.detectors.starting import Start
from ssodkit.methods.base import Method
from ssodkit.ops.random import make_key
from ssodkit.plugins import BuildContext
from ssodkit.recipe.model import Recipe


def build_method(
    recipe: Recipe,
    num_classes: int,
    load_weights: bool = True,
    start: Start | None = None,
    labeled_boxes_per_image: tuple[float, ...] | None = None,
) -> Method:
    """The method of a recipe, on the CPU; new weights are drawn from the recipe's seed alone.

    `start` holds weights of a whole detector, which all networks begin with; backbones fetch none then. Without
    `load_weights`, backbones have random weights and no network is needed: for what loads a checkpoint, for tests and
    benchmarks.
    """
    context = BuildContext(
        num_classes=num_classes,
        detector=recipe.detector,
        unlabeled_images=recipe.data.batch.unlabeled,
        images=recipe.data.batch.slots,
        labeled_boxes_per_image=labeled_boxes_per_image,
        minimum_visible=recipe.views.minimum_visible,
        joined=recipe.engine.joined,
        load_weights=load_weights and start is None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(make_key(recipe.seed, "weights"))
        method = recipe.method.build(context)
    if start is not None:
        for network in method.networks().values():
            start.put_into(network)
    return method


def place(method: Method, recipe: Recipe, device: torch.device) -> Method:
    """The same method on a device, laid out and compiled as the recipe's engine says."""
    method.to(device)
    if recipe.engine.channels_last:
        method.to(memory_format=torch.channels_last)
    if recipe.engine.compile:
        for network in method.networks().values():
            network.backbone.compile()
            network.neck.compile()
    return method

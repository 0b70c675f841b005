"""How a step's images are shared by processes and forwards: derived from the recipe's global batch, and said."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ssodkit.data.config import BatchConfig
from ssodkit.data.sampler import StepRows
from ssodkit.errors import RecipeError


@dataclass(frozen=True)
class Share:
    """The rows of one forward: places in the global batch of each stream."""

    labeled: slice
    unlabeled: slice


@dataclass(frozen=True)
class BatchPlan:
    """A global batch, cut into equal shares: one for each process, and for each of its forwards."""

    batch: BatchConfig
    world: int
    """Processes."""
    accumulation: int
    """Forwards of each process in a step."""
    lr_factor: float
    """What the recipe's learning rate is multiplied by."""

    def describe(self) -> str:
        """What was derived, in one paragraph for the log."""
        batch, forwards = self.batch, self.world * self.accumulation
        kinds = f"{batch.labeled} labeled and {batch.unlabeled} unlabeled images"
        if batch.composition == "random":
            kinds += f", drawn in groups of {batch.group_slots}"
        text = f"A step has {kinds}, shared by {self.world} process{'es' if self.world > 1 else ''}"
        text += f" in {self.accumulation} forwards each" if self.accumulation > 1 else ""
        if forwards > 1:
            each = f"{batch.labeled / forwards:g} + {batch.unlabeled / forwards:g}"
            text += f": {each} images at a time" + (" on average" if batch.composition == "random" else "")
        if self.accumulation > 1:
            text += "; losses are normalized within each forward"
        return f"{text}. The recipe's learning rate is multiplied by {self.lr_factor:g}."

    def shares(self, rows: StepRows, rank: int) -> Sequence[Share]:
        """The forwards of one process: contiguous shares of the global batch, of equal numbers of slots."""
        forwards = self.world * self.accumulation
        if self.batch.composition == "random":
            group = np.arange(forwards + 1) * len(rows.labeled_per_group) // forwards
            labeled = np.concatenate([[0], np.cumsum(rows.labeled_per_group)])[group]
            unlabeled = group * self.batch.group_slots - labeled
        else:
            labeled = np.arange(forwards + 1) * self.batch.labeled // forwards
            unlabeled = np.arange(forwards + 1) * self.batch.unlabeled // forwards
        first = rank * self.accumulation
        return [
            Share(slice(*labeled[place : place + 2].tolist()), slice(*unlabeled[place : place + 2].tolist()))
            for place in range(first, first + self.accumulation)
        ]


def derive_batch(
    batch: BatchConfig, world: int = 1, images_per_device: int | None = None, lr_for_images: int | None = None
) -> BatchPlan:
    """Share a global batch: the fewest forwards with at most `images_per_device` images of both kinds in each.

    The learning rate grows in proportion to the images of a step, from `lr_for_images`; None leaves it as it is.
    Raises RecipeError if no equal shares fit, saying which do.
    """
    # Every share holds both kinds: a process without one of them would wait for the others for ever.
    most = (
        batch.slots // batch.group_slots if batch.composition == "random" else math.gcd(batch.labeled, batch.unlabeled)
    )
    possible = [shares for shares in range(1, most + 1) if most % shares == 0]
    what = f"a step's {batch.labeled} labeled and {batch.unlabeled} unlabeled images"
    if batch.composition == "random":
        what += f" in {most} groups"
    if world not in possible:
        fitting = ", ".join(map(str, possible))
        raise RecipeError(f"data.batch: {what} cannot be shared equally by {world} processes; possible: {fitting}.")
    shares = [s for s in possible if s % world == 0 and batch.slots // s <= (images_per_device or batch.slots)]
    if not shares:
        raise RecipeError(
            f"engine.images_per_device is {images_per_device}, but {what} have no equal shares of fewer than "
            f"{batch.slots // most} images. Set it to {batch.slots // most} or more, or change data.batch."
        )
    factor = batch.slots / lr_for_images if lr_for_images else 1.0
    return BatchPlan(batch, world, shares[0] // world, factor)

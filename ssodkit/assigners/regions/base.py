"""Regions say which candidates learn what another network answered about them, where no target is given."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ssodkit.plugins import PluginConfig
from ssodkit.structures.predictions import Candidates, Predictions
from ssodkit.structures.teaching import BACKGROUND, Assignment


class RegionConfig(PluginConfig, ABC):
    """Which candidates learn; the config is the function, as it holds numbers only."""

    slot: ClassVar[str] = "region"

    @abstractmethod
    def __call__(self, theirs: Predictions) -> Assignment:
        """Who learns is positive, with itself as index; all other valid candidates are background.

        The quality of a candidate is the probability of its best class: the normalizer `quality` divides by the sum of
        it over all who learn. Called without gradient.
        """


def best_class_probs(theirs: Predictions) -> Float[Tensor, "batch candidates"]:
    """The probability of each candidate's best class, background not among them."""
    return theirs.class_probs()[..., : theirs.num_classes].amax(dim=-1)


def assignment_of(
    learns: Bool[Tensor, "batch candidates"], candidates: Candidates, quality: Float[Tensor, "batch candidates"]
) -> Assignment:
    """The assignment of a region to which these candidates belong."""
    itself = torch.arange(learns.shape[1], device=learns.device).expand_as(learns)
    return Assignment.matched(itself.masked_fill(~learns, BACKGROUND), quality, candidates.valid)

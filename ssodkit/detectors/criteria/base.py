"""Criteria: losses per candidate, not reduced. A class criterion compares logits, a box criterion codes or boxes."""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor

from ssodkit.plugins import PluginConfig
from ssodkit.structures.predictions import Predictions


class CriterionConfig(PluginConfig, ABC):
    """A loss per candidate; the config is the function, as it holds numbers only."""

    slot: ClassVar[str] = "criterion"
    takes_soft_targets: ClassVar[bool] = False
    """Whether how strongly something should be said may be less than fully."""


class ClassCriterionConfig(CriterionConfig, ABC):
    """Compares class logits with what each candidate should say."""

    takes_soft_targets: ClassVar[bool] = True
    activation: ClassVar[str]
    """`sigmoid` or `softmax`: which predictions it is for."""

    @abstractmethod
    def __call__(self, logits: Tensor, labels: Tensor, target: Tensor) -> Tensor:
        """Losses of shape (batch, candidates), fp32 or finer.

        `labels` (batch, candidates) are classes, num_classes for background; `target` (batch, candidates), in
        [0, 1], is how strongly the label should be said: 1 for a hard label.
        """


class BoxCriterionConfig(CriterionConfig, ABC):
    """Compares predicted boxes with the boxes of the assigned targets."""

    @abstractmethod
    def __call__(self, predictions: Predictions, labels: Tensor, boxes: Tensor) -> Tensor:
        """Losses of shape (batch, candidates), fp32 or finer.

        `boxes` (batch, candidates, 4) are the targets in pixels; where a candidate is not positive, both it and its
        target are the unit box, and the loss is finite but not used. `labels` (batch, candidates), of a foreground
        class everywhere, choose the regressor where there is one per class.
        """

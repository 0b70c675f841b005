"""Dense heads: from a pyramid to what a detector says about every anchor."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ssodkit.nn.towers import DenseShape, LevelAnswers, TowersConfig
from ssodkit.ops.coding import Coder
from ssodkit.plugins import PluginConfig
from ssodkit.structures.predictions import Candidates


class DenseHeadConfig(PluginConfig, ABC):
    """What a detector says about the cells of a pyramid."""

    slot: ClassVar[str] = "dense_head"

    @property
    def answers(self) -> frozenset[str]:
        """What the head says about an anchor: `class`, `box` and the names in `DenseAnswers.extra`."""
        return frozenset({"class", "box"})

    def misfit(self, channels: int, anchors_per_cell: int) -> str | None:
        """A sentence that says why the head cannot stand on such a pyramid; None if it can."""
        return None

    @abstractmethod
    def build(self, shape: DenseShape) -> "DenseHead": ...


class TowerHeadConfig(TowersConfig, DenseHeadConfig, ABC):
    """Two towers, shared by all levels, and what a head makes of them."""

    offers: ClassVar[Mapping[str, str]] = {"uncertainty": "uncertainty: true"}

    @property
    def answers(self) -> frozenset[str]:
        """Classes, boxes, and `uncertainty` where it is said."""
        return super().answers | ({"uncertainty"} if self.uncertainty else frozenset())

    def misfit(self, channels: int, anchors_per_cell: int) -> str | None:
        if self.groups is not None and channels % self.groups:
            return f"head.groups is {self.groups}, which does not divide the {channels} channels of the pyramid"
        return None


@dataclass(frozen=True)
class DenseAnswers:
    """What a head says, in the order of the anchors."""

    logits: Float[Tensor, "batch anchors classes"]
    """For a sigmoid."""
    codes: Float[Tensor, "batch anchors 1 4"]
    extra: Mapping[str, Float[Tensor, "batch anchors ..."]] = field(default_factory=dict)
    """Logits of further answers, such as `quality`."""


class DenseHead(nn.Module, ABC):
    """A head that answers with boxes instead of codes writes them in a code of its own: `coder` always decodes them."""

    coder: Coder
    """What the codes of `forward` mean, seen from the anchors."""

    @abstractmethod
    def forward(self, maps: Sequence[Float[Tensor, "batch channels _ _"]], anchors: Candidates) -> DenseAnswers: ...


def uncertainty_of(answers: Sequence[LevelAnswers]) -> dict[str, Tensor]:
    """The answer `uncertainty` of all levels by its name, or nothing where the towers do not say it."""
    said = [answer.uncertainty for answer in answers if answer.uncertainty is not None]
    return {"uncertainty": torch.cat(said, dim=1)} if said else {}

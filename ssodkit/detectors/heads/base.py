"""Dense heads: from a pyramid to class logits and box codes of every anchor."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from ssodkit.nn.towers import DenseShape, TowersConfig
from ssodkit.ops.coding import Coder
from ssodkit.plugins import PluginConfig
from ssodkit.structures.predictions import Candidates


class DenseHeadConfig(TowersConfig, PluginConfig, ABC):
    """Two towers, and what a head makes of them."""

    slot: ClassVar[str] = "dense_head"

    def misfit(self, channels: int, anchors_per_cell: int) -> str | None:
        """A sentence that says why the head cannot stand on such a pyramid; None if it can."""
        if self.groups is not None and channels % self.groups:
            return f"head.groups is {self.groups}, which does not divide the {channels} channels of the pyramid"
        return None

    @abstractmethod
    def build(self, shape: DenseShape) -> "DenseHead": ...


class DenseHead(nn.Module, ABC):
    """A head that answers with boxes instead of codes writes them in a code of its own: `coder` always decodes them."""

    coder: Coder
    """What the codes of `forward` mean, seen from the anchors."""

    @abstractmethod
    def forward(
        self, maps: Sequence[Float[Tensor, "batch channels _ _"]], anchors: Candidates
    ) -> tuple[Float[Tensor, "batch anchors classes"], Float[Tensor, "batch anchors 1 4"]]:
        """Class logits (for a sigmoid) and box codes, in the order of the anchors."""

"""Nearest: the pixels of a view are copies of the image's, not mixtures of four."""

from typing import Literal

from jaxtyping import Int64
from torch import Tensor

from ssodkit.data.augment.base import DrawnView, TransformConfig
from ssodkit.plugins import register


@register
class NearestConfig(TransformConfig):
    """Read the nearest pixel where the view is resampled. All its geometry, resizing too, is one resampling."""

    type: Literal["nearest"] = "nearest"

    @property
    def moves(self) -> bool:
        """False: the motion is that of the others."""
        return False

    def draw_into(self, view: DrawnView, rows: Int64[Tensor, "rows"], keys: Int64[Tensor, "rows"]) -> None:
        """Nothing is drawn."""
        view.nearest[rows] = True

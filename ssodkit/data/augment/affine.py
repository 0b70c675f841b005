"""Affine motions that keep the image's size: shifts, rotation, shear, zoom.

Sources: Xu et al., Soft Teacher, arXiv:2106.09018, and microsoft/SoftTeacher for the signs, centers and tanh; Sohn et
al., STAC, arXiv:2005.04757, and google-research/ssl_detection.
"""

from typing import Literal

import torch
from jaxtyping import Int64
from pydantic import Field
from torch import Tensor

from ssodkit.data.augment.base import GeometryConfig, Move, PositiveRange, draw_between
from ssodkit.ops.homography import about, rotation, scaling, shearing, translation
from ssodkit.plugins import register


@register
class ShiftXConfig(GeometryConfig):
    """Shift to the left or right."""

    type: Literal["shift_x"] = "shift_x"
    fraction: float = Field(0.1, ge=0.0, le=1.0)
    """The largest shift, in image widths."""

    def draw(self, keys: Int64[Tensor, "rows"], sizes: Int64[Tensor, "rows 2"]) -> Move:
        """A translation by U(-fraction, fraction) times the width."""
        shift = draw_between(keys, (-self.fraction, self.fraction), "shift") * sizes[:, 1]
        return Move(translation(shift, torch.zeros_like(shift)), sizes)


@register
class ShiftYConfig(GeometryConfig):
    """Shift up or down."""

    type: Literal["shift_y"] = "shift_y"
    fraction: float = Field(0.1, ge=0.0, le=1.0)
    """The largest shift, in image heights."""

    def draw(self, keys: Int64[Tensor, "rows"], sizes: Int64[Tensor, "rows 2"]) -> Move:
        """A translation by U(-fraction, fraction) times the height."""
        shift = draw_between(keys, (-self.fraction, self.fraction), "shift") * sizes[:, 0]
        return Move(translation(torch.zeros_like(shift), shift), sizes)


@register
class RotateConfig(GeometryConfig):
    """Rotate about the middle."""

    type: Literal["rotate"] = "rotate"
    degrees: float = Field(30.0, ge=0.0, le=180.0)
    """The largest angle, either way."""
    rule: Literal["soft_teacher", "stac"] = "soft_teacher"
    """Whose middle: ((W - 1) / 2, (H - 1) / 2), or (W / 2, H / 2)."""

    def draw(self, keys: Int64[Tensor, "rows"], sizes: Int64[Tensor, "rows 2"]) -> Move:
        """A rotation by U(-degrees, degrees), positive angles clockwise.

        Soft Teacher's middle counts from pixel centers, and moves boxes as if it counted from pixel corners. Here one
        matrix moves both, in continuous coordinates: boxes are Soft Teacher's, pixels turn about the same point.
        """
        angle = draw_between(keys, (-self.degrees, self.degrees), "angle")
        height, width = (sizes.double() - (1.0 if self.rule == "soft_teacher" else 0.0)).unbind(dim=1)
        return Move(about(rotation(angle), width / 2, height / 2), sizes)


@register
class ShearConfig(GeometryConfig):
    """Shear along x, then along y."""

    type: Literal["shear"] = "shear"
    degrees: float = Field(30.0, ge=0.0, lt=90.0)
    """The largest angle, either way."""
    rule: Literal["soft_teacher", "stac"] = "soft_teacher"
    """Whose shear: slopes tanh(-a) along x and tanh(b) along y, each with its own angle, about the top left corner; or
    the slope tan(a) along both, one angle for both, about the image's center."""

    def draw(self, keys: Int64[Tensor, "rows"], sizes: Int64[Tensor, "rows 2"]) -> Move:
        """A shear by angles of U(-degrees, degrees)."""
        angle_x, angle_y = draw_between(keys, (-self.degrees, self.degrees), "angle", (2,)).deg2rad().unbind(dim=1)
        if self.rule == "soft_teacher":
            return Move(shearing(torch.tanh(-angle_x), torch.tanh(angle_y)), sizes)
        height, width = sizes.double().unbind(dim=1)
        return Move(about(shearing(torch.tan(angle_x), torch.tan(angle_x)), width / 2, height / 2), sizes)


@register
class ZoomConfig(GeometryConfig):
    """Zoom in or out about the image's center; the view keeps its size."""

    type: Literal["zoom"] = "zoom"
    factor: PositiveRange = (0.75, 1.3)
    """Above 1 things get larger."""

    def draw(self, keys: Int64[Tensor, "rows"], sizes: Int64[Tensor, "rows 2"]) -> Move:
        """A scaling by a factor drawn evenly."""
        factor = draw_between(keys, self.factor, "factor")
        height, width = sizes.double().unbind(dim=1)
        return Move(about(scaling(factor, factor), width / 2, height / 2), sizes)

"""Resize: the short side to a drawn length, the long side within a limit, the ratio kept.

Source: Chen et al., MMDetection, arXiv:1906.07155: scale = min(long / long side, short / short side), sides rounded.
"""

from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float, Int64
from pydantic import BeforeValidator, Field, model_validator
from torch import Tensor

from ssodkit.data.augment.base import GeometryConfig, InOrder, Move
from ssodkit.ops.homography import scaling
from ssodkit.ops.random import integers
from ssodkit.plugins import register

Pixels = Annotated[int, Field(ge=1, le=100_000)]
PixelRange = Annotated[tuple[Pixels, Pixels], InOrder]


def _pair(value: object) -> object:
    return (value, value) if isinstance(value, int) and not isinstance(value, bool) else value


@register
class ResizeConfig(GeometryConfig):
    """Resize images, keeping their ratio to within the rounding of their sides."""

    type: Literal["resize"] = "resize"
    uncovers: ClassVar[bool] = False

    short: Annotated[PixelRange, BeforeValidator(_pair, json_schema_input_type=Pixels | PixelRange)] | None = None
    """Pixels of the short side: one number, or [low, high] for any whole number between them."""
    short_choices: tuple[Pixels, ...] | None = Field(None, min_length=1)
    """Instead: the lengths of which one is drawn."""
    long: Pixels | None = None
    """Most pixels of the long side; the short side then stays below what was drawn."""

    @model_validator(mode="after")
    def _one_rule(self) -> "ResizeConfig":
        if (self.short is None) == (self.short_choices is None):
            raise ValueError("give either `short` or `short_choices`")
        return self

    def draw(self, keys: Int64[Tensor, "rows"], sizes: Int64[Tensor, "rows 2"]) -> Move:
        """A scaling by the ratio of the rounded sides, so that the view's edge is the image's edge."""
        new = resized(sizes, resize_scale(sizes, self._draw_short(keys), self.long))
        height, width = (new.double() / sizes).unbind(dim=1)
        return Move(scaling(width, height), new)

    def _draw_short(self, keys: Int64[Tensor, "rows"]) -> Int64[Tensor, "rows"]:
        if self.short is not None:
            return integers(keys, (), *self.short, "short")
        choices = torch.tensor(self.short_choices)
        return choices[integers(keys, (), 0, len(choices) - 1, "short")]


def resize_scale(
    sizes: Int64[Tensor, "rows 2"], short: Int64[Tensor, "rows"], long: int | None
) -> Float[Tensor, "rows"]:
    """The factor that brings the short side to `short` pixels, or the long side to `long` if that is less; float64."""
    scale = short.double() / sizes.amin(dim=1)
    return scale if long is None else torch.minimum(scale, long / sizes.amax(dim=1).double())


def resized(sizes: Int64[Tensor, "rows 2"], scale: Float[Tensor, "rows"]) -> Int64[Tensor, "rows 2"]:
    """Height and width times the scale, rounded, at least one pixel."""
    return (sizes * scale[:, None] + 0.5).floor().clamp(min=1.0).to(torch.int64)

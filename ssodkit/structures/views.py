"""A view: images after their transforms, with the homography that led there."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from ssodkit.ops.homography import reflection
from ssodkit.ops.random import derive_keys
from ssodkit.structures.records import Record


@dataclass(frozen=True)
class View(Record):
    """Images after their transforms, and where they came from. Padding lies right and below, and is black."""

    pixels: UInt8[Tensor, "batch 3 height width"]
    """RGB, 0 to 255; the detector scales and normalizes."""
    sizes: Int64[Tensor, "batch 2"]
    """Height and width of each image without its padding, in pixels."""
    homography: Float[Tensor, "batch 3 3"]
    """Carries pixels of the original image into this view; fp32."""
    image_ids: Int64[Tensor, "batch"]
    keys: Int64[Tensor, "batch"]
    """What every random draw about this view is made from; see `ops.random`."""
    margin: Int64[Tensor, "batch"] | None = None
    """Columns of padding left of each image, which are a part of its size; None: there are none, as in all views but
    mirrored ones."""

    def without_pixels(self) -> "View":
        """The view's frame alone, for records that only need to know where their boxes lie; it keeps no pixel alive."""
        return replace(self, pixels=self.pixels.new_empty(len(self.pixels), 3, 0, 0), margin=None)


def mirrored(view: View) -> View:
    """The view seen in a mirror: x becomes its canvas's width - x, so that padding lies on the left.

    What lies in a cell of its canvas lies in the mirrored cell of the other one, whatever the images' sizes, wherever
    the canvas is whole cells wide. Boxes get there and back by `carry`. Its draws are its own.
    """
    width = view.sizes.new_full((len(view.sizes),), view.pixels.shape[-1])
    mirror = reflection(width.to(view.homography.dtype))
    return replace(
        view,
        pixels=view.pixels.flip(-1),
        sizes=torch.stack([view.sizes[:, 0], width], dim=-1),
        homography=mirror @ view.homography,
        keys=derive_keys(view.keys, "mirrored"),
        margin=width - view.sizes[:, 1],
    )

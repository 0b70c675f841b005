"""A view: images after their transforms, with the homography that led there."""

from dataclasses import dataclass, replace

from jaxtyping import Float, Int64, UInt8
from torch import Tensor

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

    def without_pixels(self) -> "View":
        """The view's frame alone, for records that only need to know where their boxes lie; it keeps no pixel alive."""
        return replace(self, pixels=self.pixels.new_empty(len(self.pixels), 3, 0, 0))

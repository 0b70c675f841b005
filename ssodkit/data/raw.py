"""Images as they are decoded, with their labels, before any view is made of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from numpy.typing import NDArray
from torch import Tensor

from ssodkit.structures.records import Record, map_tensors
from ssodkit.structures.teaching import Targets


@dataclass(frozen=True)
class RawBatch(Record):
    """Images of one stream in original pixels; padding lies right and below, and is black."""

    pixels: UInt8[Tensor, "batch 3 height width"]
    """RGB, 0 to 255."""
    sizes: Int64[Tensor, "batch 2"]
    """Height and width of each image without its padding, in pixels; always on the CPU."""
    image_ids: Int64[Tensor, "batch"]
    """Always on the CPU."""
    keys: Int64[Tensor, "batch"]
    """`make_key(seed, step, stream, place in the global batch)`; always on the CPU, where views are drawn."""
    targets: Targets
    """In original pixels; empty for images without labels. On the device of the pixels."""
    known: Targets | None = None
    """The same on the CPU, where views are drawn; None while `targets` are there."""

    def to(self, device: torch.device | str) -> "RawBatch":
        """Pixels and targets on a device; sizes, ids and keys stay on the CPU, where views are drawn."""
        return replace(
            self,
            pixels=self.pixels.to(device, non_blocking=True),
            targets=self.targets.to(device),
            known=self.known or self.targets,
        )

    def pin_memory(self) -> "RawBatch":
        """The same batch in page-locked memory, from which copies to a GPU need not be waited for."""
        return map_tensors(self, Tensor.pin_memory)


def stack_images(
    images: Sequence[NDArray[np.uint8]], image_ids: Sequence[int], keys: Sequence[int], targets: Targets
) -> RawBatch:
    """One batch of decoded images (height, width, 3), padded to the largest height and width among them."""
    sizes = torch.tensor([image.shape[:2] for image in images], dtype=torch.int64).reshape(-1, 2)
    height, width = sizes.amax(dim=0).tolist() if images else (0, 0)
    pixels = torch.zeros(len(images), 3, height, width, dtype=torch.uint8)
    for canvas, image in zip(pixels, images, strict=True):
        canvas[:, : image.shape[0], : image.shape[1]] = torch.from_numpy(image).permute(2, 0, 1)
    return RawBatch(
        pixels,
        sizes,
        torch.tensor(image_ids, dtype=torch.int64),
        torch.tensor(keys, dtype=torch.int64),
        targets,
    )

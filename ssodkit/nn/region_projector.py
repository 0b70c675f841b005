"""From regions of a pyramid to vectors: what lies in a box, as the content of a query.

Source: Zhang et al., Semi-DETR, CVPR 2023, arXiv:2307.08095, section 3.3; layers are those of its code
(JCZ404/Semi-DETR).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import relu

from ssodkit.nn.roi_head import region_levels
from ssodkit.nn.shared_norm import SharedNorm
from ssodkit.ops.boxes import at_least_fp32
from ssodkit.ops.roi_align import roi_align


class RegionProjector(nn.Module):
    """Two 3x3 convolutions and two matrices, with a ReLU behind each, and a norm behind all but the last."""

    def __init__(self, channels: int, cells: int, width: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(2))
        self.first = nn.Linear(channels * cells**2, width)
        self.second = nn.Linear(width, channels)
        self.norms = nn.ModuleList(SharedNorm(count) for count in (channels, channels, width))

    def forward(
        self, pooled: Float[Tensor, "regions channels cells cells"], counts: Bool[Tensor, "regions"]
    ) -> Float[Tensor, "regions channels"]:
        """A vector for each region; statistics are those of the regions that count, which all processes share."""
        for convolution, norm in zip(self.convolutions, self.norms, strict=False):
            pooled = relu(norm(convolution(pooled), counts))
        hidden: Tensor = relu(self.norms[2](self.first(pooled.flatten(1)), counts))
        return relu(self.second(hidden))


@torch.no_grad()
def read_regions(
    maps: Sequence[Float[Tensor, "batch channels _ _"]],
    strides: Sequence[int],
    boxes: Float[Tensor, "batch regions 4"],
    cells: int,
    finest_side: float,
) -> Float[Tensor, "batch*regions channels cells cells"]:
    """What lies in each box, read from the level of its size; image after image. The host is asked nothing.

    Boxes of side `finest_side` and less are read from the finest map, those of twice that side from the next.
    """
    boxes = at_least_fp32(boxes)
    level = region_levels(boxes, finest_side, len(maps))
    image = torch.arange(len(boxes), device=boxes.device)[:, None, None].expand(*boxes.shape[:2], 1)
    read = []
    for place, (features, stride) in enumerate(zip(maps, strides, strict=True)):
        here = (level == place)[..., None]
        # Regions of other levels are points here, which cost next to nothing: how many there are is not known.
        regions = torch.cat([image.to(boxes.dtype), boxes * here], dim=-1).flatten(0, 1)
        pooled = roi_align(features.to(boxes.dtype), regions, cells, stride, samples=0, aligned=True)
        read.append(pooled * here.flatten()[:, None, None, None])
    return torch.stack(read).sum(dim=0)

"""FAM-3D: where a cell's box is read from, in space and across levels, is learned beside the boxes.

Source: Wang et al., Consistent-Teacher, CVPR 2023, arXiv:2209.01589, section "3-D Feature Alignment Module", as
released (Adamdad/ConsistentTeacher).
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import conv2d, relu

from ssodkit.ops.boxes import at_least_fp32
from ssodkit.ops.pyramid import mix_levels, sample_beside, with_neighbors


class Fam3d(nn.Module):
    """Shared by all levels. With `shifts_levels` False it is FAM-2D: boxes move within their level alone."""

    def __init__(self, in_channels: int, channels: int, shifts_levels: bool) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(in_channels, channels, 1)
        context = 3 * channels if shifts_levels else channels
        self.level_weights = nn.Conv2d(context, 4, 3, padding=1) if shifts_levels else None
        self.shifts = nn.Conv2d(context, 8, 3, padding=1)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.001 if parameter.dim() > 1 else 0.0)

    def forward(
        self,
        hidden: Sequence[Sequence[Float[Tensor, "batch _ _ _"]]],
        boxes: Sequence[Float[Tensor, "batch 4 _ _"]],
        strides: Sequence[int],
    ) -> list[Float[Tensor, "batch 4 _ _"]]:
        """Boxes read elsewhere; each coordinate (left, top, right, bottom) from a place of its own.

        The paper's offset (d0, d1, d2) of a coordinate is its two `shifts`, down and right, and its one level weight.
        `hidden` are, per level, the maps from which that is predicted, together `in_channels` wide. `boxes` are whole
        boxes in the frame of the image, in units of their level's stride, fp32 or finer.
        """
        context = [relu(self._reduce(layers)) for layers in hidden]
        if self.level_weights is not None:
            context = with_neighbors(context)
            weights = [at_least_fp32(self.level_weights(level)) for level in context]
            boxes = mix_levels(boxes, weights, strides)
        shifts = [at_least_fp32(self.shifts(level)) for level in context]
        return [sample_beside(level, shift) for level, shift in zip(boxes, shifts, strict=True)]

    def _reduce(self, layers: Sequence[Tensor]) -> Tensor:
        """`reduce` of the layers side by side, without laying them so: a copy of 180 MB for an image of 800 x 1333."""
        weights = self.reduce.weight.split([layer.shape[1] for layer in layers], dim=1)
        answer = conv2d(layers[0], weights[0], self.reduce.bias)
        for layer, weight in zip(layers[1:], weights[1:], strict=True):
            answer = answer + conv2d(layer, weight)
        return answer

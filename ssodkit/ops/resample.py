"""Resampling: pixels moved by one affine homography per image, antialiased where it reduces.

Two steps, both batched over images of different sizes. Where a view is smaller than its source, along x or y, the
source is first reduced by that ratio with Pillow's antialiased triangle filter. Then every pixel of the view is read
bilinearly, once. A plain resize lands on the pixels of the reduced source, so that it is Pillow's resize to within one
gray level; enlarging is Pillow's as well.

Sizes and homographies are those of `ops.homography`, held on the CPU: what depends on them is decided there, without
waiting for the device of the pixels.
"""

import math

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor
from torch.nn.functional import embedding_bag, grid_sample

from ssodkit.ops.homography import scaling

REDUCES = 1.0001
"""Ratios up to this are no reduction: rotations reach 1 plus a rounding error."""
FRACTIONS = 256
"""Sampling positions are rounded to this part of a pixel; see `_to_grid`."""


def warp(
    pixels: UInt8[Tensor, "batch 3 height width"],
    sizes: Int64[Tensor, "batch 2"],
    homography: Float[Tensor, "batch 3 3"],
    canvas: tuple[int, int],
    nearest: Bool[Tensor, "batch"] | None = None,
) -> UInt8[Tensor, "batch 3 canvas_height canvas_width"]:
    """The images seen through their homographies, on a canvas of this height and width.

    Rows that are `nearest` (on the CPU; None: none is) read one pixel of the reduced source, not between four.
    What lies outside an image (see `covers`) repeats its border. A row does not depend on the other rows, bit for bit.
    Raises ValueError if a homography is not affine or cannot be inverted.
    """
    inverse = invert(homography)
    if not len(pixels):
        return pixels.new_zeros((0, 3, *canvas))
    reduced = _reduced_sizes(sizes, inverse)
    ratio = reduced.double() / sizes
    inverse = scaling(ratio[:, 1], ratio[:, 0]) @ inverse
    images = _reduce(pixels, sizes, reduced)
    x, y = _source_points(inverse, canvas, pixels.device)
    if nearest is not None and bool(nearest.any()):
        one = nearest.to(pixels.device, non_blocking=True)[:, None, None]
        x, y = (torch.where(one, points.floor() + 0.5, points) for points in (x, y))
    limit = reduced.to(pixels.device, torch.float32, non_blocking=True)[:, :, None, None] - 1.0
    height, width = images.shape[-2:]
    grid = torch.stack([_to_grid(x, limit[:, 1], width), _to_grid(y, limit[:, 0], height)], dim=-1)
    sampled = grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return sampled.add_(0.5).to(torch.uint8)


def warp_within(
    images: UInt8[Tensor, "batch 3 height width"],
    crops: Int64[Tensor, "batch 4"],
    inverse: Float[Tensor, "batch 3 3"],
    nearest: Bool[Tensor, "batch"],
    fill: int,
) -> UInt8[Tensor, "batch 3 height width"]:
    """The images, the pixels within each one's crop moved, and all others as they were.

    A crop is left, top, right, bottom in whole pixels and may be empty; `inverse` leads from a point of the view to
    the one it shows. What would be read from outside the crop is `fill`. All tensors are on one device.
    """
    height, width = images.shape[2:]
    x, y = _source_points(inverse, (height, width), images.device)
    one = nearest[:, None, None]
    x, y = (torch.where(one, points.floor() + 0.5, points) for points in (x, y))
    left, top, right, bottom = crops[:, :, None, None].unbind(dim=1)
    column, row = torch.arange(width, device=images.device), torch.arange(height, device=images.device)[:, None]
    is_inside = (column >= left) & (column < right) & (row >= top) & (row < bottom)
    is_covered = (x >= left) & (x <= right) & (y >= top) & (y <= bottom)
    first_x, second_x, share_x = _neighbors(x, left, right)
    first_y, second_y, share_y = _neighbors(y, top, bottom)
    table = images.flatten(2)

    def read(y: Tensor, x: Tensor) -> Tensor:
        place = (y * width + x).flatten(1)[:, None].expand(-1, 3, -1)
        return table.gather(2, place).view_as(images).float()

    above = torch.lerp(read(first_y, first_x), read(first_y, second_x), share_x)
    below = torch.lerp(read(second_y, first_x), read(second_y, second_x), share_x)
    seen = torch.lerp(above, below, share_y).add_(0.5).to(torch.uint8)
    seen = seen.masked_fill(~is_covered[:, None], fill)
    return torch.where(is_inside[:, None], seen, images)


def covers(
    sizes: Int64[Tensor, "batch 2"],
    homography: Float[Tensor, "batch 3 3"],
    canvas: tuple[int, int],
    device: torch.device,
) -> Bool[Tensor, "batch 1 canvas_height canvas_width"]:
    """True where the center of a canvas pixel lies on the image, given the sizes of the sources; on `device`."""
    x, y = _source_points(invert(homography), canvas, device)
    height, width = sizes.to(device, torch.float32, non_blocking=True)[:, :, None, None].unbind(dim=1)
    return ((x >= 0.0) & (x <= width) & (y >= 0.0) & (y <= height))[:, None]


def invert(homography: Float[Tensor, "batch 3 3"]) -> Float[Tensor, "batch 3 3"]:
    """The inverses, in float64. Raises ValueError if a homography is not affine or cannot be inverted."""
    if not (homography[:, 2] == homography.new_tensor([0.0, 0.0, 1.0])).all():
        raise ValueError(f"pixels are moved by affine matrices, with a last row of 0, 0, 1; got {homography.tolist()}")
    inverse, failed = torch.linalg.inv_ex(homography.double())
    if failed.any():
        raise ValueError(f"a homography cannot be inverted: {homography.tolist()}")
    return inverse


def _reduced_sizes(sizes: Int64[Tensor, "batch 2"], inverse: Float[Tensor, "batch 3 3"]) -> Int64[Tensor, "batch 2"]:
    """Sizes of the sources on which a step of one pixel in the view is at most about one pixel long, along x and y."""
    step = inverse[:, :2, :2].norm(dim=-1).flip(-1)  # source pixels per view pixel: along y, along x
    reduced = (sizes / step).round().clamp(min=1.0).to(torch.int64)
    return torch.where(step > REDUCES, torch.minimum(reduced, sizes), sizes)


def _reduce(
    pixels: UInt8[Tensor, "batch 3 height width"], sizes: Int64[Tensor, "batch 2"], reduced: Int64[Tensor, "batch 2"]
) -> Float[Tensor, "batch 3 new_height new_width"]:
    """Images of the reduced sizes, 0 to 255, on a canvas whose sides are powers of two; see `_to_grid`."""
    height, width = (1 << (side - 1).bit_length() for side in reduced.amax(dim=0).tolist())
    images = torch.zeros(len(pixels), 3, height, width, device=pixels.device)
    images[:, :, : pixels.shape[2], : pixels.shape[3]] = pixels[:, :, :height, :width]
    rows = (reduced != sizes).any(dim=1).nonzero()[:, 0]
    if len(rows):
        there = rows.to(pixels.device, non_blocking=True)
        small = pixels[there].float()
        small = _reduce_along_y(small, sizes[rows, 0], reduced[rows, 0]).transpose(2, 3)
        small = _reduce_along_y(small.contiguous(), sizes[rows, 1], reduced[rows, 1]).transpose(2, 3)
        images[there, :, : small.shape[2], : small.shape[3]] = small
    return images


def _reduce_along_y(
    images: Float[Tensor, "batch 3 height width"], lengths: Int64[Tensor, "batch"], goals: Int64[Tensor, "batch"]
) -> Float[Tensor, "batch 3 new_height width"]:
    """Lines 0 .. length of each image reduced to lines 0 .. goal by the triangle filter, as in Pillow's resize.

    A line of the answer is a weighted sum of neighboring lines, which is what `embedding_bag` computes from a table.
    """
    batch, channels, height, width = images.shape
    line, weight = (part.to(images.device, non_blocking=True) for part in _taps(lengths, goals))
    first = torch.arange(batch * channels, device=images.device).view(batch, channels, 1, 1) * height
    lines = (first + line[:, None]).flatten(0, 2)
    weights = weight[:, None].expand(-1, channels, -1, -1).flatten(0, 2)
    table = images.reshape(-1, width)
    answer = embedding_bag(lines, table, per_sample_weights=weights, mode="sum")
    return answer.view(batch, channels, -1, width)


def _taps(
    lengths: Int64[Tensor, "batch"], goals: Int64[Tensor, "batch"]
) -> tuple[Int64[Tensor, "batch goal taps"], Float[Tensor, "batch goal taps"]]:
    """Which lines each line of the answer is made of, and their weights, which sum to 1."""
    scale = (lengths.double() / goals)[:, None, None]
    center = (torch.arange(int(goals.max()), dtype=torch.float64)[:, None] + 0.5) * scale
    taps = torch.arange(2 * math.ceil(float(scale.max())) + 1)
    line = (center - scale + 0.5).floor() + taps
    weight = (1.0 - (line + 0.5 - center).abs() / scale).clamp(min=0.0)
    last = lengths[:, None, None] - 1
    weight = weight.where((line >= 0) & (line <= last), 0.0)
    weight = weight / weight.sum(dim=-1, keepdim=True).clamp(min=1e-9)  # lines beyond a row's own goal weigh nothing
    return torch.minimum(line.clamp(min=0), last).to(torch.int64), weight.float()


def _source_points(
    inverse: Float[Tensor, "batch 3 3"], canvas: tuple[int, int], device: torch.device
) -> tuple[Float[Tensor, "batch height width"], Float[Tensor, "batch height width"]]:
    """The points x and y of the sources that the centers of the canvas pixels show."""
    # Term by term, not as a matrix product: a product's order of summation may depend on the batch.
    entry = inverse.to(device, torch.float32, non_blocking=True)[:, :, :, None, None]
    x = torch.arange(canvas[1], device=device) + 0.5
    y = torch.arange(canvas[0], device=device)[:, None] + 0.5
    return (
        (entry[:, 0, 0] * x + entry[:, 0, 2]) + entry[:, 0, 1] * y,
        (entry[:, 1, 0] * x + entry[:, 1, 2]) + entry[:, 1, 1] * y,
    )


def _neighbors(points: Float[Tensor, "batch h w"], first: Tensor, end: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The two pixels from `first` to before `end` that a point lies between, and the second one's share, (batch 1 h w).

    Shares are whole 256ths, as in `_to_grid`. Where there is no pixel, the answer is pixel 0 twice.
    """
    last = torch.maximum(end - 1, first)
    index = torch.maximum(torch.minimum(points - 0.5, last), first).mul_(FRACTIONS).round_().div_(FRACTIONS)
    index = torch.where(end > first, index, 0.0)
    low = index.floor()
    return low.long(), torch.minimum(low + 1, last).long().clamp_(min=0), (index - low)[:, None]


def _to_grid(points: Float[Tensor, "batch h w"], limit: Tensor, length: int) -> Float[Tensor, "batch h w"]:
    """Points as `grid_sample` wants them, moved onto the image: its canvas, `length` pixels long, is -1 to 1.

    Changes `points`. `limit` is the index of an image's last pixel. Positions are rounded to 1/256 of a pixel and
    `length` is a power of two, so that positions, weights and sums of gray levels are exact in fp32: pixels do not
    depend on the padding of their batch, nor on the device.
    """
    index = torch.minimum(points.sub_(0.5), limit).clamp_(min=0.0)
    return index.mul_(FRACTIONS).round_().mul_(2.0 / (FRACTIONS * length)).add_(1.0 / length - 1.0)

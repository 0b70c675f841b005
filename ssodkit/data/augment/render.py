"""Pixels of a drawn view: one resampling, then the pixel operations in the recipe's order.

An operation drawn before the geometry sees pixels of the image only, and the fill is laid after it; drawn after, it
sees the fill as well. Rows that did not draw an operation are not computed; which they are is known on the host.
"""

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from ssodkit.data.augment.base import BoxConfig, DrawnView, PaintConfig, Parameters, PixelConfig, Step
from ssodkit.ops.color import paint
from ssodkit.ops.resample import covers, invert, warp


def render(
    drawn: DrawnView,
    pixels: UInt8[Tensor, "batch 3 height width"],
    sizes: Int64[Tensor, "batch 2"],
    pad_to: int,
    fill: int,
) -> UInt8[Tensor, "batch 3 new_height new_width"]:
    """The view of original images of these sizes; black padding right and below to multiples of `pad_to`.

    `fill` is the gray value of what lies outside the original image. `sizes` is on the CPU, `pixels` on any device.
    """
    height, width = (-(-side // pad_to) * pad_to for side in _largest(drawn.sizes))
    canvas = _Canvas(_resample(drawn, pixels, sizes, (height, width)), drawn, sizes, fill)
    for step in drawn.steps:
        if step.transform is None:
            canvas.lay_fill(step.rows)
        else:
            canvas.change(step)
    return canvas.finished()


class _Canvas:
    """The pixels of a view while its operations are applied."""

    def __init__(self, pixels: Tensor, drawn: DrawnView, sizes: Int64[Tensor, "batch 2"], fill: int) -> None:
        self.pixels = pixels
        self.drawn, self.sizes = drawn, drawn.sizes
        self.fill = fill
        self.is_bare = shows_outside(sizes, drawn.homography, drawn.sizes)
        self.inside = _inside(drawn.sizes, pixels)
        """Where the view is, without its padding."""
        self.masks = self.inside
        """Where operations see something: the image, and the fill once it is laid."""
        bare = self.is_bare.nonzero()[:, 0]
        if len(bare):
            height, width = pixels.shape[2:]
            covered = covers(sizes[bare], drawn.homography[bare], (height, width), pixels.device)
            there = bare.to(pixels.device, non_blocking=True)
            self.masks = self.inside.index_copy(0, there, self.inside[there] & covered)

    def lay_fill(self, rows: Int64[Tensor, "rows"]) -> None:
        """Paint what lies outside the original image, in those of these rows that show any of it."""
        rows = rows[self.is_bare[rows]]
        if len(rows):
            there = rows.to(self.pixels.device, non_blocking=True)
            outside = self.inside[there] & ~self.masks[there]
            self.pixels.index_copy_(0, there, paint(self.pixels[there], outside, self.fill))
            self.masks.index_copy_(0, there, self.inside[there])

    def change(self, step: Step) -> None:
        """Apply an operation to its rows."""
        assert step.transform is not None
        device = self.pixels.device
        parameters = tuple(part.to(device, non_blocking=True) for part in self._draw(step.transform, step))
        if len(step.rows) == len(self.pixels):
            self.pixels = step.transform.apply(self.pixels, self.masks, parameters)
        else:
            there = step.rows.to(device, non_blocking=True)
            changed = step.transform.apply(self.pixels[there], self.masks[there], parameters)
            self.pixels.index_copy_(0, there, changed)

    def _draw(self, transform: PaintConfig, step: Step) -> Parameters:
        if isinstance(transform, BoxConfig):
            targets = self.drawn.moved_targets(step.rows)
            return transform.draw(step.keys, targets.boxes, targets.valid)
        assert isinstance(transform, PixelConfig)
        return transform.draw(step.keys, self.sizes[step.rows])

    def finished(self) -> UInt8[Tensor, "batch 3 height width"]:
        """The pixels, the padding black."""
        canvas = torch.tensor(self.pixels.shape[2:])
        return self.pixels if bool((self.sizes == canvas).all()) else self.pixels * self.inside


def shows_outside(
    sizes: Int64[Tensor, "batch 2"], homography: Float[Tensor, "batch 3 3"], new_sizes: Int64[Tensor, "batch 2"]
) -> Bool[Tensor, "batch"]:
    """True for views of `new_sizes` with a pixel whose center lies outside the original image of `sizes`.

    A view is convex, and so is its original: the centers of the four corner pixels decide.
    """
    bottom, right = (new_sizes - 0.5).double().unbind(dim=1)
    near = torch.full_like(right, 0.5)
    x = torch.stack([near, right, near, right], dim=1)
    y = torch.stack([near, near, bottom, bottom], dim=1)
    corners = torch.stack([x, y, torch.ones_like(x)], dim=1)  # batch 3 corners
    points = (invert(homography) @ corners)[:, :2]
    return ((points < -1e-6) | (points > sizes.flip(1)[:, :, None] + 1e-6)).flatten(1).any(dim=1)


def _resample(
    drawn: DrawnView, pixels: Tensor, sizes: Int64[Tensor, "batch 2"], canvas: tuple[int, int]
) -> UInt8[Tensor, "batch 3 new_height new_width"]:
    """The original pixels where the homography leads them. Rows that stay where they are are copied."""
    moved = (drawn.homography != torch.eye(3, dtype=torch.float64)).flatten(1).any(dim=1)
    moved |= (drawn.sizes != sizes).any(dim=1)
    rows = moved.nonzero()[:, 0]
    if len(rows) == len(pixels):
        return warp(pixels, sizes, drawn.homography, canvas, drawn.nearest)
    view = pixels.new_zeros((len(pixels), 3, *canvas))
    view[:, :, : pixels.shape[2], : pixels.shape[3]] = pixels[:, :, : canvas[0], : canvas[1]]
    if len(rows):
        there = rows.to(pixels.device, non_blocking=True)
        seen = warp(pixels[there], sizes[rows], drawn.homography[rows], canvas, drawn.nearest[rows])
        view.index_copy_(0, there, seen)
    return view


def _largest(sizes: Int64[Tensor, "batch 2"]) -> list[int]:
    return sizes.amax(dim=0).tolist() if len(sizes) else [0, 0]


def _inside(sizes: Int64[Tensor, "batch 2"], pixels: Tensor) -> Bool[Tensor, "batch 1 height width"]:
    height, width = sizes.to(pixels.device, non_blocking=True)[:, :, None].unbind(dim=1)
    rows = torch.arange(pixels.shape[2], device=pixels.device) < height
    columns = torch.arange(pixels.shape[3], device=pixels.device) < width
    return (rows[:, :, None] & columns[:, None, :])[:, None]

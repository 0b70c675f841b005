"""Homographies: one 3x3 matrix per view carries pixels of the original image into the view's frame.

Coordinates are continuous: the pixel in column 0 covers [0, 1), and a flip maps x to width - x. The same matrix moves
boxes and pixels, so that they agree whatever point it turns about.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def warp_boxes(
    boxes: Float[Tensor, "batch boxes 4"], homography: Float[Tensor, "batch 3 3"]
) -> Float[Tensor, "batch boxes 4"]:
    """Carry xyxy boxes from one view's pixel frame into another's.

    The answer is the smallest upright box around the four warped corners, so a rotation
    makes boxes grow. Nothing is clipped; see `clip_boxes`.
    """
    left, top, right, bottom = boxes.unbind(dim=-1)
    corner_x = torch.stack([left, right, right, left], dim=-1)
    corner_y = torch.stack([top, top, bottom, bottom], dim=-1)
    corners = torch.stack([corner_x, corner_y, torch.ones_like(corner_x)], dim=-1)
    # Not a matrix product: under autocast it would be rounded to bf16, which is pixels off.
    warped = (corners[..., None, :] * homography[:, None, None]).sum(dim=-1)
    points = warped[..., :2] / warped[..., 2:]
    return torch.cat([points.amin(dim=-2), points.amax(dim=-2)], dim=-1)


def moved_sides(homography: Float[Tensor, "batch 3 3"]) -> Int64[Tensor, "batch 4"]:
    """Which side of a box becomes the left, top, right and bottom one: 0 left, 1 top, 2 right, 3 bottom.

    The one whose middle is carried farthest there, seen from the box's own and by the affine part: 2, 1, 0, 3 for a
    mirror.
    """
    across, along = homography[:, 0, :2], homography[:, 1, :2]
    x, y = torch.cat([-across, across], dim=-1), torch.cat([-along, along], dim=-1)  # of the four middles
    return torch.stack([x.argmin(dim=-1), y.argmin(dim=-1), x.argmax(dim=-1), y.argmax(dim=-1)], dim=-1)


def relate(source: Float[Tensor, "batch 3 3"], goal: Float[Tensor, "batch 3 3"]) -> Float[Tensor, "batch 3 3"]:
    """The homography from one view's frame to another's, given both from the original image.

    Source: Xu et al., Soft Teacher, arXiv:2106.09018: M = T_goal T_source^-1. Inverted in float64.
    """
    inverse, _ = torch.linalg.inv_ex(source.double())  # `inv` would ask the host whether it can be inverted
    return (goal.double() @ inverse).to(source.dtype)


def translation(right: Float[Tensor, "batch"], down: Float[Tensor, "batch"]) -> Float[Tensor, "batch 3 3"]:
    """Shift by pixels to the right and down."""
    matrix = _identity(right)
    matrix[:, 0, 2] = right
    matrix[:, 1, 2] = down
    return matrix


def scaling(across: Float[Tensor, "batch"], along: Float[Tensor, "batch"]) -> Float[Tensor, "batch 3 3"]:
    """Multiply x by `across` and y by `along`."""
    matrix = _identity(across)
    matrix[:, 0, 0] = across
    matrix[:, 1, 1] = along
    return matrix


def reflection(length: Float[Tensor, "batch"], axis: int = 0) -> Float[Tensor, "batch 3 3"]:
    """Mirror images of `length` pixels: x becomes length - x, or y along axis 1."""
    matrix = _identity(length)
    matrix[:, axis, axis] = -1.0
    matrix[:, axis, 2] = length
    return matrix


def rotation(degrees: Float[Tensor, "batch"]) -> Float[Tensor, "batch 3 3"]:
    """Turn about the origin; positive angles are clockwise as one sees them, because y points down."""
    cosine, sine = torch.cos(degrees.deg2rad()), torch.sin(degrees.deg2rad())
    matrix = _identity(degrees)
    matrix[:, 0, 0] = cosine
    matrix[:, 0, 1] = -sine
    matrix[:, 1, 0] = sine
    matrix[:, 1, 1] = cosine
    return matrix


def shearing(slope_x: Float[Tensor, "batch"], slope_y: Float[Tensor, "batch"]) -> Float[Tensor, "batch 3 3"]:
    """First x gains `slope_x` times y, then y gains `slope_y` times the new x; the origin stays."""
    matrix = _identity(slope_x)
    matrix[:, 0, 1] = slope_x
    matrix[:, 1, 0] = slope_y
    matrix[:, 1, 1] = 1.0 + slope_x * slope_y
    return matrix


def about(
    matrix: Float[Tensor, "batch 3 3"], x: Float[Tensor, "batch"], y: Float[Tensor, "batch"]
) -> Float[Tensor, "batch 3 3"]:
    """The same motion with the point (x, y) in the origin's place."""
    return translation(x, y) @ matrix @ translation(-x, -y)


def _identity(like: Float[Tensor, "batch"]) -> Float[Tensor, "batch 3 3"]:
    return torch.eye(3, dtype=like.dtype, device=like.device).repeat(len(like), 1, 1)

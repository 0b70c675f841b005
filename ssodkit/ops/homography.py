"""Homographies: one 3x3 matrix per view carries pixels of the original image into the view's frame.

Coordinates are continuous: the pixel in column 0 covers [0, 1), and a flip maps x to width - x.
"""

import torch
from jaxtyping import Float
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
    warped = corners @ homography[:, None].transpose(-1, -2)
    points = warped[..., :2] / warped[..., 2:]
    return torch.cat([points.amin(dim=-2), points.amax(dim=-2)], dim=-1)


def relate(source: Float[Tensor, "batch 3 3"], goal: Float[Tensor, "batch 3 3"]) -> Float[Tensor, "batch 3 3"]:
    """The homography from one view's frame to another's, given both from the original image.

    Source: Xu et al., Soft Teacher, arXiv:2106.09018: M = T_goal T_source^-1. Inverted in float64.
    """
    return (goal.double() @ torch.linalg.inv(source.double())).to(source.dtype)

"""From a view to the feature pyramid that a detector reads."""

import torch
from jaxtyping import Float
from torch import Tensor

from ssodkit.detectors.backbones.base import Backbone
from ssodkit.nn.fpn import Fpn
from ssodkit.nn.projection import Projection
from ssodkit.structures.predictions import Features
from ssodkit.structures.views import View


def make_pyramid(view: View, backbone: Backbone, neck: Fpn | Projection) -> Features:
    """The pyramid of the normalized images; the padding is 0 after normalizing."""
    images = _normalize(view, backbone.mean, backbone.std)
    return Features(neck(backbone(images)), neck.strides, view.without_pixels())


def _normalize(view: View, mean: Tensor, std: Tensor) -> Float[Tensor, "batch 3 height width"]:
    """(pixels / 255 - mean) / std in the dtype of the mean, and 0 in the padding."""
    images = view.pixels.to(mean.dtype) / 255.0
    images = (images - mean[:, None, None]) / std[:, None, None]
    height, width = images.shape[-2:]
    row = torch.arange(height, device=images.device) < view.sizes[:, :1]
    column = torch.arange(width, device=images.device) < view.sizes[:, 1:]
    if view.margin is not None:
        column &= torch.arange(width, device=images.device) >= view.margin[:, None]
    return images * (row[:, None, :, None] & column[:, None, None, :])

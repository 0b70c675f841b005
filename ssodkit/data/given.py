"""Pictures that a program hands over: files, Pillow's images, arrays and tensors, all to RGB pixels.

Pillow's images are turned upright and converted as files are (see `data.decode`). Arrays and tensors say nothing of
rotation or palette: they are taken as they are, and whatever is not plain RGB is refused rather than guessed.
"""

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, Union

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssodkit.data.decode import decode_image, decode_opened
from ssodkit.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

Picture: TypeAlias = Union[str, Path, "Image", NDArray[np.uint8], Tensor]
"""A path; an image of Pillow's; an array (height, width, 3), uint8, RGB; or a tensor (3, height, width), RGB, uint8 or
floating-point in [0, 1]."""


def read_picture(picture: Picture, name: str = "the picture") -> NDArray[np.uint8]:
    """RGB pixels (height, width, 3), upright. Raises DataError, which calls what is no file by this name."""
    from PIL.Image import Image

    if isinstance(picture, str | Path):
        return decode_image(Path(picture))
    if isinstance(picture, Image):
        pixels = decode_opened(picture, name)
    elif isinstance(picture, Tensor):
        pixels = _from_tensor(picture, name)
    elif isinstance(picture, np.ndarray):
        pixels = _from_array(picture, name)
    else:
        raise DataError(
            f"{name} is of the type {type(picture).__name__}. Give a path, an image of Pillow's, an array (height, "
            "width, 3) of uint8, a tensor (3, height, width), or a list of these."
        )
    if not pixels.size:
        raise DataError(f"{name} is {pixels.shape[0]} x {pixels.shape[1]} pixels: there is nothing to be seen in it.")
    return pixels


def _from_array(array: NDArray[np.generic], name: str) -> NDArray[np.uint8]:
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8:
        raise DataError(
            f"{name} is an array {array.shape} of {array.dtype}. Arrays are (height, width, 3) of uint8 in the order "
            "red, green, blue; of several, give a list."
        )
    return np.array(array, np.uint8, order="C")  # a copy: the caller's may change, or be such as torch does not take


def _from_tensor(tensor: Tensor, name: str) -> NDArray[np.uint8]:
    is_whole = tensor.dtype == torch.uint8
    if tensor.dim() != 3 or tensor.shape[0] != 3 or not (is_whole or tensor.is_floating_point()):
        raise DataError(
            f"{name} is a tensor {tuple(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}. Tensors are "
            "(3, height, width) in the order red, green, blue, of uint8 or of floats from 0 to 1; of several, give a "
            "list."
        )
    tensor = tensor.detach().cpu()
    if not is_whole:
        if not bool(((tensor >= 0.0) & (tensor <= 1.0)).all()):  # also where it is NaN
            raise DataError(f"{name} is a tensor of floats outside 0 to 1. Divide it by 255, or give it as uint8.")
        tensor = (tensor.double() * 255.0).round().byte()
    pixels: NDArray[np.uint8] = tensor.permute(1, 2, 0).contiguous().numpy()
    return pixels

"""Pictures that a program hands over."""

import numpy as np
import pytest
import torch
from PIL import Image

from ssodkit.data.decode import decode_image
from ssodkit.data.given import read_picture
from ssodkit.errors import DataError

PIXELS = np.random.RandomState(0).randint(0, 256, (6, 9, 3)).astype(np.uint8)


@pytest.mark.parametrize(
    "picture",
    [
        PIXELS,
        PIXELS[:, ::-1][:, ::-1],
        Image.fromarray(PIXELS),
        torch.from_numpy(PIXELS).permute(2, 0, 1),
        torch.from_numpy(PIXELS).permute(2, 0, 1) / 255,
        (torch.from_numpy(PIXELS).permute(2, 0, 1) / 255).double().requires_grad_(),
    ],
)
def test_read_picture__every_kind_gives_the_same_pixels(picture):
    assert (read_picture(picture) == PIXELS).all()


def test_read_picture__an_image_of_pillows_is_read_by_the_rules_of_files(tmp_path):
    path, exif = tmp_path / "turned.jpg", Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PIXELS).save(path, exif=exif)
    gray = np.linspace(0, 65535, 12).reshape(3, 4).astype(np.uint16)
    Image.fromarray(gray).save(tmp_path / "deep.png")
    Image.fromarray(PIXELS).quantize(4).save(tmp_path / "palette.png", transparency=0)
    for name in ("turned.jpg", "deep.png", "palette.png"):
        with Image.open(tmp_path / name) as image:
            expected = decode_image(tmp_path / name)
            assert (read_picture(image) == expected).all()
            assert (read_picture(str(tmp_path / name)) == expected).all()
    assert read_picture(path).shape == (9, 6, 3)


@pytest.mark.parametrize(
    ("picture", "complaint"),
    [
        (PIXELS.astype(np.float32), r"the picture is an array \(6, 9, 3\) of float32. Arrays are \(height, width, 3\)"),
        (PIXELS[None], r"an array \(1, 6, 9, 3\).*of several, give a list"),
        (PIXELS[..., 0], r"an array \(6, 9\)"),
        (torch.zeros(6, 9, 3), r"a tensor \(6, 9, 3\) of float32. Tensors are \(3, height, width\)"),
        (torch.zeros(3, 6, 9, dtype=torch.int64), "of int64"),
        (torch.full((3, 6, 9), 2.0), "floats outside 0 to 1. Divide it by 255"),
        (torch.full((3, 6, 9), torch.nan), "floats outside 0 to 1"),
        (PIXELS[:0], "0 x 9 pixels: there is nothing"),
        (Image.new("F", (3, 3)), "the picture has floating-point pixels"),
        (7, "of the type int. Give a path"),
        ("nowhere.jpg", "the image nowhere.jpg does not exist"),
    ],
)
def test_read_picture__what_is_no_picture_is_refused_in_a_sentence(picture, complaint):
    with pytest.raises(DataError, match=complaint):
        read_picture(picture)

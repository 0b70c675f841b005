import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from ssodkit.data.decode import check_image, decode_image, read_size
from ssodkit.errors import DataError


def ramp(height: int = 40, width: int = 60) -> np.ndarray:
    """RGB pixels in which every place differs."""
    y, x = np.mgrid[:height, :width]
    return np.stack([y * 6, x * 4, (x + y) * 2], axis=-1).astype(np.uint8)


def saved(folder: Path, image: Image.Image, name: str = "image.png", **options: object) -> Path:
    image.save(folder / name, **options)
    return folder / name


def exif_of(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def test_decode_image__rgb_is_what_pillow_reads(tmp_path):
    path = saved(tmp_path, Image.fromarray(ramp()), "image.jpg")
    pixels = decode_image(path, (40, 60))
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, np.asarray(Image.open(path)))
    assert pixels.flags.writeable


def test_decode_image__gray_becomes_three_equal_channels(tmp_path):
    gray = ramp()[..., 0]
    pixels = decode_image(saved(tmp_path, Image.fromarray(gray)))
    assert np.array_equal(pixels, np.repeat(gray[..., None], 3, axis=-1))


def test_decode_image__one_bit_is_black_and_white(tmp_path):
    pixels = decode_image(saved(tmp_path, Image.fromarray(ramp()[..., 0] > 100)))
    assert np.array_equal(pixels[..., 1], (ramp()[..., 0] > 100) * np.uint8(255))


def test_decode_image__a_palette_becomes_its_colors(tmp_path):
    image = Image.fromarray(ramp()).quantize(16)
    path = saved(tmp_path, image, transparency=bytes(range(0, 160, 10)))
    assert np.array_equal(decode_image(path), np.asarray(image.convert("RGB")))


def test_decode_image__alpha_is_dropped_and_hidden_colors_stay(tmp_path):
    alpha = (ramp()[..., 1] % 3 * 100).astype(np.uint8)
    path = saved(tmp_path, Image.fromarray(np.dstack([ramp(), alpha])))
    assert np.array_equal(decode_image(path), ramp())
    path = saved(tmp_path, Image.fromarray(np.dstack([ramp()[..., 0], alpha])))
    assert np.array_equal(decode_image(path)[..., 2], ramp()[..., 0])


def test_decode_image__cmyk_is_converted_by_pillow(tmp_path):
    path = saved(tmp_path, Image.fromarray(ramp()).convert("CMYK"), "image.jpg", quality=100)
    pixels = decode_image(path)
    assert np.array_equal(pixels, np.asarray(Image.open(path).convert("RGB")))
    assert np.abs(pixels.astype(int) - ramp()).mean() < 4


def test_decode_image__16_bit_gray_is_divided_by_257(tmp_path):
    values = np.array([[0, 128, 129, 257, 40000, 65535]], dtype=np.uint16)
    pixels = decode_image(saved(tmp_path, Image.fromarray(values)))
    assert pixels[..., 0].tolist() == [[0, 0, 1, 1, 156, 255]]
    assert pixels.shape == (1, 6, 3)


def test_decode_image__16_bit_color_is_read_by_its_high_byte(tmp_path):
    path = tmp_path / "image.png"
    rows = b"\x00" + struct.pack(">6H", 0x12FF, 0x3400, 0x56AB, 0xFFFF, 0x0000, 0x8001)
    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
            file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))
    assert decode_image(path, (1, 2)).tolist() == [[[0x12, 0x34, 0x56], [0xFF, 0x00, 0x80]]]


def test_decode_image__32_bit_beyond_16_is_refused(tmp_path):
    path = saved(tmp_path, Image.fromarray(np.array([[70000]], dtype=np.int32)), "image.tif")
    with pytest.raises(DataError, match=r"image\.tif has pixels outside 0 to 65535"):
        decode_image(path)


def test_decode_image__floating_point_is_refused(tmp_path):
    path = saved(tmp_path, Image.fromarray(np.zeros((2, 2), dtype=np.float32)), "image.tif")
    for look in (decode_image, check_image):
        with pytest.raises(DataError, match=r"image\.tif has floating-point pixels"):
            look(path)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_decode_image__without_annotated_size_images_stand_upright(tmp_path, orientation):
    path = saved(tmp_path, Image.fromarray(ramp()), exif=exif_of(orientation))
    upright = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    assert np.array_equal(decode_image(path), upright)
    assert read_size(path) == upright.shape[:2]


def test_read_size__a_rotation_behind_the_pixels_of_a_png_counts(tmp_path):
    path = saved(tmp_path, Image.fromarray(ramp()), exif=exif_of(6))
    content = path.read_bytes()
    at = content.index(b"eXIf") - 4
    chunk = content[at : at + 12 + int.from_bytes(content[at : at + 4], "big")]
    without = content.replace(chunk, b"")
    path.write_bytes(without[:-12] + chunk + without[-12:])
    assert read_size(path) == np.asarray(ImageOps.exif_transpose(Image.open(path))).shape[:2] == (60, 40)
    path.write_bytes(without)
    assert read_size(path) == (40, 60)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_decode_image__the_annotated_size_decides_about_a_rotation(tmp_path, orientation):
    path = saved(tmp_path, Image.fromarray(ramp()), exif=exif_of(orientation))
    assert np.array_equal(decode_image(path, (40, 60)), ramp())
    assert np.array_equal(decode_image(path, (60, 40)), np.asarray(ImageOps.exif_transpose(Image.open(path))))


@pytest.mark.parametrize("orientation", [1, 3])
def test_decode_image__another_size_names_both(tmp_path, orientation):
    path = saved(tmp_path, Image.fromarray(ramp()), exif=exif_of(orientation))
    for look in (decode_image, check_image):
        with pytest.raises(DataError, match=r"image\.png is 40 x 60 .* says 60 x 40\. Was it turned"):
            look(path, (60, 40))
        with pytest.raises(DataError, match=r"image\.png is 40 x 60 .* says 40 x 61\. Is it another version"):
            look(path, (40, 61))


def test_check_image__accepts_what_can_be_decoded(tmp_path):
    path = saved(tmp_path, Image.fromarray(ramp()), exif=exif_of(6))
    for size in (None, (40, 60), (60, 40)):
        check_image(path, size)


def test_decode_image__a_truncated_file_is_refused_and_left_alone(tmp_path):
    path = saved(tmp_path, Image.fromarray(ramp()), "image.jpg")
    half = path.read_bytes()[:800]
    path.write_bytes(half)
    with pytest.raises(DataError, match=r"image\.jpg cannot be read: .*truncated"):
        decode_image(path, (40, 60))
    assert path.read_bytes() == half


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_decode_image__what_is_no_image_is_refused(tmp_path, content):
    (tmp_path / "image.png").write_bytes(content)
    with pytest.raises(DataError, match=r"image\.png cannot be read"):
        decode_image(tmp_path / "image.png")
    for look in (read_size, check_image):
        with pytest.raises(DataError, match=r"image\.png cannot be read"):
            look(tmp_path / "image.png")


def test_decode_image__a_missing_file_is_said(tmp_path):
    with pytest.raises(DataError, match=r"image .*absent\.png does not exist"):
        decode_image(tmp_path / "absent.png")


def test_decode_image__an_image_beyond_the_limit_is_refused_by_its_header(tmp_path):
    path = saved(tmp_path, Image.new("1", (10_000, 9_000)))
    with pytest.raises(DataError, match="more than the 89,478,485 pixels"):
        decode_image(path)


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "webp", "tif"])
def test_check_image__of_a_file_that_was_cut_off_finds_what_decoding_would_find(tmp_path, suffix):
    def refusal(look: Callable[[Path], object]) -> str:
        try:
            look(path)
        except DataError as error:
            return str(error)
        return ""

    path = saved(tmp_path, Image.fromarray(ramp()), f"image.{suffix}")
    assert check_image(path) == 40 * 60
    whole = path.read_bytes()
    for length in [*range(0, len(whole) - 30, 97), *range(len(whole) - 14, len(whole))]:
        path.write_bytes(whole[:length])
        assert bool(refusal(check_image)) == bool(refusal(decode_image))
    path.write_bytes(whole[: len(whole) // 2])
    assert f"image.{suffix} cannot be read" in refusal(check_image)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_check_image__bytes_behind_the_end_are_no_harm(tmp_path, suffix):
    path = saved(tmp_path, Image.fromarray(ramp()), f"image.{suffix}")
    path.write_bytes(path.read_bytes() + b"written by a camera" * 10)
    check_image(path)


@pytest.mark.parametrize("kind", ["EPS", "GIF", "PPM", "PDF"])
def test_decode_image__other_kinds_are_refused_whatever_they_are_called(tmp_path, kind):
    path = saved(tmp_path, Image.fromarray(ramp()), "image.jpg", format=kind)
    for look in (decode_image, check_image, read_size):
        with pytest.raises(DataError, match=r"image\.jpg cannot be read: .* of none of the kinds JPEG, PNG, BMP, WEBP"):
            look(path)


def test_decode_image__a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "image.png")
    for look in (decode_image, check_image, read_size):
        with pytest.raises(DataError, match=r"image\.png is no file, but a folder, a pipe or a device"):
            look(tmp_path / "image.png")

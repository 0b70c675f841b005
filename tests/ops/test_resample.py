"""Warped pixels, against Pillow's resize and against arithmetic on ramps."""

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

from ssodkit.ops.homography import about, reflection, rotation, scaling, translation
from ssodkit.ops.resample import covers, warp

SIZES = [(427, 640), (400, 600), (300, 450), (213, 320), (100, 150), (40, 61), (854, 1280), (500, 333), (200, 900)]


def numbers(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def ramps(height: int, width: int) -> torch.Tensor:
    """Red is the column, green the row, blue nothing: 1 x 3 x height x width."""
    x, y = torch.arange(width).expand(height, width), torch.arange(height)[:, None].expand(height, width)
    return torch.stack([x, y, torch.zeros_like(x)])[None].to(torch.uint8)


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    return np.array(load_sample_image("china.jpg"))


def to_batch(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)[None]


@pytest.mark.parametrize("size", SIZES)
def test_warp__a_resize_is_pillows_to_one_gray_level(photograph, size):
    """Pillow rounds after each of its two passes, which is where the one level comes from."""
    height, width = photograph.shape[:2]
    matrix = scaling(numbers(size[1] / width), numbers(size[0] / height))
    seen = warp(to_batch(photograph), torch.tensor([[height, width]]), matrix, size)[0].permute(1, 2, 0)
    wanted = np.asarray(Image.fromarray(photograph).resize(size[::-1], Image.Resampling.BILINEAR)).astype(int)
    difference = np.abs(seen.numpy() - wanted)
    assert difference.max() <= 1
    assert difference.mean() < 0.2


def test_warp__a_reduced_and_flipped_image_is_the_flipped_reduced_image(photograph):
    height, width = photograph.shape[:2]
    size = torch.tensor([[height, width]])
    small = scaling(numbers(200 / width), numbers(133 / height))
    plain = warp(to_batch(photograph), size, small, (133, 200))
    flipped = warp(to_batch(photograph), size, reflection(numbers(200.0)) @ small, (133, 200))
    assert torch.equal(flipped, plain.flip(-1))


def test_warp__a_flip_and_a_whole_shift_move_pixels_and_change_none():
    pixels = ramps(40, 70)
    size = torch.tensor([[40, 70]])
    assert torch.equal(warp(pixels, size, reflection(numbers(70.0)), (40, 70)), pixels.flip(-1))
    shifted = warp(pixels, size, translation(numbers(5.0), numbers(-3.0)), (40, 70))
    assert torch.equal(shifted[:, :, :37, 5:], pixels[:, :, 3:, :-5])


def test_warp__a_quarter_turn_moves_pixels_and_changes_none():
    pixels = ramps(40, 70)
    matrix = translation(numbers(40.0), numbers(0.0)) @ rotation(numbers(90.0))
    assert torch.equal(warp(pixels, torch.tensor([[40, 70]]), matrix, (70, 40)), pixels.rot90(-1, (2, 3)))


def test_warp__half_a_pixel_is_the_mean_of_two():
    pixels = torch.tensor([10, 20, 40, 80], dtype=torch.uint8).expand(1, 3, 2, 4)
    seen = warp(pixels, torch.tensor([[2, 4]]), translation(numbers(0.5), numbers(0.0)), (2, 4))
    assert seen[0, 0, 0].tolist() == [10, 15, 30, 60]


def test_warp__each_pixel_shows_the_point_that_the_matrix_says():
    height, width, canvas = 100, 180, (130, 200)
    matrix = translation(numbers(4.3), numbers(-7.1)) @ about(rotation(numbers(21.0)), numbers(90.0), numbers(50.0))
    size = torch.tensor([[height, width]])
    seen = warp(ramps(height, width), size, matrix, canvas)[0].float()
    inside = covers(size, matrix, canvas, seen.device)[0, 0]
    y, x = torch.meshgrid(torch.arange(canvas[0]) + 0.5, torch.arange(canvas[1]) + 0.5, indexing="ij")
    source = torch.linalg.inv(matrix)[0] @ torch.stack([x, y, torch.ones_like(x)]).double().flatten(1)
    source_x, source_y = source[0].view(canvas), source[1].view(canvas)
    between = inside & (source_x > 1) & (source_x < width - 1) & (source_y > 1) & (source_y < height - 1)
    assert between.sum() > 10000
    assert (seen[0] - (source_x - 0.5))[between].abs().max() < 0.51  # half a gray level, and 1/512 of a pixel
    assert (seen[1] - (source_y - 0.5))[between].abs().max() < 0.51


def test_warp__a_row_does_not_depend_on_its_batch():
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (3, 3, 90, 200), generator=generator).to(torch.uint8)
    sizes = torch.tensor([[90, 70], [61, 83], [50, 200]])
    matrix = about(rotation(numbers(0.0, 12.0, 0.0)), numbers(0, 30, 0), numbers(0, 30, 0))
    matrix = scaling(numbers(0.63, 0.8, 1.31), numbers(0.63, 0.41, 1.1)) @ matrix
    together = warp(pixels, sizes, matrix, (99, 263))
    for row in range(3):
        height, width = sizes[row].tolist()
        alone = warp(pixels[row : row + 1, :, :height, :width], sizes[row : row + 1], matrix[row : row + 1], (60, 80))
        assert torch.equal(alone[0], together[row, :, :60, :80])


def test_warp__padding_of_the_source_never_shows():
    pixels = torch.full((1, 3, 64, 64), 200, dtype=torch.uint8)
    pixels[:, :, 40:], pixels[:, :, :, 50:] = 0, 0
    matrix = scaling(numbers(0.7), numbers(1.3)) @ rotation(numbers(10.0))
    assert (warp(pixels, torch.tensor([[40, 50]]), matrix, (64, 64)) == 200).all()


def test_warp__no_image_is_fine():
    nothing = torch.zeros(0, 3, 10, 10, dtype=torch.uint8)
    assert warp(nothing, torch.zeros(0, 2, dtype=torch.int64), torch.zeros(0, 3, 3).double(), (5, 6)).shape == (
        0,
        3,
        5,
        6,
    )


def test_warp__one_pixel_may_remain():
    pixels = torch.full((1, 3, 50, 300), 77, dtype=torch.uint8)
    seen = warp(pixels, torch.tensor([[50, 300]]), scaling(numbers(1 / 300), numbers(1 / 300)), (1, 1))
    assert seen.flatten().tolist() == [77, 77, 77]


def test_warp__matrices_that_cannot_move_pixels_are_refused():
    pixels, size = torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.tensor([[8, 8]])
    flat = scaling(numbers(0.0), numbers(1.0))
    with pytest.raises(ValueError, match="cannot be inverted"):
        warp(pixels, size, flat, (8, 8))
    tilted = torch.eye(3, dtype=torch.float64)[None].clone()
    tilted[0, 2, 0] = 0.01
    with pytest.raises(ValueError, match="affine"):
        warp(pixels, size, tilted, (8, 8))


def test_covers__is_true_where_the_image_is():
    covered = covers(torch.tensor([[4, 6]]), translation(numbers(2.0), numbers(-1.0)), (5, 9), torch.device("cpu"))
    wanted = torch.zeros(5, 9, dtype=torch.bool)
    wanted[:3, 2:8] = True
    assert torch.equal(covered[0, 0], wanted)

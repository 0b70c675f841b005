"""Color operations, against Pillow bit for bit, and against SciPy where Pillow has no exact definition."""

import colorsys

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from scipy.ndimage import gaussian_filter
from sklearn.datasets import load_sample_image
from torchvision.transforms.v2.functional import adjust_hue

from ssodkit.ops import color

FACTORS = [0.28, 0.46, 0.64, 0.82, 1.0, 1.18, 1.36, 1.54, 1.72]
MASKED = {
    "auto_contrast": lambda images, masks: color.auto_contrast(images, masks),
    "equalize": lambda images, masks: color.equalize(images, masks),
    "contrast": lambda images, masks: color.contrast(images, masks, torch.full((len(images),), 1.5)),
    "sharpen": lambda images, masks: color.sharpen(images, masks, torch.full((len(images),), 1.7)),
    "blur": lambda images, masks: color.blur(images, masks, torch.full((len(images),), 1.2), radius=4),
}
PILLOWS = {"auto_contrast": ImageOps.autocontrast, "equalize": ImageOps.equalize}


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    """Photographs, noise, dull noise, one flat gray, few values, one pixel that differs: all 90 x 131."""
    random = np.random.RandomState(0)
    flat = np.full((90, 131, 3), 77, dtype=np.uint8)
    dot = flat.copy()
    dot[4, 5] = 200
    return [
        np.array(load_sample_image("china.jpg")[100:190, 200:331]),
        np.array(load_sample_image("flower.jpg")[100:190, 200:331]),
        random.randint(0, 256, flat.shape).astype(np.uint8),
        random.randint(100, 140, flat.shape).astype(np.uint8),
        flat,
        (random.randint(0, 2, flat.shape) * 255).astype(np.uint8),
        dot,
    ]


@pytest.fixture(scope="module")
def images(pictures) -> torch.Tensor:
    return torch.stack([torch.from_numpy(picture).permute(2, 0, 1) for picture in pictures])


@pytest.fixture(scope="module")
def masks(images) -> torch.Tensor:
    return torch.ones(len(images), 1, *images.shape[2:], dtype=torch.bool)


def assert_pillow(seen: torch.Tensor, pictures: list[np.ndarray], pillow) -> None:
    for row, picture in enumerate(pictures):
        wanted = np.asarray(pillow(Image.fromarray(picture)))
        np.testing.assert_array_equal(seen[row].permute(1, 2, 0).numpy(), wanted, err_msg=f"picture {row}")


def pixels(*rgb: tuple[int, int, int]) -> torch.Tensor:
    return torch.tensor(rgb, dtype=torch.uint8).T[None, :, None]


def listed(image: torch.Tensor) -> list[list[int]]:
    return image[0, :, 0].T.tolist()


@pytest.mark.parametrize("factor", FACTORS)
def test_enhancements__are_pillows_bit_for_bit(images, masks, pictures, factor):
    factors = torch.full((len(images),), factor, dtype=torch.float64)
    assert_pillow(color.saturate(images, factors), pictures, lambda i: ImageEnhance.Color(i).enhance(factor))
    assert_pillow(color.contrast(images, masks, factors), pictures, lambda i: ImageEnhance.Contrast(i).enhance(factor))
    assert_pillow(color.brighten(images, factors), pictures, lambda i: ImageEnhance.Brightness(i).enhance(factor))
    assert_pillow(color.sharpen(images, masks, factors), pictures, lambda i: ImageEnhance.Sharpness(i).enhance(factor))


@pytest.mark.parametrize("threshold", [25, 128, 230])
def test_solarize__is_pillows(images, pictures, threshold):
    thresholds = torch.full((len(images),), threshold, dtype=torch.uint8)
    assert_pillow(color.solarize(images, thresholds), pictures, lambda i: ImageOps.solarize(i, threshold))


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
def test_posterize__is_pillows(images, pictures, bits):
    kept = torch.full((len(images),), bits)
    assert_pillow(color.posterize(images, kept), pictures, lambda i: ImageOps.posterize(i, bits))


@pytest.mark.parametrize("name", list(PILLOWS))
def test_statistics__are_pillows_bit_for_bit(images, masks, pictures, name):
    assert_pillow(MASKED[name](images, masks), pictures, PILLOWS[name])


def test_invert_and_gray__are_pillows(images, pictures):
    assert_pillow(color.invert(images), pictures, ImageOps.invert)
    assert_pillow(color.luma(images).expand_as(images), pictures, lambda i: i.convert("L").convert("RGB"))


def test_published_numbers__stac_on_two_pixels():
    two = pixels((10, 100, 200), (60, 128, 250))
    solarized = color.solarize(two, torch.tensor([128], dtype=torch.uint8))
    assert listed(solarized) == [[10, 100, 55], [60, 127, 5]]
    assert listed(color.posterize(two, torch.tensor([2]))) == [[0, 64, 192], [0, 128, 192]]
    assert listed(color.posterize(two, torch.tensor([1]))) == [[0, 0, 128], [0, 128, 128]]
    assert listed(color.brighten(two, torch.tensor([0.64]))) == [[6, 64, 128], [38, 81, 160]]


@pytest.mark.parametrize("name", list(MASKED))
def test_masked__what_lies_outside_the_mask_does_not_matter(images, pictures, name):
    """A padded image gives what the image alone gives."""
    height, width = 70, 100
    masks = torch.zeros(len(images), 1, *images.shape[2:], dtype=torch.bool)
    masks[:, :, :height, :width] = True
    padded = MASKED[name](images, masks)[:, :, :height, :width]
    alone = images[:, :, :height, :width]
    assert torch.equal(padded, MASKED[name](alone, torch.ones_like(masks[:, :, :height, :width])))


@pytest.mark.parametrize("name", list(MASKED))
def test_masked__an_empty_mask_and_an_empty_batch_are_fine(images, name):
    nothing = torch.zeros(len(images), 1, *images.shape[2:], dtype=torch.bool)
    assert MASKED[name](images, nothing).shape == images.shape
    assert MASKED[name](images[:0], nothing[:0]).shape == images[:0].shape


@pytest.mark.parametrize("name", list(MASKED))
def test_masked__images_of_one_and_two_pixels_are_fine(name):
    for side in (1, 2):
        tiny = torch.full((1, 3, side, side), 90, dtype=torch.uint8)
        assert torch.equal(MASKED[name](tiny, torch.ones(1, 1, side, side, dtype=torch.bool)), tiny)


def test_blur__is_a_gaussian_away_from_the_border(images, masks):
    sigma, radius = 1.3, 4
    seen = color.blur(images, masks, torch.full((len(images),), sigma), radius)[..., 5:-5, 5:-5]
    wanted = gaussian_filter(images.numpy().astype(float), (0, 0, sigma, sigma), radius=(0, 0, radius, radius))
    assert np.abs(seen.numpy() - wanted[..., 5:-5, 5:-5]).max() <= 0.501


def test_blur__a_flat_image_stays_up_to_its_border(masks):
    flat = torch.full((len(masks), 3, *masks.shape[2:]), 201, dtype=torch.uint8)
    assert torch.equal(color.blur(flat, masks, torch.full((len(masks),), 2.0), radius=6), flat)


def test_scale_channels__each_channel_has_its_own_factor():
    seen = color.scale_channels(pixels((100, 100, 200)), torch.tensor([[0.5, 1.0, 1.5]]))
    assert listed(seen) == [[50, 100, 255]]


def test_permute_channels__answers_with_the_named_channels():
    assert listed(color.permute_channels(pixels((1, 2, 3)), torch.tensor([[2, 0, 1]]))) == [[3, 1, 2]]


def test_add__rounds_and_stays_within_bytes():
    levels = torch.tensor([-20.0, 0.4, 0.6]).view(1, 3, 1, 1)
    assert listed(color.add(pixels((10, 100, 255)), levels)) == [[0, 100, 255]]


def test_paint__changes_what_is_named_and_nothing_else():
    where = torch.tensor([True, False]).view(1, 1, 1, 2)
    assert listed(color.paint(pixels((1, 2, 3), (4, 5, 6)), where, 125)) == [[125, 125, 125], [4, 5, 6]]


def test_factors__each_image_has_its_own(images, masks):
    factors = torch.tensor(FACTORS[: len(images)])
    for change in (color.brighten, color.saturate):
        together = change(images, factors)
        assert torch.equal(together[2:3], change(images[2:3], factors[2:3]))
    together = color.contrast(images, masks, factors)
    assert torch.equal(together[2:3], color.contrast(images[2:3], masks[2:3], factors[2:3]))


@pytest.mark.parametrize("turn", [-0.5, -0.1, 0.0, 0.03, 0.1, 0.37])
def test_turn_hue__agrees_with_torchvision(images, turn):
    wanted = adjust_hue(images.float() / 255.0, turn) * 255.0
    seen = color.turn_hue(images, torch.full((len(images),), turn))
    assert (seen.float() - wanted).abs().max() <= 0.5 + 1e-3


@pytest.mark.parametrize(
    "factors", [(1.0, 1.0, 1.0), (1.015, 1.7, 1.4), (0.985, 0.3, 0.6), (1.3, 0.0, 1.0), (0.0, 1.2, 0.0)]
)
def test_scale_hsv__agrees_with_colorsys(images, factors):
    some = images[:, :, ::5, ::7]
    seen = color.scale_hsv(some, torch.tensor([factors]).expand(len(some), 3))
    for rgb, found in zip(some.transpose(0, 1).flatten(1).T.tolist(), seen.transpose(0, 1).flatten(1).T, strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*(level / 255.0 for level in rgb))
        scaled = hue * factors[0] % 1.0, min(saturation * factors[1], 1.0), min(value * factors[2], 1.0)
        wanted = [255.0 * level for level in colorsys.hsv_to_rgb(*scaled)]
        assert found.tolist() == pytest.approx(wanted, abs=0.5 + 1e-3)


def test_scale_hsv__each_image_has_its_own_factors_and_gray_has_no_hue():
    colors = pixels((200, 100, 100), (77, 77, 77), (0, 0, 0), (240, 240, 0)).repeat(2, 1, 1, 1)
    seen = color.scale_hsv(colors, torch.tensor([[1.0, 0.5, 1.0], [2.0, 1.0, 1.5]]))
    assert seen[0, :, 0].T.tolist() == [[200, 150, 150], [77, 77, 77], [0, 0, 0], [240, 240, 120]]
    assert seen[1, :, 0].T.tolist() == [[255, 128, 128], [116, 116, 116], [0, 0, 0], [0, 255, 0]]


def test_turn_hue__colors_go_round_and_gray_stays():
    colors = pixels((200, 0, 0), (0, 200, 0), (77, 77, 77), (0, 0, 0))
    third = color.turn_hue(colors, torch.tensor([1 / 3]))
    assert third[0, :, 0].T.tolist() == [[0, 200, 0], [0, 0, 200], [77, 77, 77], [0, 0, 0]]

"""Color operations on batches of uint8 RGB images, each with its own strength per image.

Where Pillow defines an operation (ImageOps, ImageEnhance), the answer is Pillow's on the CPU bit for bit, rounding
included; its arithmetic is described, not copied. `masks` mark the pixels that belong to an image, so that statistics
and neighborhoods know nothing of padding or fill; what an operation writes outside of them means nothing.
"""

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

Images = UInt8[Tensor, "batch 3 height width"]
Masks = Bool[Tensor, "batch 1 height width"]


def invert(images: Images) -> Images:
    """Gray levels v become 255 - v."""
    return 255 - images


def solarize(images: Images, thresholds: UInt8[Tensor, "batch"]) -> Images:
    """Values at or above the threshold are inverted."""
    return torch.where(images < thresholds[:, None, None, None], images, 255 - images)


def posterize(images: Images, bits: Int64[Tensor, "batch"]) -> Images:
    """Only the highest `bits` (0 to 8) of each value are kept."""
    kept = (256 - 2 ** (8 - bits)).to(torch.uint8)
    return images & kept[:, None, None, None]


def brighten(images: Images, factors: Float[Tensor, "batch"]) -> Images:
    """Values times a factor: 0 is black, 1 changes nothing."""
    return scale_channels(images, factors[:, None].expand(-1, 3))


def scale_channels(images: Images, factors: Float[Tensor, "batch 3"]) -> Images:
    """Each channel times its own factor, rounded towards black."""
    return _to_bytes(images * factors[:, :, None, None].float())


def saturate(images: Images, factors: Float[Tensor, "batch"]) -> Images:
    """Mixed with the gray image: factor 0 is gray, 1 changes nothing, more is more colorful."""
    return _blend(luma(images).float(), images, factors)


def turn_hue(images: Images, turns: Float[Tensor, "batch"]) -> Images:
    """Hues turned around the color circle: 0 changes nothing, 0.5 gives the opposite color, and so does -0.5.

    In HSV, value and saturation stay; rounded to whole gray levels.
    """
    hue, value, chroma = _hsv(images)
    return _from_hsv(hue + 6.0 * turns.float()[:, None, None], value, chroma)


def scale_hsv(images: Images, factors: Float[Tensor, "batch 3"]) -> Images:
    """Hue, saturation and value times a factor each: hues go round the circle from red, the others end at their most.

    Rounded to whole gray levels.
    """
    hue, value, chroma = _hsv(images)
    of_hue, of_saturation, of_value = factors.float()[:, :, None, None].unbind(dim=1)
    saturation = (chroma / value.clamp(min=1.0) * of_saturation).clamp(max=1.0)
    value = (value * of_value).clamp(max=255.0)
    return _from_hsv(hue % 6.0 * of_hue, value, value * saturation)


def contrast(images: Images, masks: Masks, factors: Float[Tensor, "batch"]) -> Images:
    """Mixed with the mean gray level of the masked pixels, a whole number."""
    pixels = masks.flatten(1).sum(dim=1).clamp(min=1)
    total = (luma(images) * masks).flatten(1).sum(dim=1)
    mean = (total.double() / pixels + 0.5).floor().float()
    return _blend(mean[:, None, None, None], images, factors)


def sharpen(images: Images, masks: Masks, factors: Float[Tensor, "batch"]) -> Images:
    """Mixed with a smoothed image: factor 0 is smooth, 1 changes nothing, more is sharper.

    The kernel is (1 1 1; 1 5 1; 1 1 1) / 13; pixels with a neighbor outside the mask are not smoothed.
    """
    values = images.to(torch.int16)
    weighted = _sum_of_neighbors(values) + 4 * values
    # Never nearer than 0.03 to a whole number and a half, as 13 is odd: fp32 rounds like exact arithmetic.
    smooth = (weighted.float() / 13.0 + 0.5).floor_()
    inner = _sum_of_neighbors(masks.to(torch.uint8)) == 9
    return _blend(torch.where(inner, smooth, images.float()), images, factors)


def luma(images: Images) -> UInt8[Tensor, "batch 1 height width"]:
    """Gray levels of ITU-R 601: (19595 R + 38470 G + 7471 B) / 65536, rounded."""
    red, green, blue = images.to(torch.int32).unbind(dim=1)
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).to(torch.uint8)[:, None]


def auto_contrast(images: Images, masks: Masks) -> Images:
    """Each channel stretched so that its darkest masked value is 0 and its brightest 255; a flat channel stays."""
    low = images.masked_fill(~masks, 255).flatten(2).amin(dim=2)
    high = images.masked_fill(~masks, 0).flatten(2).amax(dim=2)
    stretch = 255.0 / (high.double() - low)  # float64, as in Pillow: truncated values depend on its last bit
    offset = -low.double() * stretch
    levels = torch.arange(256, device=images.device)
    tables = levels * stretch[:, :, None] + offset[:, :, None]
    tables = torch.where((high > low)[:, :, None], tables.clamp(0.0, 255.0), levels.double())
    return lookup(images, tables.to(torch.uint8))


def equalize(images: Images, masks: Masks) -> Images:
    """Each channel mapped so that its masked values are spread evenly; a channel of one value stays."""
    counts = _histograms(images, masks)
    levels = torch.arange(256, device=images.device)
    last = torch.where(counts > 0, levels, -1).amax(dim=2, keepdim=True).clamp(min=0)
    step = (counts.sum(dim=2, keepdim=True) - counts.gather(2, last)) // 255
    below = counts.cumsum(dim=2) - counts
    tables = ((step // 2 + below) // step.clamp(min=1)).clamp(max=255)
    return lookup(images, torch.where(step > 0, tables, levels).to(torch.uint8))


def lookup(images: Images, tables: UInt8[Tensor, "batch 3 256"]) -> Images:
    """Each channel's values replaced by its table's."""
    return tables.gather(2, images.flatten(2).long()).view_as(images)


def permute_channels(images: Images, orders: Int64[Tensor, "batch 3"]) -> Images:
    """Channel c of the answer is channel `orders[:, c]`."""
    return images[torch.arange(len(images), device=images.device)[:, None], orders]


def blur(images: Images, masks: Masks, sigmas: Float[Tensor, "batch"], radius: int) -> Images:
    """Gaussian blur, `sigmas` in pixels, cut off at `radius`; masked pixels are averages of masked pixels alone."""
    offsets = torch.arange(-radius, radius + 1, device=images.device)
    kernels = torch.exp(-0.5 * (offsets / sigmas.float()[:, None]) ** 2)
    weight = masks.float()
    for dim in (2, 3):
        weight = _convolve(weight, kernels, dim)
    values = images * masks.float()
    for dim in (2, 3):
        values = _convolve(values, kernels, dim)
    return _to_bytes(values.div_(weight.clamp_(min=1e-6)).add_(0.5))


def add(images: Images, levels: Float[Tensor, "batch 3 height width"]) -> Images:
    """Gray levels added to each value, rounded."""
    return _to_bytes((images + levels).add_(0.5))


def paint(images: Images, where: Masks, value: int) -> Images:
    """One gray value wherever `where` is true."""
    return images.masked_fill(where, value)


def fill_in(images: Images, where: Masks, levels: UInt8[Tensor, "batch 3 height width"]) -> Images:
    """Other gray levels wherever `where` is true."""
    return torch.where(where, levels, images)


def _blend(degenerate: Tensor, images: Images, factors: Float[Tensor, "batch"]) -> Images:
    """What lies on the line from `degenerate` (factor 0) to the image (factor 1), rounded towards black."""
    difference = images - degenerate
    return _to_bytes(difference.mul_(factors.float()[:, None, None, None]).add_(degenerate))


def _hsv(images: Images) -> tuple[Tensor, Tensor, Tensor]:
    """Hues, -1 to 5 on a circle of six with red at 0, values and chromas in gray levels, each (batch height width)."""
    values = images.float()
    red, green, blue = values.unbind(dim=1)
    value, chroma = values.amax(dim=1), values.amax(dim=1) - values.amin(dim=1)
    divisor = chroma.clamp(min=1.0)  # gray has no hue, and its chroma of 0 hides whatever is computed for it
    of_blue = (red - green) / divisor + 4.0
    of_green = (blue - red) / divisor + 2.0
    of_red = (green - blue) / divisor
    return torch.where(value == red, of_red, torch.where(value == green, of_green, of_blue)), value, chroma


def _from_hsv(hue: Tensor, value: Tensor, chroma: Tensor) -> Images:
    """The images of such numbers, hues anywhere, rounded to whole gray levels."""
    # A channel falls from the value by the chroma as far as its own color lies from the hue on the circle of six.
    distance = torch.stack([(hue + start) % 6.0 for start in (5.0, 3.0, 1.0)], dim=1)
    fall = torch.minimum(distance, 4.0 - distance).clamp(0.0, 1.0)
    return _to_bytes(value[:, None] - chroma[:, None] * fall + 0.5)


def _to_bytes(values: Float[Tensor, "batch 3 height width"]) -> Images:
    """Rounded towards black; changes `values`."""
    return values.clamp_(0.0, 255.0).to(torch.uint8)


def _sum_of_neighbors(values: Tensor) -> Tensor:
    """Sums over the 3 x 3 values around each, zeros beyond the edge."""
    rows = values.clone()
    rows[:, :, 1:] += values[:, :, :-1]
    rows[:, :, :-1] += values[:, :, 1:]
    total = rows.clone()
    total[..., 1:] += rows[..., :-1]
    total[..., :-1] += rows[..., 1:]
    return total


def _histograms(images: Images, masks: Masks) -> Int64[Tensor, "batch 3 256"]:
    counts = torch.zeros(len(images), 3, 256, dtype=torch.int64, device=images.device)
    counted = masks.expand_as(images).flatten(2).long()
    return counts.scatter_add_(2, images.flatten(2).long(), counted)


def _convolve(values: Tensor, kernels: Float[Tensor, "batch taps"], dim: int) -> Tensor:
    """Weighted sums along `dim`, zeros beyond the ends; tap by tap, so that a row does not depend on the others."""
    radius = kernels.shape[1] // 2
    length = values.shape[dim]
    answer = torch.zeros_like(values)
    for tap, weight in enumerate(kernels.unbind(dim=1)):
        offset = tap - radius
        span = length - abs(offset)
        if span > 0:
            part = values.narrow(dim, max(offset, 0), span) * weight[:, None, None, None]
            answer.narrow(dim, max(-offset, 0), span).add_(part)
    return answer

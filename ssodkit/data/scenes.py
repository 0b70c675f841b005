"""Drawing one scene of the embedded data: handwritten digits on a crop of a photograph, with their boxes.

Everything is plain NumPy arithmetic on draws of the legacy generator, whose streams are frozen, so that a seed
gives the same scenes with every NumPy. What is drawn, where and how large is decided before the photograph is
looked at: boxes and labels do not depend on how a library decodes JPEG.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

Floats = NDArray[np.float64]

GLYPH_CELLS = 8
EDGE = (0.1, 0.9)
"""Ink below the first is paper, above the second is stroke; between them, the mask is soft."""
ON = 0.3
"""Where the mask is above this, a pixel belongs to the digit's box."""
MOST_OVERLAP = 0.05
"""IoU that two boxes may have."""
LEAST_CONTRAST = 100
"""Gray levels between a digit's luma and the mean luma of what it covers."""
LUMA = (299, 587, 114)
"""Weights of red, green and blue, in thousandths."""


@dataclass(frozen=True)
class Level:
    """How hard the scenes are."""

    glyph: tuple[float, float]
    """Longer side of a glyph, as a share of the image's side."""
    digits: tuple[int, int]
    """Per image, both included."""
    distractors: int
    """Per image, at most."""
    opacity: tuple[float, float]


LEVELS = {
    "easy": Level(glyph=(0.2, 0.45), digits=(1, 4), distractors=2, opacity=(0.75, 1.0)),
    "hard": Level(glyph=(0.14, 0.36), digits=(2, 6), distractors=3, opacity=(0.65, 1.0)),
}


@dataclass(frozen=True)
class Material:
    """What one part of the data is drawn from; train and val share no glyph and no row of a photograph."""

    glyphs: Floats
    """(n, 40, 40): ink from about 0 to 1, finely sampled."""
    coarse: Floats
    """(n, 8, 8): the same glyphs as they were written."""
    labels: NDArray[np.int64]
    """The digit that each glyph is."""
    photographs: tuple[Floats, ...]
    """Summed-area tables (height + 1, width + 1, 3) of the part's rows."""


@dataclass(frozen=True)
class Scene:
    """One image and its labels."""

    pixels: NDArray[np.uint8]
    boxes: NDArray[np.int64]
    """(k, 4): xyxy, tight around each digit's mask."""
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class _Stroke:
    """A mask (height, width) with its place in the image, and the box around what it shows."""

    mask: Floats
    left: int
    top: int
    box: tuple[int, int, int, int]
    label: int
    """-1 for a distractor."""


def make_material(
    glyphs: Floats, labels: NDArray[np.int64], photographs: list[NDArray[np.uint8]], part: Literal["train", "val"]
) -> Material:
    """One part of 8 x 8 glyphs with ink 0 to 1, and of photographs (height, width, 3).

    Train takes 75 % of the glyphs and the upper 62 % of the rows; val takes the rest, less 16 rows between them.
    """
    order = RandomState(0).permutation(len(glyphs))
    first_val = len(glyphs) * 3 // 4
    chosen = order[:first_val] if part == "train" else order[first_val:]
    rows = [
        image[: _train_rows(image)] if part == "train" else image[_train_rows(image) + 16 :] for image in photographs
    ]
    return Material(
        glyphs=_finer(glyphs[chosen]),
        coarse=glyphs[chosen],
        labels=labels[chosen],
        photographs=tuple(_summed_area(image) for image in rows),
    )


def draw_scene(material: Material, level: Level, side: int, random: RandomState) -> Scene:
    """One square image of `side` pixels. What it shows depends on the state of `random` alone."""
    strokes = _draw_layout(material, level, side, random)
    pixels = _draw_background(material, side, random)
    for stroke in strokes:
        _paint(pixels, stroke, level, random)
    pixels += random.standard_normal(pixels.shape) * random.uniform(1.0, 6.0)
    digits = [stroke for stroke in strokes if stroke.label >= 0]
    return Scene(
        pixels=np.rint(pixels).clip(0, 255).astype(np.uint8),
        boxes=np.array([stroke.box for stroke in digits], dtype=np.int64).reshape(-1, 4),
        labels=np.array([stroke.label for stroke in digits], dtype=np.int64),
    )


def _train_rows(photograph: NDArray[np.uint8]) -> int:
    return photograph.shape[0] * 62 // 100


def _finer(glyphs: Floats) -> Floats:
    """Glyphs at four samples per cell, with a margin of one empty cell.

    Two rounds of four-point subdivision along each axis, which keeps the samples and is exact in floats.
    Source: Dyn, Levin and Gregory, A 4-point interpolatory subdivision scheme, CAGD 1987, tension 1/16.
    """
    glyphs = np.pad(glyphs, ((0, 0), (1, 1), (1, 1)))
    for axis in (1, 2, 1, 2):
        known = np.moveaxis(glyphs, axis, -1)
        around = np.pad(known, ((0, 0), (0, 0), (1, 2)))
        between = (9 * (known + around[..., 2:-1]) - around[..., :-3] - around[..., 3:]) / 16
        glyphs = np.moveaxis(np.stack([known, between], axis=-1).reshape(*known.shape[:-1], -1), -1, axis)
    return glyphs


def _summed_area(image: NDArray[np.uint8]) -> Floats:
    """Entry (y, x) is the sum of all pixels above and left of that corner, per channel."""
    table = np.zeros((image.shape[0] + 1, image.shape[1] + 1, 3))
    table[1:, 1:] = image.astype(np.int64).cumsum(axis=0).cumsum(axis=1)
    return table


def _draw_layout(material: Material, level: Level, side: int, random: RandomState) -> list[_Stroke]:
    """Digits, then distractors, each at a free place; one that finds none in 30 tries is left out."""
    digits = random.randint(level.digits[0], level.digits[1] + 1)
    distractors = random.randint(0, level.distractors + 1)
    placed: list[_Stroke] = []
    for number in range(digits + distractors):
        chosen = random.randint(len(material.labels))
        if number < digits:
            ink, label = material.glyphs[chosen], int(material.labels[chosen])
        else:
            ink, label = _finer(_scrambled(material.coarse[chosen], random)[None])[0], -1
        mask = _draw_mask(ink, side * random.uniform(*level.glyph), random)
        inner = _tight_box(mask)
        for _ in range(30):
            left = random.randint(side - mask.shape[1] + 1)
            top = random.randint(side - mask.shape[0] + 1)
            box = (left + inner[0], top + inner[1], left + inner[2], top + inner[3])
            if all(_iou(box, other.box) <= MOST_OVERLAP for other in placed):
                placed.append(_Stroke(mask, left, top, box, label))
                break
    return placed


def _scrambled(glyph: Floats, random: RandomState) -> Floats:
    """Strokes that are no digit: the quadrants of a glyph, each turned, none in its own place."""
    half = GLYPH_CELLS // 2
    quadrants = [glyph[y : y + half, x : x + half] for y in (0, half) for x in (0, half)]
    turned = [np.rot90(quadrant, random.randint(1, 4)) for quadrant in quadrants]
    shift = random.randint(1, 4)
    a, b, c, d = (turned[(place + shift) % 4] for place in range(4))
    return np.concatenate([np.concatenate([a, b], axis=1), np.concatenate([c, d], axis=1)])


def _draw_mask(ink: Floats, length: float, random: RandomState) -> Floats:
    """A soft mask of a glyph: scaled so that its longer side is `length` pixels, turned, sheared, stretched."""
    rows, columns = np.flatnonzero(ink.max(axis=1) > EDGE[0]), np.flatnonzero(ink.max(axis=0) > EDGE[0])
    center_y, center_x = (rows[0] + rows[-1]) / 2, (columns[0] + columns[-1]) / 2
    scale = length / max(rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1)
    stretch = math.sqrt(random.uniform(0.8, 1.25))
    shear = random.uniform(-0.15, 0.15)
    angle = math.radians(random.uniform(-15.0, 15.0))
    # Pixels to glyph samples: turn back, shear back, shrink.
    cosine, sine = math.cos(angle), math.sin(angle)
    half = math.ceil(length)
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float64)
    upright_x, upright_y = cosine * x + sine * y, cosine * y - sine * x
    source_x = (upright_x - shear * upright_y) / (scale * stretch) + center_x
    source_y = upright_y * stretch / scale + center_y
    mask = ((_bilinear(ink, source_y, source_x) - EDGE[0]) / (EDGE[1] - EDGE[0])).clip(0.0, 1.0)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _bilinear(ink: Floats, y: Floats, x: Floats) -> Floats:
    """Ink between samples; none outside."""
    padded = np.pad(ink, 1)
    y, x = (y + 1).clip(0, padded.shape[0] - 1.001), (x + 1).clip(0, padded.shape[1] - 1.001)
    row, column = y.astype(np.int64), x.astype(np.int64)
    down, right = y - row, x - column
    upper = padded[row, column] * (1 - right) + padded[row, column + 1] * right
    lower = padded[row + 1, column] * (1 - right) + padded[row + 1, column + 1] * right
    return upper * (1 - down) + lower * down


def _tight_box(mask: Floats) -> tuple[int, int, int, int]:
    shown = mask > ON
    rows, columns = np.flatnonzero(shown.any(axis=1)), np.flatnonzero(shown.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _iou(first: tuple[int, ...], second: tuple[int, ...]) -> float:
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    shared = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return shared / (sum(areas) - shared)


def _draw_background(material: Material, side: int, random: RandomState) -> Floats:
    """A square crop of a photograph as (side, side, 3): resampled, perhaps mirrored, brightened and tinted."""
    table = material.photographs[random.randint(len(material.photographs))]
    height, width = table.shape[0] - 1, table.shape[1] - 1
    shorter = min(height, width)
    crop = int(min(max(side * random.uniform(0.6, 2.2), min(32, shorter)), shorter))
    top, left = random.randint(height - crop + 1), random.randint(width - crop + 1)
    pixels = _resample(table[top : top + crop + 1, left : left + crop + 1], side)
    if random.uniform() < 0.5:
        pixels = pixels[:, ::-1].copy()
    return pixels * (random.uniform(0.7, 1.25) * random.uniform(0.85, 1.15, size=3))


def _resample(table: Floats, side: int) -> Floats:
    """A square image at `side` pixels, from its summed-area table.

    Each answer is the mean over its own footprint, at least one pixel of the source wide: area averaging where
    it shrinks, bilinear where it grows.
    """
    crop = table.shape[0] - 1
    centers, reach = (np.arange(side) + 0.5) * (crop / side), max(crop / side, 1.0) / 2
    low, high = (centers - reach).clip(min=0.0), (centers + reach).clip(max=float(crop))
    bands = _between_rows(table, high) - _between_rows(table, low)
    columns = bands.swapaxes(0, 1)
    sums = (_between_rows(columns, high) - _between_rows(columns, low)).swapaxes(0, 1)
    return sums / ((high - low)[:, None, None] * (high - low)[None, :, None])


def _between_rows(table: Floats, at: Floats) -> Floats:
    """Rows of a table at fractional places, linearly between whole ones."""
    row = at.astype(np.int64).clip(max=len(table) - 2)
    share = (at - row)[:, None, None]
    return table[row] * (1 - share) + table[row + 1] * share


def _paint(pixels: Floats, stroke: _Stroke, level: Level, random: RandomState) -> None:
    """Blend a stroke into the image, in place, in a color that stands out from what it covers."""
    height, width = stroke.mask.shape
    region = pixels[stroke.top : stroke.top + height, stroke.left : stroke.left + width]
    behind = _luma(region.reshape(-1, 3).mean(axis=0))
    color = random.uniform(0, 255, size=3)
    for _ in range(20):
        if abs(_luma(color) - behind) >= LEAST_CONTRAST:
            break
        color = random.uniform(0, 255, size=3)
    else:
        color = np.full(3, 0.0 if behind > 127 else 255.0)
    share = (stroke.mask * random.uniform(*level.opacity))[..., None]
    region *= 1 - share
    region += share * color


def _luma(color: Floats) -> float:
    return float(sum(weight * value for weight, value in zip(LUMA, color, strict=True))) / 1000

"""Boxes drawn over images, and images side by side on a sheet."""

import colorsys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

SMALLEST, LARGEST = 288, 480
"""Longer sides of the images on a sheet, in pixels."""
GAP, HEAD = 8, 34
"""Pixels between the images of a sheet, and for its titles."""
GROUND = (232, 232, 232)


@dataclass(frozen=True)
class Boxes:
    """What is drawn over one image: boxes in its pixels, and a caption for each."""

    corners: NDArray[np.float32]
    """(n, 4), xyxy."""
    labels: NDArray[np.int64]
    """Classes, which choose the colors."""
    captions: Sequence[str]


@dataclass(frozen=True)
class Row:
    """One image of a sheet."""

    pixels: NDArray[np.uint8]
    """(height, width, 3), RGB."""
    columns: Mapping[str, Boxes]
    """Title -> what is drawn there; every row has the same titles."""


def draw_boxes(
    pixels: NDArray[np.uint8], boxes: Boxes, smallest: int = SMALLEST, largest: int | None = None
) -> Image.Image:
    """The image with its boxes, its longer side brought between `smallest` and `largest` pixels."""
    image = Image.fromarray(pixels)
    longer = max(image.size)
    scale = min(max(longer, smallest), largest or max(longer, smallest)) / longer
    if scale != 1.0:
        size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        image = image.resize(size, Image.Resampling.BICUBIC)
    pen = _Pen(image)
    places = [[round(side * scale) for side in corners] for corners in boxes.corners.tolist()]
    colors = [class_color(label) for label in boxes.labels.tolist()]
    drawn = list(zip(places, colors, boxes.captions, strict=True))[::-1]  # the first one on top
    for place, color, _ in drawn:
        pen.box(place, color)
    for place, color, caption in drawn:
        pen.caption(place, color, caption)
    return image


def make_sheet(rows: Sequence[Row]) -> Image.Image:
    """All images below each other, one column for each thing to see; titles stand above. There must be a row."""
    titles = list(rows[0].columns)
    tiles = [[draw_boxes(row.pixels, row.columns[title], SMALLEST, LARGEST) for title in titles] for row in rows]
    widths = [max(line[place].width for line in tiles) for place in range(len(titles))]
    heights = [line[0].height for line in tiles]
    sheet = Image.new("RGB", (sum(widths) + GAP * (len(titles) + 1), HEAD + sum(heights) + GAP * len(rows)), GROUND)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=18)
    left = GAP
    for place, title in enumerate(titles):
        pen.text((left + widths[place] / 2, HEAD / 2), title, fill="black", font=font, anchor="mm")
        top = HEAD
        for line, height in zip(tiles, heights, strict=True):
            sheet.paste(line[place], (left, top))
            top += height + GAP
        left += widths[place] + GAP
    return sheet


def class_color(label: int) -> tuple[int, int, int]:
    """A bright color for a class; hues a golden section apart, so that neighbors differ."""
    red, green, blue = colorsys.hsv_to_rgb((0.08 + label * 0.618034) % 1.0, 0.8, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


class _Pen:
    """Draws on an image, in lines and letters that suit its size."""

    def __init__(self, image: Image.Image) -> None:
        unit = max(1.0, max(image.size) / 800)
        self.size = image.size
        self.line, self.edge = round(2 * unit), max(1, round(unit))
        self.plate = round(17 * unit)
        self.font = ImageFont.load_default(size=round(14 * unit))
        self.draw = ImageDraw.Draw(image)

    def box(self, place: Sequence[int], color: tuple[int, int, int]) -> None:
        """An outline, with a dark edge that shows on any ground."""
        left, top, right, bottom = place
        outer = (left - self.edge, top - self.edge, right + self.edge, bottom + self.edge)
        self.draw.rectangle(outer, outline="black", width=self.line + 2 * self.edge)
        self.draw.rectangle((left, top, right, bottom), outline=color, width=self.line)

    def caption(self, place: Sequence[int], color: tuple[int, int, int], text: str) -> None:
        """On a plate above the box, or inside it at the image's upper border, and never beyond the right one."""
        width = round(self.draw.textlength(text, font=self.font)) + 3 * self.line
        left = max(0, min(place[0] - self.edge, self.size[0] - width))
        top = place[1] - self.plate if place[1] >= self.plate else place[1]
        self.draw.rectangle((left, top, left + width - 1, top + self.plate - 1), fill=color)
        luma = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]
        middle = (left + 1.5 * self.line, top + self.plate / 2)
        self.draw.text(middle, text, fill="black" if luma > 140 else "white", font=self.font, anchor="lm")

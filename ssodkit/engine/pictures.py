"""Boxes drawn over images, and images side by side on a sheet.

What is drawn stays legible where boxes are many: lines and letters follow the size of image and boxes, a caption is
left out where it would cover another one or is wider than its box, and classes are then told by a legend of colors.
"""

import colorsys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

SMALLEST, LARGEST = 288, 480
"""Longer sides of the images on a sheet, in pixels."""
CROWD, ROOMY = 8, 640
"""From so many boxes on an image is crowded; it is enlarged to this longer side, and captions are scores alone."""
GAP, HEAD = 8, 34
"""Pixels between the images of a sheet, and for its titles."""
GROUND = (232, 232, 232)

Color = tuple[int, int, int]
Place = tuple[float, float, float, float]


@dataclass(frozen=True)
class Boxes:
    """What is drawn over one image; the first box is on top."""

    corners: NDArray[np.float32]
    """(n, 4), xyxy in pixels of the image."""
    labels: NDArray[np.int64]
    """(n,): places in `names`, which choose the colors."""
    names: Sequence[str]
    """Of all classes."""
    scores: Sequence[float] | None = None

    @property
    def is_crowded(self) -> bool:
        """Whether there is no room for a name at each box."""
        return len(self.labels) >= CROWD

    def caption(self, row: int) -> str:
        """What is said of a box."""
        score = "" if self.scores is None else f"{self.scores[row]:.2f}"
        return score.removeprefix("0") if self.is_crowded else f"{self.names[self.labels[row]]} {score}".rstrip()


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
    """The image with its boxes, its longer side brought between `smallest` and `largest` pixels.

    A crowded one is at least `ROOMY` pixels long, if it may, and has a legend of its classes below it.
    """
    drawn = _draw(pixels, boxes, max(smallest, min(ROOMY, largest or ROOMY)) if boxes.is_crowded else smallest, largest)
    return _with_legend(drawn, [boxes]) if boxes.is_crowded else drawn


def make_sheet(rows: Sequence[Row]) -> Image.Image:
    """All images below each other, one column for each thing to see; titles stand above. There must be a row.

    Where one of them is crowded, all are larger, and a legend of the classes stands below.
    """
    titles = list(rows[0].columns)
    everything = [boxes for row in rows for boxes in row.columns.values()]
    is_crowded = any(boxes.is_crowded for boxes in everything)
    limits = (LARGEST, ROOMY) if is_crowded else (SMALLEST, LARGEST)
    tiles = [[_draw(row.pixels, row.columns[title], *limits) for title in titles] for row in rows]
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
    return _with_legend(sheet, everything) if is_crowded else sheet


def class_color(label: int) -> Color:
    """A bright color for a class; hues a golden section apart, so that neighbors differ."""
    red, green, blue = colorsys.hsv_to_rgb((0.08 + label * 0.618034) % 1.0, 0.8, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def _draw(pixels: NDArray[np.uint8], boxes: Boxes, smallest: int, largest: int | None) -> Image.Image:
    image = Image.fromarray(pixels)
    longer = max(image.size)
    scale = min(max(longer, smallest), largest or max(longer, smallest)) / longer
    if scale != 1.0:
        size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        image = image.resize(size, Image.Resampling.BICUBIC)
    places = [[round(side * scale) for side in corners] for corners in boxes.corners.tolist()]
    pen = _Pen(image, places)
    colors = [class_color(label) for label in boxes.labels.tolist()]
    for place, color in list(zip(places, colors, strict=True))[::-1]:
        pen.box(place, color)
    for row, (place, color) in enumerate(zip(places, colors, strict=True)):
        pen.caption(place, color, boxes.caption(row), is_needed=not boxes.is_crowded)
    return image


def _with_legend(image: Image.Image, drawn: Sequence[Boxes]) -> Image.Image:
    """The image with a line below it, or as many as it takes: color and name of each class that is drawn.

    Where one thing alone is drawn, how often.
    """
    counts = Counter(label for boxes in drawn for label in boxes.labels.tolist())
    names = drawn[0].names
    font = ImageFont.load_default(size=14)
    lines: list[list[tuple[int, str, float]]] = [[]]
    for label, count in sorted(counts.items()):
        text = f"{names[label]} {count}" if len(drawn) == 1 else names[label]
        width = font.getlength(text) + 40
        if lines[-1] and sum(entry[2] for entry in lines[-1]) + width > image.width:
            lines.append([])
        lines[-1].append((label, text, width))
    height = 24
    answer = Image.new("RGB", (image.width, image.height + height * len(lines) + 6), GROUND)
    answer.paste(image)
    pen = ImageDraw.Draw(answer)
    for number, line in enumerate(lines):
        left, middle = 8.0, image.height + 3 + height * (number + 0.5)
        for label, text, width in line:
            pen.rectangle((left, middle - 6, left + 18, middle + 6), fill=class_color(label), outline="black")
            pen.text((left + 24, middle), text, fill="black", font=font, anchor="lm")
            left += width
    return answer


@dataclass
class _Pen:
    """Draws on an image, in lines and letters that suit its size and that of its boxes."""

    image: Image.Image
    places: Sequence[Sequence[int]]
    taken: list[Place] = field(default_factory=list)
    """The plates of captions."""

    def __post_init__(self) -> None:
        unit = max(1.0, max(self.image.size) / 800)
        side = median([min(right - left, bottom - top) for left, top, right, bottom in self.places] or [100])
        self.line = max(1, min(round(2 * unit), round(side / 16)))
        letters = max(10, min(round(14 * unit), round(side / 2.5)))
        self.font, self.plate = ImageFont.load_default(size=letters), letters + 3
        self.draw = ImageDraw.Draw(self.image)

    def box(self, place: Sequence[int], color: Color) -> None:
        """An outline, with a dark edge around it that shows on any ground."""
        left, top, right, bottom = place
        self.draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline="black")
        self.draw.rectangle((left, top, right, bottom), outline=color, width=self.line)

    def caption(self, place: Sequence[int], color: Color, text: str, is_needed: bool) -> None:
        """On a plate above the box, or inside it, never beyond the image; nowhere where it would cover another one.

        One that is not needed is left out as well where it is wider than its box.
        """
        width = round(self.draw.textlength(text, font=self.font)) + 6
        left = max(0, min(place[0] - 1, self.image.width - width))
        if not text or (not is_needed and width > place[2] - place[0] + 4):
            return
        for top in (place[1] - self.plate, place[1], place[3] - self.plate):
            plate = (left, top, left + width, top + self.plate)
            if top >= 0 and not any(_overlap(plate, other) for other in self.taken):
                break
        else:
            return
        self.taken.append(plate)
        self.draw.rectangle((left, top, left + width - 1, top + self.plate - 1), fill=color)
        luma = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]
        middle = (left + 3, top + self.plate / 2)
        self.draw.text(middle, text, fill="black" if luma > 140 else "white", font=self.font, anchor="lm")


def _overlap(first: Place, second: Place) -> bool:
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]

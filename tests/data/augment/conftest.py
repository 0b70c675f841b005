"""Pictures of three sizes with a bright rectangle each, and views made of them by any list of transforms."""

import pytest
import torch
from pydantic import TypeAdapter

from ssodkit.data.augment.base import TransformConfig
from ssodkit.data.raw import RawBatch
from ssodkit.data.views import ViewConfig, ViewMaker
from ssodkit.ops.random import make_key
from ssodkit.plugins import Slot, load_plugins
from ssodkit.structures.geometry import Stream
from ssodkit.structures.teaching import Targets

SIZES = ((96, 150), (130, 90), (70, 70))
BOXES = ((30.0, 20.0, 85.0, 61.0), (20.0, 40.0, 66.0, 100.0), (22.0, 25.0, 50.0, 44.0))


@pytest.fixture(scope="session")
def parse():
    """A transform as a recipe writes it -> its config."""
    load_plugins()
    adapter = TypeAdapter(Slot[TransformConfig])
    return lambda written: adapter.validate_python(written)


@pytest.fixture(scope="session")
def make_raw():
    """count, seed -> original images of three sizes, black with one white rectangle, which is their only target."""

    def make(count: int, seed: int = 0, noise: bool = False) -> RawBatch:
        raw = RawBatch(
            pixels=torch.zeros(count, 3, max(h for h, _ in SIZES), max(w for _, w in SIZES), dtype=torch.uint8),
            sizes=torch.tensor([SIZES[row % 3] for row in range(count)], dtype=torch.int64).view(-1, 2),
            image_ids=torch.arange(count),
            keys=torch.tensor([make_key(seed, row) for row in range(count)], dtype=torch.int64),
            targets=Targets.empty(count, length=1),
        )
        for row in range(count):
            height, width = SIZES[row % 3]
            left, top, right, bottom = map(int, BOXES[row % 3])
            raw.pixels[row, :, top:bottom, left:right] = 255
            if noise:
                generator = torch.Generator().manual_seed(row)
                drawn = torch.randint(40, 215, (3, height, width), generator=generator)
                raw.pixels[row, :, :height, :width] = drawn.to(torch.uint8)
            raw.targets.boxes[row, 0] = torch.tensor(BOXES[row % 3])
            raw.targets.valid[row, 0] = True
            raw.targets.weight[row, 0] = 1.0
        return raw

    return make


@pytest.fixture(scope="session")
def make_ramps(make_raw):
    """count, seed -> the same images, red telling the column of a pixel, green its row."""

    def make(count: int, seed: int = 0) -> RawBatch:
        raw = make_raw(count, seed)
        raw.pixels[:, 0] = torch.arange(raw.pixels.shape[3])
        raw.pixels[:, 1] = torch.arange(raw.pixels.shape[2])[:, None]
        return raw

    return make


@pytest.fixture(scope="session")
def look(parse):
    """Raw images, transforms as a recipe writes them -> the stream with that one view, called `view`."""

    def make(raw: RawBatch, *transforms: dict, fill: int = 0) -> Stream:
        view = ViewConfig(transforms=tuple(parse(transform) for transform in transforms), fill=fill)
        return ViewMaker({"view": view}, minimum_visible=0.0, pad_to=32).make(raw)

    return make

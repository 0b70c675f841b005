"""Views of a recipe: lists of transforms, drawn per image, applied to whole batches with one resampling."""

from collections.abc import Mapping

import torch
from jaxtyping import Int64
from pydantic import Field, ValidationError, model_validator
from torch import Tensor

from ssodkit.data.augment.base import TransformConfig, draw_view, places
from ssodkit.data.augment.render import render
from ssodkit.data.augment.resize import ResizeConfig
from ssodkit.data.mosaic import MosaicConfig
from ssodkit.data.raw import RawBatch
from ssodkit.ops.random import derive_keys
from ssodkit.plugins import Config, Slot, mistake_at
from ssodkit.structures.geometry import Stream, carry_labels
from ssodkit.structures.views import View


class ViewConfig(Config):
    """One view: its transforms, in order. A plain list in its place means its `transforms`."""

    transforms: tuple[Slot[TransformConfig], ...] = ()
    draws_as: str | None = None
    """Draw the transforms with the key of this other view of the stream: the same transforms then draw the same, as
    shared geometry. What is drawn about the finished view, such as a sample of its anchors, stays its own."""
    fill: int = Field(125, ge=0, le=255)
    """Gray value of what lies outside the original image and still in the view."""

    @model_validator(mode="before")
    @classmethod
    def _list_is_transforms(cls, value: object) -> object:
        return {"transforms": value} if isinstance(value, list | tuple) else value


class ViewsConfig(Config):
    """The views of labeled, unlabeled and test images."""

    size: ResizeConfig | None = None
    """What every view begins with, the test's too: the size in which networks see images. Null: the original."""
    labeled: dict[str, ViewConfig]
    """Every labeled view teaches."""
    labeled_mosaic: MosaicConfig | None = None
    """The original that labeled views are made from is a canvas of four images; null: an image. Unlabeled images are
    always seen alone."""
    unlabeled: dict[str, ViewConfig] = Field(default_factory=dict)
    test: ViewConfig = ViewConfig()
    minimum_visible: float = Field(0.0, ge=0.0, le=1.0)
    """Boxes of which less than this share stays inside a view are dropped from it."""
    pad_to: int = Field(32, ge=1, le=1_000_000)
    """Canvas sides are multiples of this."""

    def sized(self, view: ViewConfig) -> ViewConfig:
        """A view of this recipe with all its transforms: it begins with `size`."""
        if self.size is None:
            return view
        return view.model_copy(update={"transforms": (self.size, *view.transforms)})

    def maker(self, views: Mapping[str, ViewConfig]) -> "ViewMaker":
        """What makes these views, each beginning with `size`."""
        sized = {name: self.sized(view) for name, view in views.items()}
        return ViewMaker(sized, self.minimum_visible, self.pad_to)

    @model_validator(mode="after")
    def _draws_as_names_a_view_with_draws_of_its_own(self) -> "ViewsConfig":
        streams = ((("labeled",), self.labeled), (("unlabeled",), self.unlabeled), ((), {"test": self.test}))
        mistakes = [
            mistake_at((*stream, name, "draws_as"), text, view.draws_as)
            for stream, views in streams
            for name, view in views.items()
            if (text := _wrong_partner(name, views)) is not None
        ]
        if mistakes:
            raise ValidationError.from_exception_data("views", mistakes)
        return self


def are_aligned(stream: Mapping[str, ViewConfig], first: str, second: str) -> bool:
    """Whether two views of a stream show each image at the same places, whatever is drawn."""
    one, other = stream[first], stream[second]
    motions = _motions(one)
    return motions == _motions(other) and (not motions or first == other.draws_as or second == one.draws_as)


def _motions(view: ViewConfig) -> list[tuple[str, TransformConfig]]:
    """The transforms of a view, in order, that move pixels, each with the name that its key is made from."""
    named = zip(places(view.transforms), view.transforms, strict=True)
    return [(name, transform) for name, transform in named if transform.moves]


def _wrong_partner(name: str, views: Mapping[str, ViewConfig]) -> str | None:
    """What is wrong with the view that this one of a stream draws as, if anything is."""
    other = views[name].draws_as
    if other is None:
        return None
    said = f"view '{name}' draws as '{other}', which"
    if other == name or other not in views:
        return f"{said} is no other view of its stream"
    third = views[other].draws_as
    if third is not None:
        return f"{said} draws as '{third}' itself; name a view that does not draw as another"
    return None


class ViewMaker:
    """Makes all views of a stream from the same original images, and carries the labels into each."""

    def __init__(self, views: Mapping[str, ViewConfig], minimum_visible: float, pad_to: int) -> None:
        self.views = views
        self.minimum_visible = minimum_visible
        self.pad_to = pad_to

    def make(self, raw: RawBatch) -> Stream:
        """The views and their targets, on the device of the raw pixels; row i is raw image i in every view."""
        views = {name: self._make_view(raw, name) for name in self.views}
        targets = {name: carry_labels(raw.targets, view, self.minimum_visible) for name, view in views.items()}
        return Stream(views, targets)

    def _make_view(self, raw: RawBatch, name: str) -> View:
        config = self.views[name]
        shared = derive_keys(raw.keys, config.draws_as or name)
        drawn = draw_view(config.transforms, raw.sizes, shared, raw.known or raw.targets, self.minimum_visible)
        pixels = render(drawn, raw.pixels, raw.sizes, self.pad_to, config.fill)
        return _view(raw, derive_keys(raw.keys, name), drawn.sizes, drawn.homography, pixels)


def _view(raw: RawBatch, keys: Int64[Tensor, "batch"], sizes: Tensor, homography: Tensor, pixels: Tensor) -> View:
    device = pixels.device
    return View(
        pixels=pixels,
        sizes=sizes.to(device, non_blocking=True),
        homography=homography.to(device, torch.float32, non_blocking=True),
        image_ids=raw.image_ids.to(device, non_blocking=True),
        keys=keys.to(device, non_blocking=True),
    )

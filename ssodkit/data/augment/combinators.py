"""Combinators: transforms that choose among others, for each image on its own."""

from dataclasses import replace
from typing import Annotated, Literal

import torch
from jaxtyping import Bool, Int64
from pydantic import Field
from torch import Tensor

from ssodkit.data.augment.base import DrawnView, TransformConfig, draw_all, places
from ssodkit.ops.random import derive_keys, integers, uniform
from ssodkit.plugins import Slot, register

Several = Annotated[tuple[Slot[TransformConfig], ...], Field(min_length=1)]


@register
class OneOfConfig(TransformConfig):
    """One of several transforms, all equally likely."""

    type: Literal["one_of"] = "one_of"
    transforms: Several

    @property
    def moves(self) -> bool:
        """Whether any of them does."""
        return any(transform.moves for transform in self.transforms)

    def draw_into(self, view: DrawnView, rows: Int64[Tensor, "rows"], keys: Int64[Tensor, "rows"]) -> None:
        """Let each transform draw for the rows that chose it."""
        names = places(self.transforms)
        choice = integers(keys, (), 0, len(self.transforms) - 1, "choice")
        for place, transform in enumerate(self.transforms):
            _draw_where(choice == place, transform, view, rows, derive_keys(keys, names[place]))


@register
class InRandomOrderConfig(TransformConfig):
    """Several transforms, all of them, in an order drawn for each image."""

    type: Literal["in_random_order"] = "in_random_order"
    transforms: Several

    @property
    def moves(self) -> bool:
        """Whether any of them does."""
        return any(transform.moves for transform in self.transforms)

    def draw_into(self, view: DrawnView, rows: Int64[Tensor, "rows"], keys: Int64[Tensor, "rows"]) -> None:
        """Let each transform draw for the rows that have it first, then for those that have it second, and so on."""
        order = uniform(keys, (len(self.transforms),), "order").argsort(dim=1)
        names = places(self.transforms)
        for turn in order.unbind(dim=1):
            for place, transform in enumerate(self.transforms):
                _draw_where(turn == place, transform, view, rows, derive_keys(keys, names[place]))


@register
class SometimesConfig(TransformConfig):
    """Some transforms with a probability, otherwise others or none."""

    type: Literal["sometimes"] = "sometimes"
    probability: float = Field(ge=0.0, le=1.0)
    then: Several
    otherwise: tuple[Slot[TransformConfig], ...] = ()

    @property
    def moves(self) -> bool:
        """Whether any of them does."""
        return any(transform.moves for transform in (*self.then, *self.otherwise))

    def draw_into(self, view: DrawnView, rows: Int64[Tensor, "rows"], keys: Int64[Tensor, "rows"]) -> None:
        """Let one list draw for the rows that it falls to, then the other for the rest."""
        chosen = uniform(keys, (), "chosen") < self.probability
        draw_all(self.then, view, rows[chosen], keys[chosen])
        draw_all(self.otherwise, view, rows[~chosen], keys[~chosen])


@register
class KeepBoxesConfig(TransformConfig):
    """Several transforms, which an image goes without if they would leave none of its boxes in the view.

    Source: google-research/ssl_detection, which falls back to the image and all its boxes as they were.
    """

    type: Literal["keep_boxes"] = "keep_boxes"
    transforms: Several

    @property
    def moves(self) -> bool:
        """Whether any of them does."""
        return any(transform.moves for transform in self.transforms)

    def draw_into(self, view: DrawnView, rows: Int64[Tensor, "rows"], keys: Int64[Tensor, "rows"]) -> None:
        """Let the transforms draw on a copy, and take it over where it has a box, or there was none before."""
        trial = replace(view, homography=view.homography.clone(), sizes=view.sizes.clone(), steps=[])
        trial.nearest = view.nearest.clone()
        draw_all(self.transforms, trial, rows, keys)
        had, has = (each.moved_targets(rows).valid.any(dim=1) for each in (view, trial))
        taken = rows[has | ~had]
        for mine, tried in (
            (view.homography, trial.homography),
            (view.sizes, trial.sizes),
            (view.nearest, trial.nearest),
        ):
            mine[taken] = tried[taken]
        for step in trial.steps:
            chosen = torch.isin(step.rows, taken)
            if chosen.any():
                view.steps.append(replace(step, rows=step.rows[chosen], keys=step.keys[chosen]))


def _draw_where(
    chosen: Bool[Tensor, "rows"],
    transform: TransformConfig,
    view: DrawnView,
    rows: Int64[Tensor, "rows"],
    keys: Int64[Tensor, "rows"],
) -> None:
    if chosen.any():
        transform.draw_into(view, rows[chosen], keys[chosen])

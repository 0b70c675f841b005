"""Transforms: a pure draw of parameters on the host, and a batched application to pixels on any device.

A transform either moves pixels and boxes (`GeometryConfig`: it draws matrices and never touches a pixel), or changes
pixels where they are (`PixelConfig`), or chooses among others (`combinators.py`). The matrices of a view are multiplied
into one homography and applied in one resampling (`render.py`); the pixel operations follow, in the recipe's order.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, TypeVar

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from pydantic import AfterValidator, Field
from torch import Tensor

from ssodkit.ops.random import derive_keys, uniform
from ssodkit.plugins import PluginConfig
from ssodkit.structures.geometry import move_boxes
from ssodkit.structures.records import map_tensors
from ssodkit.structures.teaching import Targets

Parameters = tuple[Tensor, ...]
"""What a pixel operation draws; row i of every tensor belongs to image i."""


Pair = TypeVar("Pair", tuple[float, float], tuple[int, int])


def _check_order(pair: Pair) -> Pair:
    if pair[0] > pair[1]:
        raise ValueError(f"a range is [low, high]; {pair[0]:g} is above {pair[1]:g}")
    return pair


InOrder = AfterValidator(_check_order)
"""Marks a pair as a range: the lowest and the highest value, between which a number is drawn evenly."""
_Factor = Annotated[float, Field(ge=0.001, le=1000.0)]
PositiveRange = Annotated[tuple[_Factor, _Factor], InOrder]
"""A range within 0.001 and 1000."""
_Share = Annotated[float, Field(ge=0.0, le=1.0)]
ShareRange = Annotated[tuple[_Share, _Share], InOrder]
"""A range within 0 and 1."""
_Count = Annotated[int, Field(ge=0, le=1000)]
CountRange = Annotated[tuple[_Count, _Count], InOrder]
"""A range of whole numbers, both ends included and all equally likely."""


class TransformConfig(PluginConfig, ABC):
    """One operation, or a combinator of several, in a recipe's list of a view."""

    slot: ClassVar[str] = "transform"

    @property
    def moves(self) -> bool:
        """Whether it may move pixels; those that hold others say it of these."""
        return True

    @abstractmethod
    def draw_into(self, view: "DrawnView", rows: Int64[Tensor, "rows"], keys: Int64[Tensor, "rows"]) -> None:
        """Draw for these rows, in ascending order, of a view, each with its own key, and add the outcome to `view`."""


@dataclass(frozen=True)
class Move:
    """A motion of pixels and boxes, drawn for each image; on the CPU."""

    homography: Float[Tensor, "rows 3 3"]
    """Affine, float64: from the frame before to the frame after."""
    sizes: Int64[Tensor, "rows 2"]
    """Height and width after."""


class GeometryConfig(TransformConfig, ABC):
    """Moves pixels and boxes by one matrix per image."""

    uncovers: ClassVar[bool] = True
    """Whether pixels of the frame after may show what lay outside the frame before."""

    @abstractmethod
    def draw(self, keys: Int64[Tensor, "rows"], sizes: Int64[Tensor, "rows 2"]) -> Move:
        """Draw a motion for images that have these sizes by now."""

    def draw_into(self, view: "DrawnView", rows: Int64[Tensor, "rows"], keys: Int64[Tensor, "rows"]) -> None:
        """Multiply the motion onto what has been drawn before."""
        view.move(rows, self.draw(keys, view.sizes[rows]), self.uncovers)


class PaintConfig(TransformConfig, ABC):
    """Changes pixels and moves nothing."""

    @property
    def moves(self) -> bool:
        """False."""
        return False

    @abstractmethod
    def apply(
        self, images: UInt8[Tensor, "rows 3 h w"], masks: Bool[Tensor, "rows 1 h w"], parameters: Parameters
    ) -> UInt8[Tensor, "rows 3 h w"]:
        """The changed images, in memory of their own; the given ones stay. Parameters are on the device of the images.

        Only what lies in the masks belongs to an image; what is written outside of them means nothing.
        """

    def draw_into(self, view: "DrawnView", rows: Int64[Tensor, "rows"], keys: Int64[Tensor, "rows"]) -> None:
        """Note the operation; its parameters are drawn when the view's geometry is known."""
        view.steps.append(Step(rows, keys, self))


class PixelConfig(PaintConfig, ABC):
    """Changes pixels, and asks for the sizes of the images alone."""

    @abstractmethod
    def draw(self, keys: Int64[Tensor, "rows"], sizes: Int64[Tensor, "rows 2"]) -> Parameters:
        """Draw parameters, on the CPU, for images that have these sizes in the finished view."""


class BoxConfig(PaintConfig, ABC):
    """Changes pixels where boxes are; the boxes stay. Images without labels stay as they are."""

    @abstractmethod
    def draw(
        self, keys: Int64[Tensor, "rows"], boxes: Float[Tensor, "rows boxes 4"], valid: Bool[Tensor, "rows boxes"]
    ) -> Parameters:
        """Draw parameters, on the CPU, for images that have these boxes in the finished view."""


@dataclass(frozen=True)
class Step:
    """One pixel operation on some rows of a view; without a transform: the fill is laid around their image."""

    rows: Int64[Tensor, "rows"]
    keys: Int64[Tensor, "rows"]
    transform: PaintConfig | None


@dataclass
class DrawnView:
    """What has been drawn so far for the images of a view, on the CPU; nothing of it is applied yet."""

    sizes: Int64[Tensor, "batch 2"]
    homography: Float[Tensor, "batch 3 3"]
    """Float64, from original pixels."""
    nearest: Bool[Tensor, "batch"]
    """Whether pixels are read at the nearest place, not between four."""
    targets: Targets
    """The labels, in original pixels."""
    visible: float
    """The share of a box that must stay inside the view."""
    steps: list[Step] = field(default_factory=list)

    def moved_targets(self, rows: Int64[Tensor, "rows"]) -> Targets:
        """The labels of these rows in the frame that is drawn so far."""
        mine = map_tensors(self.targets, lambda tensor: tensor[rows])
        return move_boxes(mine, self.homography[rows].float(), self.sizes[rows], self.visible)

    def move(self, rows: Int64[Tensor, "rows"], move: Move, uncovers: bool) -> None:
        """Multiply a motion of some rows onto what they have drawn before."""
        self.homography[rows] = move.homography @ self.homography[rows]
        self.sizes[rows] = move.sizes
        if uncovers:
            if self.steps and self.steps[-1].transform is None:
                rows = torch.cat([rows, self.steps.pop().rows]).unique()
            self.steps.append(Step(rows, torch.zeros_like(rows), None))


def draw_view(
    transforms: Sequence[TransformConfig],
    sizes: Int64[Tensor, "batch 2"],
    keys: Int64[Tensor, "batch"],
    targets: Targets | None = None,
    visible: float = 0.0,
) -> DrawnView:
    """What these transforms draw for original images of these sizes, each with its own key.

    `targets`, on the CPU, are the labels of the images, for the few transforms that ask where boxes are; of a box less
    of which than `visible` stays in the view, nobody hears.
    """
    view = DrawnView(
        sizes=sizes.clone(),
        homography=torch.eye(3, dtype=torch.float64).repeat(len(sizes), 1, 1),
        nearest=torch.zeros(len(sizes), dtype=torch.bool),
        targets=Targets.empty(len(sizes)) if targets is None else targets,
        visible=visible,
    )
    draw_all(transforms, view, torch.arange(len(sizes)), keys)
    return view


def draw_all(
    transforms: Sequence[TransformConfig], view: DrawnView, rows: Int64[Tensor, "rows"], keys: Int64[Tensor, "rows"]
) -> None:
    """Draw one transform after the other for the same rows."""
    for name, transform in zip(places(transforms), transforms, strict=True):
        if len(rows):
            transform.draw_into(view, rows, derive_keys(keys, name))


def places(transforms: Sequence[TransformConfig]) -> list[str]:
    """What a list's members are called when their keys are made: the type, and how many of it came before.

    So a transform draws the same whatever other types stand around it: a view that draws as another shares its flip.
    """
    seen: Counter[str] = Counter()
    names = []
    for transform in transforms:
        names.append(f"{transform.type}/{seen[transform.type]}")
        seen[transform.type] += 1
    return names


def draw_between(
    keys: Int64[Tensor, "rows"], bounds: tuple[float, float], purpose: str, shape: tuple[int, ...] = ()
) -> Tensor:
    """Numbers drawn evenly from a range, float64, of size (rows, *shape)."""
    low, high = bounds
    return low + (high - low) * uniform(keys, shape, purpose).double()

"""Box codes: how a regressor writes a box relative to its candidate."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


class Coder(ABC):
    """What criteria and matchers know of a code: `decode` is the inverse of `encode`, and differentiable."""

    @abstractmethod
    def encode(
        self, candidates: Float[Tensor, "*batch 4"], boxes: Float[Tensor, "*batch 4"]
    ) -> Float[Tensor, "*batch 4"]:
        """Codes of `boxes` seen from `candidates`, row by row; sides must be above zero."""

    @abstractmethod
    def decode(
        self, candidates: Float[Tensor, "*batch 4"], codes: Float[Tensor, "*batch 4"]
    ) -> Float[Tensor, "*batch 4"]:
        """The boxes that `codes` mean, not clipped to an image."""

    @abstractmethod
    def mirrored(self, codes: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 4"]:
        """What says the mirrored boxes of mirrored candidates, left to right; `codes` stay as they are."""


@dataclass(frozen=True)
class BoxCoder(Coder):
    """Center shifts in candidate sides and log ratios of the sides, divided by their standard deviations.

    Source: Girshick et al., R-CNN, arXiv:1311.2524, appendix C; the clamp is detectron's convention.
    """

    center_std: float = 1.0
    side_std: float = 1.0
    largest_ratio: float = 1000.0 / 16.0
    """A decoded side is at most this many candidate sides."""
    limits_shrinking: bool = True
    """A decoded side is also at least the candidate's divided by `largest_ratio` (torchvision: no such limit)."""

    def encode(
        self, candidates: Float[Tensor, "*batch 4"], boxes: Float[Tensor, "*batch 4"]
    ) -> Float[Tensor, "*batch 4"]:
        """Codes of `boxes` seen from `candidates`, row by row; sides must be above zero."""
        center, side = _center_and_side(candidates)
        goal_center, goal_side = _center_and_side(boxes)
        shift = (goal_center - center) / (side * self.center_std)
        return torch.cat([shift, torch.log(goal_side / side) / self.side_std], dim=-1)

    def decode(
        self, candidates: Float[Tensor, "*batch 4"], codes: Float[Tensor, "*batch 4"]
    ) -> Float[Tensor, "*batch 4"]:
        """The boxes that `codes` mean, not clipped to an image."""
        center, side = _center_and_side(candidates)
        limit = math.log(self.largest_ratio)
        ratio = (codes[..., 2:] * self.side_std).clamp(min=-limit if self.limits_shrinking else None, max=limit)
        new_center = center + codes[..., :2] * self.center_std * side
        half_side = 0.5 * side * torch.exp(ratio)
        return torch.cat([new_center - half_side, new_center + half_side], dim=-1)

    def mirrored(self, codes: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 4"]:
        """The shift to the right has the other sign."""
        return torch.cat([-codes[..., :1], codes[..., 1:]], dim=-1)


@dataclass(frozen=True)
class EdgeCoder(Coder):
    """Shifts of the left, top, right and bottom edge in candidate sides: linear, for heads that answer with boxes."""

    def encode(
        self, candidates: Float[Tensor, "*batch 4"], boxes: Float[Tensor, "*batch 4"]
    ) -> Float[Tensor, "*batch 4"]:
        """Codes of `boxes` seen from `candidates`, row by row; only the candidates' sides must be above zero."""
        return (boxes - candidates) / _sides(candidates)

    def decode(
        self, candidates: Float[Tensor, "*batch 4"], codes: Float[Tensor, "*batch 4"]
    ) -> Float[Tensor, "*batch 4"]:
        """The boxes that `codes` mean; they may be turned inside out, as what was encoded may."""
        return candidates + codes * _sides(candidates)

    def mirrored(self, codes: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 4"]:
        """Left and right change places and signs."""
        return _mirrored_sides(codes)


@dataclass(frozen=True)
class SideCoder(Coder):
    """Shifts of the left, top, right and bottom edge in candidate sides, divided by their standard deviation.

    Where candidates are `widened`, `decode` is not the inverse of `encode`, but finds what the released code finds.

    Source: the released code of Unbiased Teacher v2 (facebookresearch/unbiased-teacher-v2).
    """

    std: float = 0.1
    largest_shift: float = 1000.0 / 16.0
    """A decoded edge moves by at most this many candidate sides."""
    widened: float = 0.0
    """Pixels that are added to a candidate's sides before anything is divided by them."""

    def encode(
        self, candidates: Float[Tensor, "*batch 4"], boxes: Float[Tensor, "*batch 4"]
    ) -> Float[Tensor, "*batch 4"]:
        """Codes of `boxes` seen from `candidates`, row by row; only the candidates' sides must be above zero."""
        return (boxes - candidates) / ((_sides(candidates) + self.widened) * self.std)

    def decode(
        self, candidates: Float[Tensor, "*batch 4"], codes: Float[Tensor, "*batch 4"]
    ) -> Float[Tensor, "*batch 4"]:
        """The boxes that `codes` mean; they may be turned inside out."""
        shifts = (codes * self.std).clamp(min=-self.largest_shift, max=self.largest_shift)
        return candidates + shifts * _sides(candidates)

    def mirrored(self, codes: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 4"]:
        """Left and right change places and signs."""
        return _mirrored_sides(codes)


@dataclass(frozen=True)
class FrameCoder(Coder):
    """Center and sides in candidate sides from its corner: of a query, whose candidate is its image, 0 to 1 across it.

    Source: Carion et al., DETR, ECCV 2020, arXiv:2005.12872, section 3.1.
    """

    def encode(
        self, candidates: Float[Tensor, "*batch 4"], boxes: Float[Tensor, "*batch 4"]
    ) -> Float[Tensor, "*batch 4"]:
        """Codes of `boxes` seen from `candidates`, row by row; only the candidates' sides must be above zero."""
        center, side = _center_and_side((boxes - candidates[..., :2].tile(2)) / _sides(candidates))
        return torch.cat([center, side], dim=-1)

    def decode(
        self, candidates: Float[Tensor, "*batch 4"], codes: Float[Tensor, "*batch 4"]
    ) -> Float[Tensor, "*batch 4"]:
        """The boxes that `codes` mean."""
        center, half = codes[..., :2], 0.5 * codes[..., 2:]
        edges = torch.cat([center - half, center + half], dim=-1)
        return candidates[..., :2].tile(2) + edges * _sides(candidates)

    def mirrored(self, codes: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 4"]:
        """The center lies as far from the other side."""
        return torch.cat([1.0 - codes[..., :1], codes[..., 1:]], dim=-1)


def _mirrored_sides(codes: Tensor) -> Tensor:
    left, top, right, bottom = codes.unbind(dim=-1)
    return torch.stack([-right, top, -left, bottom], dim=-1)


def _sides(boxes: Tensor) -> Tensor:
    """Width, height, width, height."""
    return (boxes[..., 2:] - boxes[..., :2]).tile(2)


def _center_and_side(boxes: Tensor) -> tuple[Tensor, Tensor]:
    low, high = boxes[..., :2], boxes[..., 2:]
    return 0.5 * (low + high), high - low

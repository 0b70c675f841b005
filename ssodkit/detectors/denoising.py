"""Denoising: queries made from targets, which learn to find back, or to say that nothing is there.

Source: Li et al., DN-DETR, CVPR 2022, arXiv:2203.01305; contrastive: Zhang et al., DINO, ICLR 2023, arXiv:2203.03605.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from pydantic import Field
from torch import Tensor

from ssodkit.detectors.rules import StageRule
from ssodkit.detectors.sampling import taught_sets
from ssodkit.ops.boxes import at_least_fp32, has_area
from ssodkit.ops.coding import FrameCoder
from ssodkit.ops.denoising import Slots, lay_slots, move_corners
from ssodkit.ops.random import integers, uniform
from ssodkit.ops.rows import first_rows, take_rows
from ssodkit.plugins import Config
from ssodkit.structures.teaching import BACKGROUND, IGNORE, Assignment, Supervision, Targets


class DenoisingConfig(Config):
    """How many queries are made from the targets of an image, and how far from them."""

    queries: int = Field(100, ge=1, le=10_000)
    """Positive ones of an image, and as many negative ones: whole groups of its targets that fit, at least one."""
    label_noise: float = Field(0.5, ge=0.0, le=1.0)
    """Half of this share of the queries begins with the name of a class drawn at random."""
    box_noise: float = Field(0.4, ge=0.0, le=1.0)
    """Edges move up to this share of half a side, those of negative queries once to twice as far (mmdetection: 1)."""


@dataclass(frozen=True)
class Noise:
    """Denoising queries, of which those that are not `slots.used` mean nothing."""

    labels: Int64[Tensor, "batch slots"]
    boxes: Float[Tensor, "batch slots 4"]
    """(cx, cy, w, h) in sides of the image, 0 to 1."""
    slots: Slots
    plan: Mapping[str, Assignment]
    """Term of the stage -> what they learn from."""


@torch.no_grad()
def make_noise(
    config: DenoisingConfig,
    rule: StageRule,
    supervision: Supervision,
    frames: Float[Tensor, "batch 4"],
    keys: Int64[Tensor, "batch"],
    num_classes: int,
) -> Noise:
    """Queries from the targets of `supervision.classes` that teach; `frames` are the whole images.

    Groups are counted image by image, so that an image's queries do not depend on its batch; the released code has as
    many groups in every image as the most crowded one of its batch allows. Without a target nothing is `used`.
    """
    targets = supervision.classes
    if not targets.boxes.shape[1]:
        targets = Targets.empty(len(keys), keys.device, length=1)
    teaches = targets.valid & (targets.weight > 0.0) & ~targets.crowd & has_area(targets.boxes)
    counts, length = teaches.sum(dim=1), targets.boxes.shape[1]
    slots = lay_slots(counts, counts, config.queries, 2 * max(config.queries, length))
    rows = take_rows(first_rows(teaches, length), slots.target.clamp(max=length - 1))
    boxes = take_rows(at_least_fp32(targets.boxes), rows)
    codes = FrameCoder().encode(frames[:, None].expand_as(boxes), boxes)
    shape = (slots.group.shape[1], 4)
    signs = torch.where(uniform(keys, shape, "denoising/signs") < 0.5, -1.0, 1.0)
    draws = uniform(keys, shape, "denoising/boxes") + (~slots.positive[..., None]).to(torch.float32)
    is_renamed = uniform(keys, shape[:1], "denoising/renamed") < 0.5 * config.label_noise
    names = integers(keys, shape[:1], 0, num_classes - 1, "denoising/names")
    return Noise(
        labels=torch.where(is_renamed, names, take_rows(targets.labels, rows)).masked_fill(~slots.used, 0),
        boxes=move_corners(codes, signs, draws, config.box_noise).masked_fill(~slots.used[..., None], 0.5),
        slots=slots,
        plan=_plan(rule, supervision, slots, rows),
    )


def _plan(
    rule: StageRule, supervision: Supervision, slots: Slots, rows: Int64[Tensor, "batch slots"]
) -> dict[str, Assignment]:
    """Positive slots learn from their rows where these teach in the term's own set; negative ones are background."""
    done: dict[int, Assignment] = {}
    plan = {}
    for term, targets in taught_sets(rule, supervision).items():
        if id(targets) not in done:
            own = targets if targets.boxes.shape[1] else Targets.empty(len(rows), rows.device, length=1)
            weight = take_rows(own.weight * (own.valid & ~own.crowd), rows) * slots.used
            index = torch.where(slots.positive, rows, BACKGROUND).masked_fill(weight <= 0.0, IGNORE)
            done[id(targets)] = Assignment(
                index, weight, slots.positive.to(weight.dtype), (weight > 0.0).sum(dim=1).to(weight.dtype)
            )
        plan[term] = done[id(targets)]
    return plan

"""Region proposals: a one-class dense stage, and what of its answers goes on to the box head.

Source: Ren et al., Faster R-CNN, arXiv:1506.01497, section 3.1.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import relu

from ssodkit.detectors.rules import ProposalCount
from ssodkit.nn.box_code import BoxCodeConfig
from ssodkit.ops.boxes import at_least_fp32, clip_boxes
from ssodkit.ops.nms import batched_nms
from ssodkit.ops.rows import best_of_groups, take_rows
from ssodkit.plugins import Config
from ssodkit.structures.predictions import Candidates, Predictions


class RpnConfig(Config):
    """The dense head; it is as wide as the pyramid."""

    layers: int = Field(1, ge=1, le=100)
    """3x3 convolutions before the outputs."""
    code: BoxCodeConfig = BoxCodeConfig()


class Proposals(Config):
    """How many proposals go on."""

    per_level: int = Field(ge=1, le=1_000_000)
    """Best per pyramid level before non-maximum suppression."""
    keep: int = Field(ge=1, le=1_000_000)
    """Per image after it."""


class ProposalRule(Config):
    """Which of the dense stage's boxes go on. The student learns with `training`; evaluation uses `test`."""

    training: Proposals
    test: Proposals
    nms: float = Field(0.7, gt=0.0, le=1.0)
    """IoU beyond which a better proposal of the same level suppresses a worse one."""
    minimum_side: float = Field(0.0, ge=0.0)
    """Pixels; both sides of a proposal are longer than this (torchvision: 0.001)."""
    append_targets: bool = True
    """Whether the boxes of the targets join the proposals from which the box head's training sample is drawn."""

    def counts(self, which: ProposalCount) -> Proposals:
        """Those of a name; a number is what is kept of as many candidates as in `test`."""
        if isinstance(which, int):
            return Proposals(per_level=self.test.per_level, keep=which)
        return self.training if which == "training" else self.test


class RpnHead(nn.Module):
    """3x3 convolutions, then objectness and box code of every anchor, shared by all levels."""

    def __init__(self, channels: int, anchors_per_cell: int, layers: int = 1) -> None:
        super().__init__()
        self.shared = nn.Conv2d(channels, channels, 3, padding=1)
        self.objectness = nn.Conv2d(channels, anchors_per_cell, 1)
        self.codes = nn.Conv2d(channels, anchors_per_cell * 4, 1)
        self.further = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(layers - 1))
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.01 if parameter.dim() > 1 else 0.0)

    def forward(
        self, maps: Sequence[Float[Tensor, "batch channels _ _"]]
    ) -> tuple[Float[Tensor, "batch anchors 1"], Float[Tensor, "batch anchors 1 4"]]:
        """Objectness logits and box codes, in the order of the anchors."""
        hidden = [relu(self.shared(level)) for level in maps]
        for convolution in self.further:
            hidden = [relu(convolution(level)) for level in hidden]
        logits = [self.objectness(level).permute(0, 2, 3, 1).flatten(1) for level in hidden]
        codes = [self.codes(level).permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, 1, 4)) for level in hidden]
        return torch.cat(logits, dim=1)[..., None], torch.cat(codes, dim=1)


@torch.no_grad()
def propose(predictions: Predictions, sizes: Tensor, counts: Proposals, rule: ProposalRule) -> Candidates:
    """The best boxes of each level after suppression among themselves, clipped to the images; best first.

    Without gradient: proposals are places to look at, not answers.
    """
    scores = at_least_fp32(predictions.class_logits[..., 0]).masked_fill(~predictions.candidates.valid, -torch.inf)
    score, place = best_of_groups(scores, predictions.candidates.lengths, counts.per_level)
    codes = at_least_fp32(take_rows(predictions.box_codes, place)[:, :, 0])
    anchors = take_rows(predictions.candidates.boxes, place)
    boxes = clip_boxes(predictions.coder.decode(anchors, codes), sizes)
    valid = (score > -torch.inf) & (boxes[..., 2:] - boxes[..., :2] > rule.minimum_side).all(dim=-1)
    assert predictions.candidates.level is not None
    level = take_rows(predictions.candidates.level, place)
    kept, is_kept = batched_nms(boxes, score, level, valid, rule.nms, counts.keep)
    return Candidates(take_rows(boxes, kept).masked_fill(~is_kept[..., None], 0.0), is_kept)

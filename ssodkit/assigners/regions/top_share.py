"""Top share: the candidates of which another network is surest learn.

Source: Zhou et al., Dense Teacher, ECCV 2022, arXiv:2207.02541, section 3.3, and its code
(Megvii-BaseDetection/DenseTeacher).
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from ssodkit.assigners.regions.base import RegionConfig, assignment_of, best_class_probs
from ssodkit.plugins import register
from ssodkit.structures.predictions import Predictions
from ssodkit.structures.teaching import Assignment


@register
class TopShareConfig(RegionConfig):
    """The share with the highest probability of any class."""

    type: Literal["top_share"] = "top_share"

    share: float = Field(0.01, gt=0.0, le=1.0)
    """Of the valid candidates; their number is rounded down."""
    scope: Literal["batch", "image"] = "batch"
    """Whose share: of all images of a forward together, which compete (the released code); or of each image."""

    def __call__(self, theirs: Predictions) -> Assignment:
        worth, valid = best_class_probs(theirs), theirs.candidates.valid
        if self.scope == "image":
            learns = top_share(worth, valid, self.share)
        else:
            learns = top_share(worth.reshape(1, -1), valid.reshape(1, -1), self.share).view(valid.shape)
        return assignment_of(learns, theirs.candidates, worth)


def top_share(
    worth: Float[Tensor, "groups rows"], valid: Bool[Tensor, "groups rows"], share: float
) -> Bool[Tensor, "groups rows"]:
    """Which rows of each group are among its best floor(share x valid ones). Worth is not negative."""
    at_most = int(share * valid.shape[1] + 1e-9)
    best = worth.masked_fill(~valid, -1.0).topk(at_most, dim=1).indices
    count = (share * valid.sum(dim=1).double() + 1e-9).floor()
    rank = torch.arange(at_most, device=valid.device)
    return torch.zeros_like(valid).scatter(1, best, rank < count[:, None])

"""Which score stands at a place of a class's ranking, read from counts of scores instead of the scores themselves.

Counts add over processes and steps and fade with time, which a list of scores does not; their size is that of the
histogram, whatever was seen.
"""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor


def bin_of(scores: Float[Tensor, "*shape"], bins: int) -> Int64[Tensor, "*shape"]:
    """The bin of each score in [0, 1]; bin b begins at b / bins.

    float64 and a hair more, so that a score that was rounded down from a bin's beginning lies in that bin.
    """
    return (scores.double() * bins + 1e-4).long().clamp(0, bins - 1)


def count_scores(
    scores: Float[Tensor, "batch detections"],
    labels: Int64[Tensor, "batch detections"],
    counted: Bool[Tensor, "batch detections"],
    num_classes: int,
    bins: int,
) -> Float[Tensor, "classes bins"]:
    """How many of the `counted` scores of each class lie in each bin; float64."""
    cells = (labels * bins + bin_of(scores, bins)).flatten()
    histogram = torch.zeros(num_classes * bins, dtype=torch.float64, device=scores.device)
    return histogram.scatter_add_(0, cells, counted.flatten().double()).view(num_classes, bins)


def bin_at_place(histogram: Float[Tensor, "classes bins"], place: Float[Tensor, "classes"]) -> Int64[Tensor, "classes"]:
    """The bin of the score at a place of each class, counted from 0 at the highest; places are rounded down.

    A class with fewer scores than that answers with the bin of its lowest, a class without any with bin 0.
    """
    above = histogram.flip(1).cumsum(1).flip(1)  # of each bin, the scores in it and in those above it
    reaches = above > place.floor()[:, None]
    highest = reaches.sum(1) - 1  # `above` falls, so those that reach are the first ones
    lowest = (histogram > 0).to(torch.int64).argmax(1)
    return torch.maximum(highest, lowest)

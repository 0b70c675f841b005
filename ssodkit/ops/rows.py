"""Rows of padded batches: each image picks its own, without asking the host how many there are."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor


def take_rows(
    values: Shaped[Tensor, "batch rows *rest"], index: Int64[Tensor, "batch picked"]
) -> Shaped[Tensor, "batch picked *rest"]:
    """For each image the rows at `index`, in that order."""
    expanded = index.reshape(*index.shape, *(1,) * (values.dim() - 2)).expand(*index.shape, *values.shape[2:])
    return values.gather(1, expanded)


def first_rows(mask: Bool[Tensor, "batch rows"], count: int) -> Int64[Tensor, "batch picked"]:
    """The places of each image's first `count` True rows, in order; where it has fewer, False rows follow.

    `picked` is `count`, or `rows` if that is less.
    """
    return torch.argsort(~mask, dim=1, stable=True)[:, :count]


def class_columns(
    values: Float[Tensor, "batch rows classes"], labels: Int64[Tensor, "batch picked"]
) -> Float[Tensor, "batch picked rows"]:
    """For each image the columns of the classes `labels`, in that order, each a contiguous row."""
    expanded = labels[:, None].expand(-1, values.shape[1], -1)
    return values.gather(2, expanded).transpose(1, 2).contiguous()


def best_of_groups(
    scores: Float[Tensor, "batch rows"], lengths: Sequence[int], count: int
) -> tuple[Float[Tensor, "batch picked"], Int64[Tensor, "batch picked"]]:
    """Scores and places of the best `count` rows of each group, or of all where it has fewer; best first in each group.

    Groups lie one behind the other and have `lengths` rows.
    """
    best, places, start = [], [], 0
    for length in lengths:
        score, place = scores[:, start : start + length].topk(min(count, length), dim=1)
        best.append(score)
        places.append(place + start)
        start += length
    return torch.cat(best, dim=1), torch.cat(places, dim=1)

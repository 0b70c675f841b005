"""Exponential moving average of a whole network, buffers included."""

from collections.abc import Iterator

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from torch.optim.sgd import sgd


@torch.no_grad()
def move_average(average: nn.Module, source: nn.Module, momentum: float, ok: Bool[Tensor, ""]) -> None:
    """Change `average`, in place, to momentum x average + (1 - momentum) x source.

    Parameters and floating-point buffers are averaged (a batch-norm's statistics belong to its weights), integer
    buffers are copied. Where `ok` is False, `average` stays as it is, bit for bit, whatever `source` holds; the host
    never learns which it was. `average` must have been copied from `source`: the same tensors in the same layout.
    """
    pairs = list(zip(_state(average), _state(source), strict=True))
    assert all(old.stride() == new.stride() for old, new in pairs), "the fused kernel pairs elements by their place"
    moving = [(old, new) for old, new in pairs if old.is_floating_point()]
    # average - (1 - momentum) x (average - source) is a descent step with gradient -source and weight decay 1. The
    # fused kernel of SGD does it in one pass, and not at all where it is told that something was not finite.
    sgd(
        [old for old, _ in moving],
        [new for _, new in moving],
        [None] * len(moving),
        fused=True,
        found_inf=(~ok).float(),
        lr=1.0 - momentum,
        weight_decay=1.0,
        maximize=True,
        momentum=0.0,
        dampening=0.0,
        nesterov=False,
    )
    for old, new in pairs:
        if not old.is_floating_point():
            old.copy_(torch.where(ok, new, old))


def _state(network: nn.Module) -> Iterator[Tensor]:
    yield from network.parameters()
    yield from network.buffers()

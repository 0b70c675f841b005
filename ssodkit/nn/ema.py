"""Exponential moving average of a whole network, buffers included."""

from collections.abc import Iterator

import torch
from jaxtyping import Bool
from torch import Tensor, nn


@torch.no_grad()
def move_average(average: nn.Module, source: nn.Module, momentum: float, ok: Bool[Tensor, ""]) -> None:
    """Change `average`, in place, to momentum x average + (1 - momentum) x source; momentum 0 copies.

    Parameters and floating-point buffers are averaged (a batch-norm's statistics belong to its weights), integer ones
    are copied. Where `ok` is False, `average` stays as it is, bit for bit, whatever `source` holds; the host never
    learns which it was.
    """
    averages, sources = list(_state(average)), list(_state(source))
    # The source is replaced, not its weight: 0 x NaN is NaN.
    safe = [torch.where(ok, new, old) for old, new in zip(averages, sources, strict=True)]
    moving = [place for place, tensor in enumerate(averages) if tensor.is_floating_point()]
    copied = [place for place, tensor in enumerate(averages) if not tensor.is_floating_point()]
    if moving:
        torch._foreach_lerp_([averages[i] for i in moving], [safe[i] for i in moving], 1.0 - momentum)
    if copied:
        torch._foreach_copy_([averages[i] for i in copied], [safe[i] for i in copied])


def _state(network: nn.Module) -> Iterator[Tensor]:
    yield from network.parameters()
    yield from network.buffers()

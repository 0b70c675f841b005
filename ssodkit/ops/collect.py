"""Sums over the processes of a run, and what each of them has; with one process, the numbers themselves."""

from typing import Any

import torch.distributed
from torch import Tensor


def sum_over_processes(numbers: Tensor) -> Tensor:
    """The element-wise sum of every process's `numbers`, the same on all of them; the argument stays as it is.

    All processes must call it, with tensors of one shape. The host does not wait for the device.
    """
    if not _are_several():
        return numbers
    total = numbers.clone()
    torch.distributed.all_reduce(total)
    return total


def gather_over_processes(numbers: Tensor) -> Tensor:
    """Every process's `numbers`, stacked in the order of ranks, the same on all of them.

    All processes must call it, with tensors of one shape. The host does not wait for the device.
    """
    if not _are_several():
        return numbers[None]
    count = torch.distributed.get_world_size()
    everyones = numbers.new_empty(count * numbers.numel())
    torch.distributed.all_gather_into_tensor(everyones, numbers.flatten())
    return everyones.view(count, *numbers.shape)


def sum_with_gradients(numbers: Tensor) -> Tensor:
    """`sum_over_processes`, through which each process gets the gradients of all; so for backward, too, they all must
    come here, in the same order."""
    return _Sum.apply(numbers) if _are_several() else numbers


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, numbers: Tensor) -> Tensor:
        return sum_over_processes(numbers)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return sum_over_processes(gradient.contiguous())


def _are_several() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()

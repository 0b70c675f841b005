"""Statistics that a forward changes: the running means and variances of batch normalization that trains."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from ssodkit.engine.distributed import Processes
from ssodkit.ops.collect import sum_over_processes


class Statistics:
    """Where an update is not made, they are as before it; several processes have the mean of theirs."""

    def __init__(self, method: nn.Module, processes: Processes) -> None:
        self.method, self.processes = method, processes

    def keep(self) -> tuple[Tensor, Tensor] | None:
        """What they are before a step, and how many steps made them; None where nothing trains any."""
        numbers, counts = self._own()
        return (_flat(numbers), torch.stack(counts)) if numbers else None

    @torch.no_grad()
    def settle(self, before: tuple[Tensor, Tensor] | None, updated: Tensor) -> None:
        """Take them back unless `updated` (0-d, on the device), and share them; the host waits for nothing."""
        if before is None:
            return
        numbers, counts = self._own()
        flat = _flat(numbers)
        if self.processes.count > 1:
            flat = sum_over_processes(flat) / self.processes.count
        flat = torch.where(updated, flat, before[0])
        new = flat.split([each.numel() for each in numbers])
        torch._foreach_copy_(numbers, [part.view_as(each) for part, each in zip(new, numbers, strict=True)])
        torch._foreach_copy_(counts, list(torch.where(updated, torch.stack(counts), before[1]).unbind()))

    def _own(self) -> tuple[list[Tensor], list[Tensor]]:
        """Of layers in training; those of frozen and of averaged networks do not change."""
        numbers, counts = [], []
        for layer in self.method.modules():
            if isinstance(layer, _NormBase) and layer.training and layer.running_mean is not None:
                assert layer.running_var is not None
                assert layer.num_batches_tracked is not None
                numbers += [layer.running_mean, layer.running_var]
                counts.append(layer.num_batches_tracked)
        return numbers, counts


def _flat(numbers: list[Tensor]) -> Tensor:
    return torch.cat([each.flatten() for each in numbers])

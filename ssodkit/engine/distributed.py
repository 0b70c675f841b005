"""The processes of a run: one, or as many as torch's own launcher (`torchrun`) started."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed

from ssodkit.errors import TrainingError

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """Which process this is, of how many, and the device it computes on."""

    device: torch.device
    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """The process that prints and writes files."""
        return self.rank == 0

    def gather(self, value: T) -> list[T]:
        """Every process's `value`, in the order of ranks. All processes must call it; the host waits."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        torch.distributed.all_gather_object(values, value)
        return values

    def agree(self, facts: Mapping[str, str]) -> None:
        """Raise TrainingError on every process if one of them differs from the first in any of `facts`."""
        everyone = self.gather(dict(facts))
        for name in facts:
            seen = [other[name] for other in everyone]
            if len(set(seen)) > 1:
                listed = ", ".join(f"process {rank}: {value}" for rank, value in enumerate(seen))
                raise TrainingError(
                    f"the processes of this run do not have the same {name} ({listed}). "
                    "Start all of them with the same recipe and the same files."
                )


@contextmanager
def open_processes(device: str | None = None) -> Iterator[Processes]:
    """Join the processes that `torchrun` started, if that has not happened yet, or be the only one.

    `device` is `cpu`, `cuda` or `cuda:1`; None means CUDA where there is one. Under `torchrun` each process takes
    the GPU of its local rank. Raises TrainingError if the device does not exist.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    chosen = _choose_device(device, int(os.environ.get("LOCAL_RANK", "0")) if count > 1 else None)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if count == 1:
        yield Processes(chosen)
        return
    joins = not torch.distributed.is_initialized()
    if joins:
        torch.distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Processes(chosen, torch.distributed.get_rank(), torch.distributed.get_world_size())
    finally:
        if joins:
            torch.distributed.destroy_process_group()


def _choose_device(device: str | None, local_rank: int | None) -> torch.device:
    try:
        chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise TrainingError(f"'{device}' is no device; write cpu, cuda, or cuda:1 for the second GPU") from error
    if chosen.type != "cuda":
        return chosen
    index = local_rank if local_rank is not None else chosen.index or 0
    if index >= torch.cuda.device_count():
        raise TrainingError(
            f"there is no device cuda:{index}: PyTorch sees {torch.cuda.device_count()} GPUs. "
            "Take --device cpu, or fewer processes."
        )
    return torch.device("cuda", index)

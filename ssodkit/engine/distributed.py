"""The processes of a run: one, or as many as torch's own launcher (`torchrun`) started."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed

from ssodkit.errors import SsodkitError, TrainingError

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

    def first_alone(self, action: Callable[[], T]) -> T | None:
        """What `action` gives in the first process, None in the others, which wait for it.

        An error of the user's there is raised in all of them: who waits would not learn of it.
        """
        return self.together(lambda: action() if self.is_first else None)

    def together(self, action: Callable[[], T]) -> T:
        """What `action` gives in each process. All processes must call it; the host waits for the last of them.

        An error of the user's in one of them, of the lowest rank, is raised in all: the others do not go on alone.
        """
        answer: list[T] = []
        failure: SsodkitError | None = None
        try:
            answer.append(action())
        except SsodkitError as error:
            failure = error
        for each in self.gather(failure):
            if each is not None:
                raise each
        return answer[0]

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
    the GPU of its local rank. Raises TrainingError if the device does not exist, or the processes do not meet.
    """
    count = _announced("WORLD_SIZE", 1, lowest=1)
    chosen = choose_device(device, _announced("LOCAL_RANK", 0) if count > 1 else None)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if count == 1:
        yield Processes(chosen)
        return
    joins = not torch.distributed.is_initialized()
    if joins:
        _join("nccl" if chosen.type == "cuda" else "gloo", count)
    try:
        yield Processes(chosen, torch.distributed.get_rank(), torch.distributed.get_world_size())
    finally:
        if joins:
            torch.distributed.destroy_process_group()


def _announced(name: str, usual: int | None = None, lowest: int = 0) -> int:
    """A number that `torchrun` sets in the environment; raises TrainingError where it is none."""
    text = os.environ.get(name, "" if usual is None else str(usual))
    if not text.isdecimal() or int(text) < lowest:
        raise TrainingError(
            f"the environment variable {name} is '{text}', which is no number from {lowest} on. torchrun sets it in "
            "each process of a run; to train in one process, unset WORLD_SIZE."
        )
    return int(text)


def _join(backend: str, count: int) -> None:
    """Wait for the other processes where the environment says that they meet."""
    rank, place = _announced("RANK"), f"{os.environ.get('MASTER_ADDR')}:{_announced('MASTER_PORT')}"
    try:
        if rank >= count:
            raise ValueError(f"RANK is {rank}, and WORLD_SIZE {count}")
        torch.distributed.init_process_group(backend)
    except (ValueError, torch.distributed.DistError) as error:
        what = next(iter(str(error).splitlines()), "")
        raise TrainingError(
            f"the {count} processes of this run do not meet at {place} (MASTER_ADDR:MASTER_PORT): {what}. Start all of "
            "them with torchrun, or with --processes on one machine."
        ) from error


def choose_device(device: str | None, local_rank: int | None = None) -> torch.device:
    """The device of this name, CUDA where there is one if it has none; of several GPUs that of the local rank.

    Raises TrainingError if there is no such device.
    """
    refusal = TrainingError(f"'{device}' is no device to compute on; write cpu, cuda, or cuda:1 for the second GPU.")
    try:
        chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise refusal from error
    if chosen.type == "cpu":
        return chosen
    if chosen.type != "cuda":
        raise refusal
    index = local_rank if local_rank is not None else chosen.index or 0
    count = torch.cuda.device_count()
    if not count:
        raise TrainingError(f"there is no {device}: PyTorch sees no GPU on this machine. Leave out --device.")
    if index >= count:
        raise TrainingError(
            f"there is no cuda:{index}: PyTorch sees {count} GPUs, counted from 0. Take another --device, or as many "
            "processes as GPUs."
        )
    return torch.device("cuda", index)

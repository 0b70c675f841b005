"""How a run goes: losses, speed and memory, averaged over the steps between two lines of the log."""

import resource
import sys
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch

from ssodkit.engine.distributed import Processes
from ssodkit.engine.update import Numbers, Outcome

T = TypeVar("T")


class Pace:
    """Adds up what steps report; the averages start afresh with every line."""

    def __init__(self, processes: Processes, clock: Callable[[], float] = time.perf_counter) -> None:
        self.processes, self._clock = processes, clock
        self._laps: deque[tuple[float, float]] = deque()
        """Seconds, and seconds of waiting for data, of updates whose numbers have not arrived."""
        self._mark = clock()
        self._waited = 0.0
        self._start_afresh()

    def watch(self, batches: Iterable[T]) -> Iterator[T]:
        """The same batches; how long each is waited for is noted."""
        asked = self._clock()
        for batch in batches:
            self._waited = self._clock() - asked
            yield batch
            asked = self._clock()

    def lap(self) -> None:
        """An update has just been made, or sent to the device."""
        now = self._clock()
        self._laps.append((now - self._mark, self._waited))
        self._mark = now

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What happens in here is no training: an evaluation, a checkpoint."""
        begin = self._clock()
        yield
        self._mark += self._clock() - begin

    def add(self, outcome: Outcome, numbers: Numbers) -> None:
        """Take note of the numbers of the oldest update that has none yet."""
        seconds, waited = self._laps.popleft()
        self._steps += 1
        self._seconds += seconds
        self._data_seconds += waited
        self._images += self.processes.count * sum(
            len(next(iter(stream.views.values())).image_ids)
            for batch in outcome.batches
            for stream in (batch.labeled, batch.unlabeled)
            if stream is not None
        )
        self._skipped += not numbers.is_updated
        for name, value in numbers.losses.items():
            self._losses[name].append(value)
        self._norms.append(numbers.gradient_norm)
        if numbers.pseudo_boxes is not None:
            self._pseudo_boxes.append(numbers.pseudo_boxes)
        self._learning_rate, self._loss_scale = outcome.learning_rate, numbers.loss_scale

    def line(self) -> str:
        """The averages so far, for the reader."""
        losses = {name: _mean(values) for name, values in self._losses.items()}
        streams: dict[str, float] = defaultdict(float)
        for name, value in losses.items():
            streams[name.split("/")[0]] += value
        parts = ", ".join(f"{stream} {value:.3f}" for stream, value in streams.items())
        line = f"loss {sum(losses.values()):.3f} ({parts})"
        return f"{line}  {_mean(self._pseudo_boxes):.2f} pseudo-boxes/image" if self._pseudo_boxes else line

    def speed(self) -> str:
        """How fast it went so far, for the reader."""
        return f"{self._images / self._seconds:.1f} images/s"

    def time_left(self, steps: int) -> timedelta:
        """What so many more steps will take, in whole seconds."""
        return timedelta(seconds=round(steps * self._seconds / self._steps))

    def take(self) -> dict[str, Any]:
        """The averages since the last call, for `metrics.jsonl`."""
        losses = {name: _mean(values) for name, values in self._losses.items()}
        numbers = {
            "loss": sum(losses.values()),
            "losses": losses,
            "lr": self._learning_rate,
            "gradient_norm": _mean(self._norms),
            "loss_scale": self._loss_scale,
            "skipped_steps": self._skipped,
            "pseudo_boxes_per_image": _mean(self._pseudo_boxes) if self._pseudo_boxes else None,
            "images_per_second": self._images / self._seconds,
            "step_seconds": self._seconds / self._steps,
            "data_seconds": self._data_seconds / self._steps,
            "memory_gb": peak_memory(self.processes.device) / 1e9,
        }
        self._start_afresh()
        return numbers

    def _start_afresh(self) -> None:
        self._steps = self._images = self._skipped = 0
        self._seconds = self._data_seconds = 0.0
        self._losses: dict[str, list[float]] = defaultdict(list)
        self._norms: list[float] = []
        self._pseudo_boxes: list[float] = []
        self._learning_rate = self._loss_scale = 0.0


def peak_memory(device: torch.device) -> int:
    """Bytes: the most that tensors took on a GPU, or that this process took of the host's memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _mean(values: list[float]) -> float:
    return sum(values) / max(1, len(values))

"""How a run goes: losses, speed and memory, averaged over the steps between two lines of the log."""

import resource
import sys
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch

from ssodkit.engine.distributed import Processes
from ssodkit.engine.update import Numbers, Outcome

T = TypeVar("T")


@dataclass
class Window:
    """What the steps since the last line reported, in plain numbers: a checkpoint holds it."""

    steps: int = 0
    images: int = 0
    skipped: int = 0
    seconds: float = 0.0
    """Of the steps themselves: a stop between two of them does not count."""
    data_seconds: float = 0.0
    losses: dict[str, list[float]] = field(default_factory=dict)
    norms: list[float] = field(default_factory=list)
    pseudo_boxes: list[float] = field(default_factory=list)
    learning_rate: float = 0.0
    loss_scale: float = 0.0


class Pace:
    """Adds up what steps report; the averages start afresh with every line."""

    def __init__(self, processes: Processes, clock: Callable[[], float] = time.perf_counter) -> None:
        self.processes, self._clock = processes, clock
        self._laps: deque[tuple[float, float]] = deque()
        """Seconds, and seconds of waiting for data, of updates whose numbers have not arrived."""
        self._mark = clock()
        self._waited = 0.0
        self._window = Window()

    def state_dict(self) -> dict[str, Any]:
        """What a restart needs; the numbers of all updates must have arrived."""
        assert not self._laps
        return asdict(self._window)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state: the next line averages over the steps before the stop, too."""
        self._window = Window(**state)

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
        window = self._window
        window.steps += 1
        window.seconds += seconds
        window.data_seconds += waited
        window.images += self.processes.count * sum(
            len(next(iter(stream.views.values())).image_ids)
            for batch in outcome.batches
            for stream in (batch.labeled, batch.unlabeled)
            if stream is not None
        )
        window.skipped += not numbers.is_updated
        for name, value in numbers.losses.items():
            window.losses.setdefault(name, []).append(value)
        window.norms.append(numbers.gradient_norm)
        if numbers.pseudo_boxes is not None:
            window.pseudo_boxes.append(numbers.pseudo_boxes)
        window.learning_rate, window.loss_scale = outcome.learning_rate, numbers.loss_scale

    def line(self) -> str:
        """The averages so far, for the reader."""
        losses = {name: _mean(values) for name, values in self._window.losses.items()}
        streams: dict[str, float] = defaultdict(float)
        for name, value in losses.items():
            streams[name.split("/")[0]] += value
        parts = ", ".join(f"{stream} {value:.3f}" for stream, value in streams.items())
        line = f"loss {sum(losses.values()):.3f} ({parts})"
        boxes = self._window.pseudo_boxes
        return f"{line}  {_mean(boxes):.2f} pseudo-boxes/image" if boxes else line

    def speed(self) -> str:
        """How fast it went so far, for the reader."""
        return f"{self._window.images / self._window.seconds:.1f} images/s"

    def time_left(self, steps: int) -> timedelta:
        """What so many more steps will take, in whole seconds."""
        return timedelta(seconds=round(steps * self._window.seconds / self._window.steps))

    def take(self) -> dict[str, Any]:
        """The averages since the last call, for `metrics.jsonl`."""
        window, self._window = self._window, Window()
        losses = {name: _mean(values) for name, values in window.losses.items()}
        return {
            "loss": sum(losses.values()),
            "losses": losses,
            "lr": window.learning_rate,
            "gradient_norm": _mean(window.norms),
            "loss_scale": window.loss_scale,
            "skipped_steps": window.skipped,
            "pseudo_boxes_per_image": _mean(window.pseudo_boxes) if window.pseudo_boxes else None,
            "images_per_second": window.images / window.seconds,
            "step_seconds": window.seconds / window.steps,
            "data_seconds": window.data_seconds / window.steps,
            "memory_gb": peak_memory(self.processes.device) / 1e9,
        }


def peak_memory(device: torch.device) -> int:
    """Bytes: the most that tensors took on a GPU, or that this process took of the host's memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _mean(values: list[float]) -> float:
    return sum(values) / max(1, len(values))

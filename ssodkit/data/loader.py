"""From image sets to the batches of training and evaluation, in this process or in workers.

An item of the training data is a step, not an image: what a step gets depends on its number alone, so that a resumed
run and any number of workers see the same batches.
"""

import multiprocessing.queues
import os
import resource
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from ssodkit.data.annotations import ImageSet
from ssodkit.data.batch_plan import BatchPlan
from ssodkit.data.broken import Skipped
from ssodkit.data.mosaic import Found, mosaic_batch
from ssodkit.data.pictures import Pictures, known_sizes
from ssodkit.data.raw import RawBatch
from ssodkit.data.sampler import StepSampler, StreamSampler
from ssodkit.data.sets import DataSets
from ssodkit.data.views import ViewMaker, ViewsConfig
from ssodkit.errors import DataError, SsodkitError, TrainingError
from ssodkit.ops.random import make_key
from ssodkit.structures.geometry import SemiBatch, Stream

FILES, FILES_PER_WORKER = 64, 64
"""That a process has open: by itself, and for each loader process, which hands over every tensor as an open file. Two
steps are under way in each, of a few dozen tensors."""


ATTEMPTS = 100
"""To find an image that can be used in the place of one that cannot; a run that allows so many to be broken ends."""
KEYS = {"labeled": "train", "unlabeled": "unlabeled"}
"""Stream -> its set, as recipes name it."""


def _always(step: int) -> bool:
    return True


def training_batches(
    sets: DataSets,
    views: ViewsConfig,
    plan: BatchPlan,
    seed: int,
    steps: range,
    rank: int = 0,
    device: torch.device | str = "cpu",
    workers: int = 0,
    uses_unlabeled: Callable[[int], bool] = _always,
    on_skipped: Callable[[Skipped], None] | None = None,
) -> Iterator[tuple[SemiBatch, ...]]:
    """For each of `steps`, what this process trains on: one batch for each of its forwards.

    On the CPU, views are made where images are decoded; else decoded pixels are sent to the device, and views made
    there. Where `uses_unlabeled(step)` is False, no unlabeled image is touched. An image that cannot be read raises
    DataError, also from workers; with `on_skipped`, it is told of each time that it is drawn, and another one takes its
    place, drawn from the seed, the step and the place.
    """
    source = _TrainingSteps(sets, views, plan, seed, rank, uses_unlabeled, skips=on_skipped is not None)
    for step in _load(source, steps, torch.device(device), workers):
        if on_skipped is not None:
            for skipped in step.skipped:
                on_skipped(skipped)
        yield step.batches


def batches_in_order(
    images: ImageSet,
    maker: ViewMaker,
    images_per_batch: int,
    rank: int = 0,
    world: int = 1,
    device: torch.device | str = "cpu",
    workers: int = 0,
) -> Iterator[Stream]:
    """Every image once over all processes, in order; the last batch of a process may be shorter.

    A process takes a contiguous share; where there are fewer images than processes, some take none.
    """
    first, last = rank * len(images) // world, (rank + 1) * len(images) // world
    places = [range(start, min(start + images_per_batch, last)) for start in range(first, last, images_per_batch)]
    return _load(_TestImages(images, maker, places), range(len(places)), torch.device(device), workers)


@dataclass(frozen=True)
class _RawStep:
    """The decoded images of each forward of a step: labeled, and unlabeled if the step uses them."""

    forwards: tuple[tuple[RawBatch, RawBatch | None], ...]
    skipped: tuple[Skipped, ...]

    def pin_memory(self) -> "_RawStep":
        return self._each(RawBatch.pin_memory)

    def to(self, device: torch.device | str) -> "_RawStep":
        return self._each(lambda raw: raw.to(device))

    def _each(self, change: Callable[[RawBatch], RawBatch]) -> "_RawStep":
        return replace(
            self,
            forwards=tuple(
                (change(labeled), None if other is None else change(other)) for labeled, other in self.forwards
            ),
        )


@dataclass(frozen=True)
class _Step:
    """What a process trains on in a step, and the images that it could not use."""

    batches: tuple[SemiBatch, ...]
    skipped: tuple[Skipped, ...]


R = TypeVar("R", _RawStep, RawBatch)
T = TypeVar("T")


class _Source(ABC, Generic[R, T]):
    """Items by number: first decoded, then made into views, which need not happen in the same process."""

    @abstractmethod
    def decode(self, number: int) -> R: ...

    @abstractmethod
    def finish(self, raw: R) -> T: ...


class _TrainingSteps(_Source[_RawStep, _Step]):
    """Item t is what one process trains on in step t."""

    def __init__(
        self,
        sets: DataSets,
        views: ViewsConfig,
        plan: BatchPlan,
        seed: int,
        rank: int,
        uses_unlabeled: Callable[[int], bool],
        skips: bool,
    ) -> None:
        self.plan, self.seed, self.rank, self.uses_unlabeled = plan, seed, rank, uses_unlabeled
        self.skips = skips
        unlabeled = sets.unlabeled if views.unlabeled and plan.batch.unlabeled else None
        self.labeled = Pictures(sets.labeled, patient=skips)
        self.unlabeled = None if unlabeled is None else Pictures(unlabeled, patient=skips)
        sizes = known_sizes if plan.batch.same_orientation else _annotated_sizes
        self.sampler = StepSampler(
            seed, plan.batch, sizes(sets.labeled), None if unlabeled is None else sizes(unlabeled)
        )
        self.mosaics, self.visible = {"labeled": views.labeled_mosaic}, views.minimum_visible
        self.labeled_views = views.maker(views.labeled)
        self.unlabeled_views = views.maker(views.unlabeled)

    def decode(self, number: int) -> _RawStep:
        rows = self.sampler.rows(number)
        unlabeled = self.unlabeled if self.uses_unlabeled(number) else None
        forwards: list[tuple[RawBatch, RawBatch | None]] = []
        skipped: list[Skipped] = []
        for share in self.plan.shares(rows, self.rank):
            labeled = self._batch(self.sampler.labeled, self.labeled, rows.labeled, share.labeled, number, skipped)
            other = None
            if unlabeled is not None and self.sampler.unlabeled is not None:
                stream = self.sampler.unlabeled
                other = self._batch(stream, unlabeled, rows.unlabeled, share.unlabeled, number, skipped)
            forwards.append((labeled, other))
        return _RawStep(tuple(forwards), tuple(skipped))

    def finish(self, raw: _RawStep) -> _Step:
        batches = tuple(
            SemiBatch(self.labeled_views.make(labeled), None if other is None else self.unlabeled_views.make(other))
            for labeled, other in raw.forwards
        )
        return _Step(batches, raw.skipped)

    def _batch(
        self,
        stream: StreamSampler,
        pictures: Pictures,
        rows: NDArray[np.int64],
        share: slice,
        step: int,
        skipped: list[Skipped],
    ) -> RawBatch:
        """One stream's images of a forward; `skipped` grows by those in whose place others are taken."""

        def read(row: int, instead: Callable[[int], int]) -> Found:
            attempt = 0
            while True:
                try:
                    return row, pictures.read(row)
                except DataError as error:
                    if not self.skips or attempt == ATTEMPTS:
                        raise
                    skipped.append(Skipped(KEYS[stream.stream], int(pictures.images.ids[row]), str(error)))
                row, attempt = instead(attempt), attempt + 1

        places = range(share.start, share.stop)
        found = [
            read(row, partial(stream.instead, step, place))
            for place, row in zip(places, rows[share].tolist(), strict=True)
        ]
        keys = [make_key(self.seed, step, stream.stream, place) for place in places]
        mosaic = self.mosaics.get(stream.stream)
        if mosaic is not None:
            return mosaic_batch(mosaic, pictures.images, found, keys, self.visible, read)
        return pictures.batch([row for row, _ in found], keys, [pixels for _, pixels in found])


class _TestImages(_Source[RawBatch, Stream]):
    """Item i is the i-th batch of images to evaluate."""

    def __init__(self, images: ImageSet, maker: ViewMaker, places: Sequence[range]) -> None:
        self.pictures, self.maker, self.places = Pictures(images, keep=False), maker, places

    def decode(self, number: int) -> RawBatch:
        places = self.places[number]
        return self.pictures.batch(places, [make_key("test", place) for place in places])

    def finish(self, raw: RawBatch) -> Stream:
        return self.maker.make(raw)


@dataclass(frozen=True)
class _Failure:
    """An error of the user's data on its way out of a worker; torch would wrap it in a stack trace."""

    error: SsodkitError


class _Items(Dataset[object], Generic[R, T]):
    """A source as torch's loader takes it."""

    def __init__(self, source: _Source[R, T], finished: bool) -> None:
        self.source: _Source[R, T] = source
        self.finished = finished

    def __getitem__(self, number: int) -> object:
        try:
            raw = self.source.decode(number)
            return self.source.finish(raw) if self.finished else raw
        except SsodkitError as error:
            return _Failure(error)


def _load(source: _Source[R, T], numbers: range, device: torch.device, workers: int) -> Iterator[T]:
    on_host = device.type == "cpu"
    if workers:
        _allow_open_files(FILES + workers * FILES_PER_WORKER)
    loader = DataLoader(
        _Items(source, finished=on_host),
        sampler=numbers,
        batch_size=None,
        collate_fn=_as_it_is,
        num_workers=workers,
        worker_init_fn=_prepare_worker,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),  # torch seeds its workers; without this it would draw from the global generator
    )
    for item in loader:
        if isinstance(item, _Failure):
            raise item.error
        yield item if on_host else source.finish(item.to(device))


def _as_it_is(item: T) -> T:
    return item


def _allow_open_files(wanted: int) -> None:
    """Raise the soft limit of open files that far. Raises TrainingError where the hard one is lower."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY != soft < wanted:
        if resource.RLIM_INFINITY != hard < wanted:
            raise TrainingError(
                f"loader processes need {wanted} open files, and `ulimit -n` allows {hard}. Raise it to {wanted}, or "
                "set engine.workers lower; with 0 there are none."
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _prepare_worker(worker: int) -> None:
    """The training process decides when to stop; a worker that dies of the same Ctrl-C would be an error of its own.

    What a worker has made and cannot hand over, because too many files are open, would be waited for for ever.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    multiprocessing.queues.Queue._on_queue_feeder_error = staticmethod(_end_worker)  # type: ignore[attr-defined]


def _end_worker(error: Exception, item: object) -> None:
    os._exit(1)


def _annotated_sizes(images: ImageSet) -> NDArray[np.int32]:
    return images.sizes

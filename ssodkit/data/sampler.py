"""Which images make step t: functions of (seed, step, place) alone, not of processes, workers or what came before.

Each stream (labeled, unlabeled) goes through its images in an endless sequence of shuffled epochs. Where images of
one step must share an orientation, landscape and portrait images have a sequence each, and every step draws whose
turn it is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from ssodkit.data.config import BatchConfig
from ssodkit.ops.random import integers, make_key, uniform

BLOCK = 4096
"""Steps whose draws are made together: to find step 180,000 takes 44 of these, not 180,000."""


@dataclass(frozen=True)
class StepRows:
    """The images of one step's global batch, as places in their sets, in the order of the batch."""

    labeled: NDArray[np.int64]
    unlabeled: NDArray[np.int64]
    labeled_per_group: NDArray[np.int64]
    """How many labeled images each group of slots holds; its other slots are unlabeled."""


class StepSampler:
    """Answers which images make a step, from the sizes (n, 2), height and width, of both streams' images.

    Sizes matter only where images of a step share an orientation. Raises ValueError for a stream without images.
    """

    def __init__(
        self, seed: int, batch: BatchConfig, labeled: NDArray[np.int32], unlabeled: NDArray[np.int32] | None = None
    ) -> None:
        self.seed, self.batch = seed, batch
        self.labeled = StreamSampler(seed, "labeled", self._pools(labeled), self._labeled_counts)
        self.unlabeled = (
            StreamSampler(seed, "unlabeled", self._pools(unlabeled), self._unlabeled_counts)
            if unlabeled is not None and batch.unlabeled
            else None
        )

    def rows(self, step: int) -> StepRows:
        """The images of a step."""
        return StepRows(
            labeled=self.labeled.rows(step),
            unlabeled=np.zeros(0, dtype=np.int64) if self.unlabeled is None else self.unlabeled.rows(step),
            labeled_per_group=labeled_per_group(self.seed, self.batch, step // BLOCK)[step % BLOCK],
        )

    def _pools(self, sizes: NDArray[np.int32]) -> tuple[NDArray[np.int64], ...]:
        if not self.batch.same_orientation:
            return (np.arange(len(sizes)),)
        portrait = sizes[:, 0] > sizes[:, 1]
        return np.flatnonzero(~portrait), np.flatnonzero(portrait)

    def _labeled_counts(self, block: int) -> NDArray[np.int64]:
        return labeled_per_group(self.seed, self.batch, block).sum(axis=1)

    def _unlabeled_counts(self, block: int) -> NDArray[np.int64]:
        return self.batch.slots - self._labeled_counts(block)


class StreamSampler:
    """The endless shuffled sequence of one stream: one sequence per pool of images, and one pool per step."""

    def __init__(
        self,
        seed: int,
        stream: str,
        pools: tuple[NDArray[np.int64], ...],
        counts: Callable[[int], NDArray[np.int64]],
    ) -> None:
        """`counts(block)` says how many images the stream takes in each step of a block."""
        if not sum(len(pool) for pool in pools):
            raise ValueError(f"the {stream} stream has no images to draw from")
        self.seed, self.stream, self.pools, self.counts = seed, stream, pools, counts
        self._before = [np.zeros(len(pools), dtype=np.int64)]
        """Images taken from each pool before each block; grows as later blocks are asked for."""

    def rows(self, step: int) -> NDArray[np.int64]:
        """The images of a step, as places in the stream's set."""
        block, place = divmod(step, BLOCK)
        while len(self._before) <= block:
            last = len(self._before) - 1
            self._before.append(self._before[last] + self._taken(last, BLOCK))
        pool = int(self._turns(block)[place])
        start = int(self._before[block][pool] + self._taken(block, place)[pool])
        return self._take(pool, start, int(self.counts(block)[place]))

    def instead(self, step: int, place: int, attempt: int) -> int:
        """An image to take where the one at a place of the step's global batch cannot be used: any of the same pool."""
        block, turn = divmod(step, BLOCK)
        pool = self.pools[int(self._turns(block)[turn])]
        key = _key(self.seed, step, self.stream, place, attempt)
        return int(pool[integers(key, (), 0, len(pool) - 1, "instead")[0]])

    def _turns(self, block: int) -> NDArray[np.int64]:
        """For each step of a block, whose turn it is; pools have their turns in proportion to their images."""
        share = len(self.pools[-1]) / sum(len(pool) for pool in self.pools) if len(self.pools) > 1 else 0.0
        return _second_turns(self.seed, self.stream, share, block)

    def _taken(self, block: int, steps: int) -> NDArray[np.int64]:
        """Images taken from each pool in the first steps of a block."""
        turns, counts = self._turns(block)[:steps], self.counts(block)[:steps]
        return np.array([counts[turns == pool].sum() for pool in range(len(self.pools))], dtype=np.int64)

    def _take(self, pool: int, start: int, count: int) -> NDArray[np.int64]:
        size = len(self.pools[pool])
        epochs, places = np.divmod(np.arange(start, start + count), size)
        chosen = np.empty(count, dtype=np.int64)
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            chosen[here] = shuffled(self.seed, f"{self.stream}/{pool}", epoch, size)[places[here]]
        return self.pools[pool][chosen]


@lru_cache(maxsize=8)
def shuffled(seed: int, stream: str, epoch: int, size: int) -> NDArray[np.int64]:
    """The order of `size` images in an epoch: keyed draws, sorted."""
    return torch.argsort(uniform(_key(seed, stream, epoch), (size,), "order")[0], stable=True).numpy()


@lru_cache(maxsize=8)
def labeled_per_group(seed: int, batch: BatchConfig, block: int) -> NDArray[np.int64]:
    """Labeled images (BLOCK, groups) in each step of a block.

    With a random composition, each slot of a group is labeled with the probability labeled / (labeled + unlabeled);
    a group without labeled images gets one in exchange, and one without unlabeled images likewise.
    Source: microsoft/SoftTeacher, its sampler with random composition; Xu et al., Soft Teacher, arXiv:2106.09018.
    """
    if batch.composition == "fixed":
        return np.full((BLOCK, 1), batch.labeled, dtype=np.int64)
    shape = (BLOCK, batch.slots // batch.group_slots, batch.group_slots)
    is_labeled = uniform(_key(seed, "composition", block), shape, "kind")[0] < batch.labeled / batch.slots
    return is_labeled.sum(dim=-1).clamp(1, batch.group_slots - 1).numpy()


@lru_cache(maxsize=8)
def _second_turns(seed: int, stream: str, share: float, block: int) -> NDArray[np.int64]:
    """1 for the steps of a block in which it is the second pool's turn, else 0."""
    return (uniform(_key(seed, stream, block), (BLOCK,), "orientation")[0] < share).long().numpy()


def _key(*parts: int | str) -> torch.Tensor:
    return torch.tensor([make_key(*parts)], dtype=torch.int64)

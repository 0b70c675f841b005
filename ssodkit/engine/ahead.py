"""The batches of one of several processes, which knows in time of what it cannot read, and stops with the others."""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from ssodkit.errors import SsodkitError

T = TypeVar("T")


class Ahead(Generic[T]):
    """Batches, of which `count` are fetched ahead of the one that is given.

    A process that meets an error alone would leave the others waiting within their step. One that knows of it `count`
    steps before asks for a stop with the numbers that the processes exchange anyway, and nobody waits more than before.
    """

    failure: SsodkitError | None = None
    """What ended the fetching; raised where the batch that it spoiled is asked for."""

    def __init__(self, batches: Iterable[T], count: int) -> None:
        self._batches, self._count = iter(batches), count
        self._fetched: deque[T] = deque()

    def begin(self) -> None:
        """Fetch the batches that no step comes before in which a stop could be asked for; raises what that raises."""
        self._fetch(self._count)
        self.refuse()

    def refuse(self) -> None:
        """Raise the failure, if there is one."""
        if self.failure is not None:
            raise self.failure

    def close(self) -> None:
        """Let go of the batches, whose loader processes end with them: an error on its way keeps this object alive."""
        self._batches = iter(())
        self._fetched.clear()

    def __iter__(self) -> Iterator[T]:
        while True:
            self._fetch(self._count + 1)
            if not self._fetched:
                self.refuse()
                return
            yield self._fetched.popleft()

    def _fetch(self, wanted: int) -> None:
        try:
            while self.failure is None and len(self._fetched) < wanted:
                self._fetched.append(next(self._batches))
        except StopIteration:
            return
        except SsodkitError as error:
            self.failure = error

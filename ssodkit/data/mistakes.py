"""What is wrong with data, collected while it is read: a user learns of all of it at once."""

import reprlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from ssodkit.errors import DataError

T = TypeVar("T")

FEW = 5
"""Examples of one kind of mistake that are shown."""

_short = reprlib.Repr()
_short.maxstring = _short.maxlong = _short.maxother = 60


class Mistakes:
    """The mistakes in one file or folder, by kind."""

    def __init__(self, where: object) -> None:
        self.where = where
        self._counts: dict[tuple[str, str], int] = {}
        self._examples: dict[tuple[str, str], list[str]] = {}

    def add(self, kind: str, cure: str, places: Sequence[T], show: Callable[[T], str] = str) -> None:
        """Take down one kind, such as "boxes without width", found at `places`; where there are none, nothing is."""
        if places:
            key = kind, cure
            self._counts[key] = self._counts.get(key, 0) + len(places)
            examples = self._examples.setdefault(key, [])
            examples += [show(place) for place in places[: FEW - len(examples)]]

    def __bool__(self) -> bool:
        return bool(self._counts)

    def refuse(self) -> None:
        """Raise one DataError that shows every kind with its count, its first examples and its cure, a line each.

        Without any mistake, do nothing.
        """
        lines = []
        for (kind, cure), count in self._counts.items():
            examples = self._examples[kind, cure]
            more = f" and {count - len(examples)} more" if count > len(examples) else ""
            total = f" ({count} in all)" if count > 1 else ""
            lines.append(f"{kind}{total}: {', '.join(examples)}{more}. {cure}")
        if len(lines) == 1:
            raise DataError(f"{self.where}: {lines[0]}")
        if lines:
            raise DataError(
                f"{self.where} has {len(lines)} kinds of mistakes:" + "".join(f"\n  {line}" for line in lines)
            )


class Refusals:
    """The DataErrors of blocks that need not one another: after a `with refusals:` that raises one, the next is run."""

    def __init__(self) -> None:
        self._texts: list[str] = []

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, DataError):
            self._texts.append(str(error))
        return isinstance(error, DataError)

    def refuse(self) -> None:
        """Raise one DataError that shows all of them; without any, do nothing."""
        if self._texts:
            raise DataError("\n".join(self._texts))


@contextmanager
def naming(key: str) -> Iterator[None]:
    """A DataError that is raised within begins with the key of the recipe that it is about."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{key}: {error}") from error


def listed(items: Iterable[T], show: Callable[[T], str] = str, at_most: int = 10) -> str:
    """The first few as `show` writes them, and how many more there are."""
    things = list(items)
    more = f" and {len(things) - at_most} more" if len(things) > at_most else ""
    return ", ".join(show(thing) for thing in things[:at_most]) + more


def shown(value: object) -> str:
    """A value that a user wrote, as Python writes it; long and deep ones are cut short."""
    return _short.repr(value)


def printable(text: str) -> str:
    """A text as logs take it: in Python, file names that are no UTF-8 have halves of surrogate pairs."""
    return text.encode("utf-8", "backslashreplace").decode()

from collections.abc import Iterator

import pytest

from ssodkit.engine.ahead import Ahead
from ssodkit.errors import DataError


def numbers(until: int, taken: list[int]) -> Iterator[int]:
    """From 0 on; `until` cannot be read."""
    for number in range(until):
        taken.append(number)
        yield number
    raise DataError(f"{until} cannot be read")


def test_ahead__gives_all_batches_in_order():
    assert list(Ahead(range(5), 2)) == [0, 1, 2, 3, 4]
    assert list(Ahead(range(1), 2)) == [0]
    assert list(Ahead((), 0)) == []


def test_ahead__knows_of_a_failure_so_many_batches_before():
    ahead, known = Ahead(numbers(4, []), 2), []
    ahead.begin()
    batches = iter(ahead)
    for _ in range(4):
        next(batches)
        known.append(ahead.failure is not None)
    assert known == [False, False, True, True]
    with pytest.raises(DataError, match="4 cannot be read"):
        next(batches)


def test_ahead__with_none_ahead_nothing_is_fetched_before_it_is_asked_for():
    taken: list[int] = []
    ahead = Ahead(numbers(2, taken), 0)
    ahead.begin()
    assert taken == []
    assert next(iter(ahead)) == 0
    assert taken == [0]


@pytest.mark.parametrize("until", [0, 1])
def test_ahead__what_comes_too_early_to_ask_for_a_stop_fails_at_the_beginning(until):
    with pytest.raises(DataError, match=f"{until} cannot be read"):
        Ahead(numbers(until, []), 2).begin()

"""How a test calls the command line in this process: see the fixture `call`."""

from collections.abc import Callable
from typing import NamedTuple


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


Call = Callable[..., Ended]
"""Arguments of `ssodkit` -> how it ended."""

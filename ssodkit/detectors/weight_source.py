"""What weights of a whole detector say about themselves, wherever they were found."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Source:
    """Weights of a detector, by the names and in the order that ours of the same layers has."""

    what: str
    """What they are of, for sentences."""
    tensors: Mapping[str, Tensor]
    count: int
    """Classes."""
    names: tuple[str, ...] | None
    """Of the classes; None where nothing says them."""
    fits: str
    """Which detector they are for, in words."""

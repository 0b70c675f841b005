"""What a training step returns: losses before their normalization, and a report for the watcher."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ssodkit.structures.predictions import Detections
from ssodkit.structures.records import Record
from ssodkit.structures.teaching import Supervision
from ssodkit.structures.views import View


@dataclass(frozen=True)
class Term:
    """A loss before its normalization: value = factor x sum / max(denominator over all processes, floor)."""

    sum: Tensor
    """0-d, with gradient; over this process's images."""
    denominator: Tensor
    """0-d, no gradient; over this process's images."""
    floor: float = 1.0
    factor: float = 1.0


@dataclass(frozen=True)
class Losses:
    """Loss terms by name; names read `unlabeled/roi/class`."""

    terms: Mapping[str, Term] = field(default_factory=dict)

    def named(self, prefix: str) -> "Losses":
        """The same terms, each name behind `prefix/`."""
        return Losses({f"{prefix}/{name}": term for name, term in self.terms.items()})

    def scaled(self, factors: Mapping[str, float]) -> "Losses":
        """Terms multiplied by the factors of their name and of all names above it: `roi` is above `roi/class`."""

        def factor(name: str) -> float:
            return math.prod((f for above, f in factors.items() if f"{name}/".startswith(f"{above}/")), start=1.0)

        return Losses({name: replace(term, factor=term.factor * factor(name)) for name, term in self.terms.items()})

    def __add__(self, other: "Losses") -> "Losses":
        return Losses({**self.terms, **other.terms})

    def __mul__(self, factor: float) -> "Losses":
        return Losses({name: replace(term, factor=term.factor * factor) for name, term in self.terms.items()})

    def __iter__(self) -> Iterator[str]:
        return iter(self.terms)

    def denominators(self) -> Tensor:
        """All denominators, in the order of the terms: what one all-reduce sums over the processes."""
        return torch.stack([term.denominator for term in self.terms.values()])

    def values(self, denominators: Tensor, processes: int = 1) -> dict[str, Tensor]:
        """Each term's value, given the `denominators` summed over processes.

        Multiplied by `processes`, because distributed training averages gradients over them.
        """
        return {
            name: term.factor * processes * term.sum / denominators[place].clamp(min=term.floor)
            for place, (name, term) in enumerate(self.terms.items())
        }


@dataclass(frozen=True)
class Selection(Record):
    """What a selector makes of detections, in their own frame."""

    supervision: Supervision
    """Row i of every target set comes from detection i."""
    passed: Mapping[str, Tensor]
    """One mask (batch, detections) per filter, for the health report; names like `classes`."""


@dataclass(frozen=True)
class Report(Record):
    """What a step tells the watcher, detached; nothing in the step reads it back."""

    found: Detections
    selection: Selection
    view: View
    """The frame of `found`, without pixels: image ids join it with hidden labels, outside the step."""


@dataclass(frozen=True)
class Step:
    """What one call of a method's `step` returns."""

    losses: Losses
    report: Report | None = None

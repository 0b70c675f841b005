"""What a training step returns: losses before their normalization, and a report for the watcher."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ssodkit.structures.predictions import Detections
from ssodkit.structures.records import Record
from ssodkit.structures.teaching import Supervision
from ssodkit.structures.views import View


@dataclass(frozen=True)
class RareFactor:
    """A factor that the global batch decides: `factor` if less than the share `below` of its images counts, else 1."""

    counted: Tensor
    """0-d; this process's images that count."""
    images: Tensor
    """0-d; all of this process's images."""
    below: float
    factor: float

    def value(self, counted: Tensor, images: Tensor) -> Tensor:
        """The factor, given both numbers summed over processes."""
        return torch.where(counted < self.below * images, self.factor, 1.0)


@dataclass(frozen=True)
class Term:
    """A loss before its normalization: value = factor x sum / max(denominator over all processes, floor)."""

    sum: Tensor
    """0-d, with gradient; over this process's images."""
    denominator: Tensor
    """0-d, no gradient; over this process's images."""
    floor: float = 1.0
    factor: float = 1.0
    rare: RareFactor | None = None
    """Multiplies the value, too, once it is known."""


@dataclass(frozen=True)
class Losses:
    """Loss terms by name; names read `unlabeled/roi/class`."""

    terms: Mapping[str, Term] = field(default_factory=dict)

    def named(self, prefix: str) -> "Losses":
        """The same terms, each name behind `prefix/`."""
        return Losses({f"{prefix}/{name}": term for name, term in self.terms.items()})

    def where_rare(self, rare: RareFactor) -> "Losses":
        """The same terms, multiplied by a factor that the global batch decides."""
        return Losses({name: replace(term, rare=rare) for name, term in self.terms.items()})

    def __add__(self, other: "Losses") -> "Losses":
        """The terms of both. Raises ValueError where a name is in both: one loss would be lost."""
        if twice := self.terms.keys() & other.terms.keys():
            raise ValueError(f"two losses have the name {sorted(twice)[0]}")
        return Losses({**self.terms, **other.terms})

    def __mul__(self, factor: float) -> "Losses":
        return Losses({name: replace(term, factor=term.factor * factor) for name, term in self.terms.items()})

    def __iter__(self) -> Iterator[str]:
        return iter(self.terms)

    def denominators(self) -> Tensor:
        """What one all-reduce sums over the processes: denominators in the order of the terms, then the two numbers
        of each factor that waits for them."""
        waiting = [number for rare in self._rare_factors() for number in (rare.counted, rare.images)]
        return torch.stack([*(term.denominator for term in self.terms.values()), *waiting])

    def values(self, denominators: Tensor, processes: int = 1) -> dict[str, Tensor]:
        """Each term's value, given the `denominators` summed over processes.

        Multiplied by `processes`, because distributed training averages gradients over them.
        """
        values = {
            name: term.factor * processes * term.sum / denominators[place].clamp(min=term.floor)
            for place, (name, term) in enumerate(self.terms.items())
        }
        for place, rare in enumerate(self._rare_factors()):
            factor = rare.value(*denominators[len(self.terms) + 2 * place :][:2])
            values |= {name: value * factor for name, value in values.items() if self.terms[name].rare is rare}
        return values

    def _rare_factors(self) -> list[RareFactor]:
        """Each once, in the order of the terms."""
        return list({id(term.rare): term.rare for term in self.terms.values() if term.rare is not None}.values())


@dataclass(frozen=True)
class Selection(Record):
    """What a selector makes of detections, in their own frame."""

    supervision: Supervision
    """Row i of every target set comes from detection i."""
    passed: Mapping[str, Tensor]
    """One mask (batch, detections) per filter, for the health report; names like `classes`."""
    numbers: Mapping[str, Tensor] = field(default_factory=dict)
    """Further numbers (batch, detections) for that report, such as the `threshold` that each had to pass."""


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

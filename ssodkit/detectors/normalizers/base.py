"""Normalizers: from losses per candidate to sums and the denominators that divide them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from jaxtyping import Float, Int64
from pydantic import model_serializer
from torch import Tensor

from ssodkit.plugins import PluginConfig
from ssodkit.structures.lessons import Lesson
from ssodkit.structures.predictions import Predictions
from ssodkit.structures.teaching import Assignment

Parts = Mapping[str, tuple[Tensor, Tensor]]
"""What follows the term's name, "" where a term is one sum -> sum and denominator, 0-d."""


class NormalizerConfig(PluginConfig, ABC):
    """What divides a term; the config is the function. A plain name in its place means the one of that type."""

    slot: ClassVar[str] = "normalizer"

    @abstractmethod
    def __call__(
        self,
        losses: Float[Tensor, "batch candidates"],
        weights: Float[Tensor, "batch candidates"],
        lesson: Lesson,
        answers: Predictions,
        quota: int,
    ) -> Parts:
        """A part's value is sum / max(denominator, floor), with denominators summed over all processes first.

        `weights` are what each loss counts in this term, 0 where it does not; `quota` is how many candidates per image
        the stage samples at most, 0 without a sampler.
        """

    def misfit(self, levels: int) -> str | None:
        """A sentence that says why it cannot serve a pyramid of so many levels; None if it can."""
        return None

    @classmethod
    def from_shorthand(cls, value: object) -> object:
        """A name is the normalizer of that type."""
        return {"type": value} if isinstance(value, str) else value

    @model_serializer(mode="wrap")
    def _short(self, whole: Callable[[Any], Any]) -> Any:
        """Its name where it has no other field, as recipes write it."""
        plain = whole(self)
        return plain["type"] if set(plain) == {"type"} else plain


def positives_or_one(assignment: Assignment) -> Int64[Tensor, "batch"]:
    """Positives of each image that were drawn, at least one."""
    return (assignment.positive & (assignment.weight > 0.0)).sum(dim=1).clamp(min=1)

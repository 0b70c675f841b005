"""Criteria: losses per candidate, not reduced, between what a stage answers and what its lesson says."""

from abc import ABC, abstractmethod
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from ssodkit.plugins import PluginConfig
from ssodkit.structures.lessons import Lesson
from ssodkit.structures.predictions import Predictions


class CriterionConfig(PluginConfig, ABC):
    """A loss per candidate; the config is the function, as it holds numbers only.

    It `teaches` one answer of the stage, such as `class` or `box`, and may need others, or a form of it (`sigmoid`).
    """

    slot: ClassVar[str] = "criterion"
    takes_soft_targets: ClassVar[bool] = False
    """Whether how strongly something should be said may be less than fully."""

    @property
    def teaches_background(self) -> bool:
        """Whether candidates without a target learn from it, too."""
        return False

    @property
    def needed(self) -> frozenset[str]:
        """Whatever else it needs, there must be an answer to teach."""
        return self.needs | {self.teaches}

    @abstractmethod
    def __call__(
        self, answers: Predictions, lesson: Lesson, strength: Float[Tensor, "batch candidates"]
    ) -> Float[Tensor, "batch candidates"]:
        """Losses, fp32 or finer; finite everywhere, but used of positives alone unless it `teaches_background`.

        `strength`, in [0, 1], is how strongly a label should be said: 1 for a hard one. Where a candidate is not
        positive, its own box and its target's are both the unit box, if the criterion needs `box`.
        """

    def counts(self, answers: Predictions, lesson: Lesson) -> Float[Tensor, "batch candidates"] | None:
        """A further factor of each candidate's weight, such as how many of its sides its loss is the mean over."""
        return None


class ClassCriterionConfig(CriterionConfig, ABC):
    """Compares class logits with what each candidate should say."""

    teaches: ClassVar[str] = "class"
    takes_soft_targets: ClassVar[bool] = True

    @property
    def teaches_background(self) -> bool:
        """True: it learns to say no class."""
        return True


class BoxCriterionConfig(CriterionConfig, ABC):
    """Compares predicted boxes with the boxes of the assigned targets."""

    teaches: ClassVar[str] = "box"

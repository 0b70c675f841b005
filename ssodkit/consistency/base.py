"""Consistencies: further losses that look at a whole step, beside what the detector's terms learn from targets."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from ssodkit.detectors.base import Detector, DetectorConfig
from ssodkit.plugins import BuildContext, PluginConfig
from ssodkit.schedules.base import LossWeight
from ssodkit.schedules.constant import ConstantConfig
from ssodkit.structures.geometry import SemiBatch
from ssodkit.structures.predictions import Answered, Seen
from ssodkit.structures.progress import Progress
from ssodkit.structures.run import Losses
from ssodkit.structures.teaching import Plan, Supervision
from ssodkit.teachers.base import Teacher


@dataclass(frozen=True)
class Scene:
    """What a step knows once the student has answered: all that a further loss may look at.

    What lies in the weak view (`seen`, `selected`) gets into the strong one and back by `carry`.
    """

    student: Detector
    batch: SemiBatch
    progress: Progress
    labeled: Answered
    """All labeled views as rows of one, and their labels."""
    unlabeled: Answered | None = None
    """The strong view; its supervision is what its terms learn from, pseudo-boxes or stored labels. None where the
    student looks at no unlabeled image in this step."""
    plan: Plan | None = None
    """Who learns from what in `unlabeled`; None where nobody learns from boxes there."""
    teacher: Teacher | None = None
    """None where no teacher teaches in this step."""
    seen: Seen | None = None
    """What it made of the weak view, its detections as the selector saw them; None where it made none."""
    selected: Supervision | None = None
    """The pseudo-boxes in the weak view; row i is the same box in `unlabeled.supervision`, and detection i."""


class ConsistencyConfig(PluginConfig, ABC):
    """What shall agree, and how much that counts."""

    slot: ClassVar[str] = "consistency"

    weight: LossWeight = ConstantConfig(value=1.0)
    """Multiplies all of its losses. In a step in which it is 0, nothing of it is computed."""

    def misfit(self, detector: DetectorConfig, pad_to: int) -> str | None:
        """A sentence that says why it cannot look at this detector, or at canvases whose sides are multiples of
        `pad_to`; None if it can."""
        return None

    @abstractmethod
    def build(self, context: BuildContext) -> "Consistency": ...


class Consistency(nn.Module, ABC):
    """Its parameters learn with the student's, and its state is in buffers."""

    @abstractmethod
    def forward(self, scene: Scene) -> Losses:
        """Its losses; in a step their names are the same whatever the images are."""

    def after_update(self, progress: Progress, ok: Tensor) -> None:
        """The place where its state changes, as in `Method.after_update`."""
        return None


class Consistencies(nn.Module):
    """Those of a method, each by its type."""

    def __init__(self, configs: Sequence[ConsistencyConfig], context: BuildContext) -> None:
        super().__init__()
        self.weights = {config.type: config.weight for config in configs}
        self.parts = nn.ModuleDict({config.type: config.build(context) for config in configs})

    def forward(self, losses: Losses, scene: Scene) -> Losses:
        """The losses of a step, and those of all consistencies, named `consistency/TYPE/...`.

        Whatever they look at in this step, their parameters are in the graph.
        """
        for name, part in self.parts.items():
            weight = self.weights[name].at(scene.progress)
            if weight != 0.0:
                losses += part(scene).named(f"consistency/{name}") * weight
        return _with(losses, [weight for weight in self.parameters() if weight.requires_grad])

    def after_update(self, progress: Progress, ok: Tensor) -> None:
        """Of each."""
        for part in self.parts.values():
            assert isinstance(part, Consistency)
            part.after_update(progress, ok)


def _with(losses: Losses, parameters: Sequence[nn.Parameter]) -> Losses:
    """The same losses, in whose graph are these parameters as well, with a gradient of 0 where there was none."""
    if not parameters:
        return losses
    (name, term), *_ = losses.terms.items()
    nothing = torch.stack([parameter.sum() for parameter in parameters]).sum() * 0.0
    return Losses({**losses.terms, name: replace(term, sum=term.sum + nothing)})

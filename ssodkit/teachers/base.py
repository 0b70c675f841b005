"""Teachers: networks that label what the student learns from."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from ssodkit.detectors.base import Detector
from ssodkit.plugins import BuildContext, PluginConfig
from ssodkit.structures.predictions import Candidates, Features, Predictions, Seen, Stages
from ssodkit.structures.progress import Progress
from ssodkit.structures.views import View


class TeacherConfig(PluginConfig, ABC):
    """How a teacher is made from the student."""

    slot: ClassVar[str] = "teacher"

    @property
    def scores(self) -> Mapping[str, Mapping[str, float]]:
        """What its detections are scored by beside their confidence -> answers of the stage, and their powers in it."""
        return {}

    @abstractmethod
    def build(self, student: Detector, context: BuildContext) -> "Teacher": ...


class Teacher(nn.Module, ABC):
    """Always in eval mode, never with gradient."""

    network: Detector

    @abstractmethod
    def answer(self, view: View) -> Stages:
        """Extract and predict: raw answers about each candidate."""

    @abstractmethod
    def look(self, view: View, progress: Progress | None = None) -> Seen:
        """Extract, predict and detect; `progress` as for `Detector.detect`."""

    @abstractmethod
    def score_regions(self, features: Features, regions: Candidates) -> Predictions:
        """The teacher's answer about any boxes of a view it has looked at."""

    @abstractmethod
    def after_update(self, student: Detector, progress: Progress, ok: Tensor) -> None:
        """Follow the student; `progress.step` counts the update just made, `ok` (0-d) says that it was finite."""

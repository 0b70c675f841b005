"""EMA teacher: the moving average of the student, which labels while both train.

Source: Tarvainen and Valpola, Mean Teacher, NeurIPS 2017, arXiv:1703.01780; the start as a running mean is that of
Xu et al., Soft Teacher, ICCV 2021, arXiv:2106.09018.
"""

import copy
from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from ssodkit.detectors.base import Detector
from ssodkit.detectors.fusion import unite
from ssodkit.detectors.rules import ProposalCount, Ranking, TermName
from ssodkit.nn.ema import move_average
from ssodkit.plugins import BuildContext, register
from ssodkit.schedules.base import Share
from ssodkit.schedules.running_mean import RunningMeanConfig
from ssodkit.structures.predictions import Candidates, Detections, Features, Predictions, Seen, Stages
from ssodkit.structures.progress import Progress
from ssodkit.structures.views import View
from ssodkit.teachers.base import Teacher, TeacherConfig


@register
class EmaTeacherConfig(TeacherConfig):
    """The moving average of the student's parameters and buffers."""

    type: Literal["ema"] = "ema"

    momentum: Share = RunningMeanConfig(cap=0.999)
    """The share of itself that the teacher keeps in an update, 0 to 1."""
    proposals: ProposalCount = "training"
    """Which of the detector's proposal counts it labels with, or how many of the best it keeps after suppression. Where
    its raw answers teach, these are the regions that the student is asked about, too (Humble Teacher: 640). A detector
    that does not propose has no such counts."""
    score: float | None = Field(None, ge=0.0, le=1.0)
    """Detections need a score above this; null: as in the detector's `test`."""
    nms: float | None = Field(None, gt=0.0, le=1.0)
    """Detections of a class that overlap a better one by more than this are dropped; null: as in that `test`."""
    rankings: dict[TermName, Ranking] = Field(default_factory=dict)
    """Instead of the detector's ranking, several by name, each with its own suppression: a score of this name is 0
    where a detection did not survive by it, and confidence is the best of them. Unbiased Teacher v2's FCOS has
    {plain: {class: 1.0}, certain: {class: 0.5, certainty: 0.5}}."""

    @field_validator("rankings")
    @classmethod
    def _confidence_is_another(cls, rankings: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
        if "confidence" in rankings:
            raise ValueError("`confidence` is the best of all rankings; give this one another name")
        return rankings

    @property
    def scores(self) -> Mapping[str, Mapping[str, float]]:
        """The rankings."""
        return self.rankings

    @property
    def key_needs(self) -> Mapping[str, str]:
        """The other proposal counts than those of training need proposals."""
        return {} if self.proposals == "training" else {"proposals": "proposals"}

    def build(self, student: Detector, context: BuildContext) -> "EmaTeacher":
        return EmaTeacher(self, student)


class EmaTeacher(Teacher):
    """Starts as a copy of the student and follows it after every update."""

    def __init__(self, config: EmaTeacherConfig, student: Detector) -> None:
        super().__init__()
        self.config = config
        self.network = copy.deepcopy(student).requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "EmaTeacher":
        """Stay in eval mode, whatever is asked of the method around it."""
        return super().train(False)

    @torch.no_grad()
    def answer(self, view: View) -> Stages:
        """What it answers about a view."""
        return self.network.predict(self.network.extract(view), proposals=self.config.proposals)

    @torch.no_grad()
    def look(self, view: View, progress: Progress | None = None) -> Seen:
        """What it sees, with detections in the frame of `view`."""
        features = self.network.extract(view)
        stages = self.network.predict(features, proposals=self.config.proposals)
        return Seen(features, stages, self._detect(stages, progress))

    def _detect(self, stages: Stages, progress: Progress | None) -> Detections:
        score, nms, rankings = self.config.score, self.config.nms, self.config.rankings
        if not rankings:
            return self.network.detect(stages, score, progress=progress, nms=nms)
        return unite({name: self.network.detect(stages, score, rank, progress, nms) for name, rank in rankings.items()})

    @torch.no_grad()
    def score_regions(self, features: Features, regions: Candidates) -> Predictions:
        """Its answer about any boxes of a view it has looked at."""
        return self.network.score_regions(features, regions)

    def after_update(self, student: Detector, progress: Progress, ok: Tensor) -> None:
        """Average the student in, with the momentum of `progress.step` = k finished updates.

        Soft Teacher updates its teacher before every training step t, with m_t and the student's state S_t. S_t is the
        state after t updates, so the update before step t is the one after update number k = t; the one before step 0
        copies S_0 (m_0 = 0), as the constructor does. Student and teacher of every step are the same.
        """
        move_average(self.network, student, self.config.momentum.at(progress), ok)

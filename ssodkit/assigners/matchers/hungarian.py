"""Hungarian: each target takes one candidate, so that class, place and overlap of all pairs together cost least.

Source: Carion et al., DETR, ECCV 2020, arXiv:2005.12872, equation 1; the class cost is that of Zhu et al., Deformable
DETR, ICLR 2021, arXiv:2010.04159, and DINO, ICLR 2023, arXiv:2203.03605.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from ssodkit.assigners.matchers.answers import Answers, compare
from ssodkit.assigners.matchers.base import Matcher, MatcherConfig, Question
from ssodkit.ops.assignment import least_cost
from ssodkit.ops.boxes import at_least_fp32, generalized_iou, pairwise_iou
from ssodkit.ops.rows import class_columns
from ssodkit.plugins import BuildContext, Config, register
from ssodkit.structures.predictions import Predictions
from ssodkit.structures.progress import Progress
from ssodkit.structures.teaching import Assignment, Targets

EPSILON = 1e-8
"""Added to probabilities before their logarithm, as the published code does."""


class PairCost(Config):
    """A pair costs `class_cost` x focal difference + `l1_cost` x L1 of box codes - `giou_cost` x GIoU."""

    class_cost: float = Field(2.0, ge=0.0, le=1000.0)
    """Times what the target's class would lose by the focal loss, less what all others would gain."""
    l1_cost: float = Field(5.0, ge=0.0, le=1000.0)
    """Times the differences between answered and wanted box codes, summed: of queries in image sides."""
    giou_cost: float = Field(2.0, ge=0.0, le=1000.0)
    balance: float = Field(0.25, ge=0.0, le=1.0)
    """The focal loss's alpha."""
    focus: float = Field(2.0, ge=0.0, le=100.0)
    """Its gamma."""


@register
class HungarianConfig(PairCost, MatcherConfig):
    """All pairs together cost least."""

    type: Literal["hungarian"] = "hungarian"
    needs: ClassVar[frozenset[str]] = frozenset({"predictions", "sigmoid"})

    def build(self, context: BuildContext) -> "Hungarian":
        return Hungarian(self)


class Hungarian(Matcher):
    """Quality is the IoU of a positive's answer with its target, and of a background candidate its best."""

    asks_host: ClassVar[bool] = True

    def __init__(self, config: HungarianConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, predictions: Predictions, targets: Targets, progress: Progress) -> Assignment:
        (answer,) = self.answer([Question(self, predictions, targets)], progress)
        return answer

    @staticmethod
    @torch.no_grad()
    def answer(questions: Sequence[Question], progress: Progress) -> list[Assignment]:
        """All questions are solved in one copy to the host."""
        compared = [compare(asked.predictions, asked.targets) for asked in questions]
        costs = [_costs(asked, answers) for asked, answers in zip(questions, compared, strict=True)]
        possible = [answers.valid[..., None] & answers.taught[:, None] for answers in compared]
        found = least_cost(costs, possible)
        assignments = []
        for target, answers in zip(found, compared, strict=True):
            best = pairwise_iou(answers.goals, answers.boxes).amax(dim=1)
            quality = torch.where(target < 0, best, answers.own_iou(target))
            assignments.append(Assignment.matched(target, quality, answers.valid))
        return assignments


@torch.no_grad()
def costs_of_targets(config: PairCost, predictions: Predictions, targets: Targets) -> Float[Tensor, "batch targets"]:
    """What each target's own candidate costs, where all pairs together cost least; infinite for a target without one.

    The host is waited for once.
    """
    answers = compare(predictions, targets)
    costs = pair_costs(config, predictions, answers)
    (found,) = least_cost([costs], [answers.valid[..., None] & answers.taught[:, None]])
    is_own = found[..., None] == torch.arange(costs.shape[2], device=costs.device)
    return costs.masked_fill(~is_own, torch.inf).amin(dim=1)


def pair_costs(
    config: PairCost, predictions: Predictions, answers: Answers
) -> Float[Tensor, "batch candidates targets"]:
    """What each pair would cost; any number where it is not possible."""
    prob = class_columns(answers.probs, answers.labels).transpose(1, 2)
    gain = (1.0 - config.balance) * prob.pow(config.focus) * (1.0 - prob + EPSILON).log()
    named = gain - config.balance * (1.0 - prob).pow(config.focus) * (prob + EPSILON).log()
    shape = (*prob.shape, 4)
    goals = answers.goals[:, None].expand(shape)
    own = at_least_fp32(predictions.candidates.boxes)[:, :, None].expand(shape)
    wanted = predictions.coder.encode(own, goals.to(own.dtype))
    moved = (at_least_fp32(predictions.codes_of())[:, :, None] - wanted).abs().sum(dim=-1)
    overlap = generalized_iou(answers.boxes[:, :, None].expand(shape), goals)
    return config.class_cost * named + config.l1_cost * moved - config.giou_cost * overlap


def _costs(asked: Question, answers: Answers) -> Float[Tensor, "batch candidates targets"]:
    assert isinstance(asked.matcher, Hungarian)
    return pair_costs(asked.matcher.config, asked.predictions, answers)

"""Answers and lessons for criteria and normalizers, as plain values."""

import torch

from ssodkit.detectors.normalizers.base import Parts
from ssodkit.ops.coding import BoxCoder
from ssodkit.plugins import load_plugins, members
from ssodkit.structures.lessons import Lesson, TargetLesson
from ssodkit.structures.predictions import Candidates, Predictions
from ssodkit.structures.teaching import BACKGROUND, Assignment, Targets

CODER = BoxCoder(center_std=0.1, side_std=0.2)


def answers_of(
    logits: torch.Tensor,
    activation: str = "sigmoid",
    boxes: torch.Tensor | None = None,
    codes: torch.Tensor | None = None,
) -> Predictions:
    """Class logits (batch, candidates, columns) about `boxes`, whose `codes` are 0 unless they are given."""
    boxes = logits.new_zeros(*logits.shape[:2], 4) if boxes is None else boxes
    candidates = Candidates(boxes, torch.ones(boxes.shape[:2], dtype=torch.bool))
    codes = torch.zeros_like(boxes)[:, :, None] if codes is None else codes
    return Predictions(candidates, logits, activation, codes, CODER)


def lesson_of(labels: torch.Tensor, num_classes: int, boxes: torch.Tensor | None = None) -> Lesson:
    """Each candidate has a target of its own, with its label and box; background where the label is num_classes."""
    count = labels.shape[1]
    boxes = torch.zeros(*labels.shape, 4) if boxes is None else boxes
    index = torch.arange(count).expand_as(labels).masked_fill(labels >= num_classes, BACKGROUND)
    rows = max(count, 1)
    targets = Targets.empty(len(labels), length=rows)
    if count:
        ones = torch.ones(labels.shape, dtype=torch.bool)
        targets = Targets(boxes, labels.clamp(max=num_classes - 1), ones, ones.to(boxes.dtype), ~ones)
    return TargetLesson(assigned(index, torch.zeros(index.shape, dtype=boxes.dtype)), num_classes, targets)


def normalize(name: str, losses: torch.Tensor, weights: torch.Tensor, assignment: Assignment, quota: int = 0) -> Parts:
    """What the normalizer of this name makes of losses per candidate."""
    load_plugins()
    normalizer = members("normalizer")[name].model_validate({"type": name})
    lesson = TargetLesson(assignment, 1, Targets.empty(len(losses), length=1))
    return normalizer(losses, weights, lesson, answers_of(torch.zeros(*losses.shape, 1)), quota)


def assigned(index: torch.Tensor, quality: torch.Tensor, weight: torch.Tensor | None = None) -> Assignment:
    """Who learns from which target, of weight 1; nothing is counted as sampled."""
    weight = torch.ones_like(quality) if weight is None else weight
    return Assignment(index, weight, quality, quality.new_zeros(len(quality)))

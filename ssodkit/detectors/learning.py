"""Learning, written once for all detectors: one forward of several views, who learns from what, and the losses."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import pad

from ssodkit.assigners.matchers.base import Question
from ssodkit.detectors.base import Detector
from ssodkit.detectors.rules import TermChange, TermRule, changes_of
from ssodkit.detectors.sampling import match, sample, taught_sets
from ssodkit.ops.boxes import at_least_fp32
from ssodkit.plugins import Joined
from ssodkit.structures.lessons import AnswerLesson, Lesson, TargetLesson
from ssodkit.structures.predictions import Answered, Predictions, Stages, stage_of
from ssodkit.structures.progress import Progress
from ssodkit.structures.records import join, map_tensors
from ssodkit.structures.run import Losses, Term
from ssodkit.structures.teaching import Assignment, Plan, Supervision, Targets
from ssodkit.structures.views import View

WORTHWHILE = 1.1
"""Views are joined where their common canvas has at most this many times their pixels."""


def predict_together(
    detector: Detector, views: Sequence[View], supervisions: Sequence[Supervision], joined: Joined = "auto"
) -> list[Answered]:
    """What the student says about each view, with the training proposals: in one forward where that pays, else in turn.

    The answers are the same either way where no batch statistics are trained and canvases are equal.
    """
    if len(views) == 1 or joined == "never" or (joined == "auto" and _growth(views) > WORTHWHILE):
        return [_answer(detector, view, taught) for view, taught in zip(views, supervisions, strict=True)]
    bare = [supervision.map(lambda targets: replace(targets, extra={})) for supervision in supervisions]
    together = _answer(detector, join(list(views)), join(bare))
    ends = accumulate(len(view.keys) for view in views)
    parts = [together[end - len(view.keys) : end] for view, end in zip(views, ends, strict=True)]
    return [replace(part, supervision=taught) for part, taught in zip(parts, supervisions, strict=True)]


@torch.no_grad()
def assign(detector: Detector, stages: Stages, supervision: Supervision) -> Plan:
    """Who learns from what, per stage and term: matched and sampled once per distinct set of targets, all together.

    The plan of a stage that had one before it could predict is taken over.
    """
    progress = supervision.progress
    questions: list[Question] = []
    asked_by: list[str] = []
    answered_at: dict[str, dict[str, int]] = {}  # name in `stages` -> term -> place in `questions`
    for name, predictions in stages.by_name.items():
        if predictions.plan is not None:
            continue
        rule = detector.rule(name, progress)
        if rule.crossing == "ignore":
            predictions = _without_crossing(predictions, stages.view.sizes)
        done: dict[int, int] = {}
        for term, targets in taught_sets(rule, supervision).items():
            if id(targets) not in done:
                done[id(targets)] = len(questions)
                questions.append(Question(detector.matcher(name, progress), predictions, targets))
                asked_by.append(name)
            answered_at.setdefault(name, {})[term] = done[id(targets)]
    drawn = [
        sample(matched, detector.rule(name, progress).sampler, stages.view.keys, name)
        for name, matched in zip(asked_by, match(questions, progress), strict=True)
    ]
    plan = {name: dict(predictions.plan or {}) for name, predictions in stages.by_name.items()}
    for name, places in answered_at.items():
        plan[name] = {term: drawn[place] for term, place in places.items()}
    return plan


def loss(
    detector: Detector,
    stages: Stages,
    plan: Plan,
    supervision: Supervision,
    changes: Mapping[str, TermChange] = {},
) -> Losses:
    """The terms of all stages, named `stage/term`; each is 0 with a gradient, not None, where nothing learns.

    `changes` are laid on the rules of the terms that their keys name, see `changes_of`.
    """
    lessons = {
        name: {
            term: TargetLesson(plan[name][term], predictions.num_classes, _at_least_one(targets))
            for term, targets in taught_sets(detector.rule(name, supervision.progress), supervision).items()
        }
        for name, predictions in stages.by_name.items()
    }
    return _learn(detector, stages, lessons, supervision.progress, changes)


def agree(
    detector: Detector,
    stages: Stages,
    theirs: Stages,
    plan: Mapping[str, Assignment],
    progress: Progress,
    changes: Mapping[str, TermChange] = {},
) -> Losses:
    """The terms of all stages, taught by what another network answered about the same candidates.

    `plan` says for each stage who learns: positives what `theirs` say, background to say nothing. No gradient goes to
    `theirs`; names and `changes` are as in `loss`.
    """
    others = theirs.detach()
    lessons = {
        name: dict.fromkeys(
            detector.rule(name, progress).terms,
            AnswerLesson(plan[name], predictions.num_classes, others.by_name[name]),
        )
        for name, predictions in stages.by_name.items()
    }
    return _learn(detector, stages, lessons, progress, changes)


def _answer(detector: Detector, view: View, supervision: Supervision) -> Answered:
    features = detector.extract(view)
    return Answered(view, features, detector.predict(features, supervision, proposals="training"), supervision)


def _learn(
    detector: Detector,
    stages: Stages,
    lessons: Mapping[str, Mapping[str, Lesson]],
    progress: Progress,
    changes: Mapping[str, TermChange],
) -> Losses:
    """Name in `stages` and term -> its lesson: the losses between what was answered and what should have been."""
    terms: dict[str, Term] = {}
    for name, predictions in stages.by_name.items():
        rule = detector.rule(name, progress)
        quota = rule.sampler.per_image if rule.sampler is not None else 0
        for term, term_rule in rule.terms.items():
            factor = detector.stage_rules[stage_of(name)].weight(term, progress)
            for change in changes_of(changes, stage_of(name), term, term_rule.criterion.teaches):
                term_rule, factor = term_rule.changed(change), factor * change.weight.at(progress)
            lesson = lessons[name][term]
            losses, weights = _losses_and_weights(predictions, lesson, term_rule)
            parts = term_rule.normalizer(losses, weights, lesson, predictions, quota)
            for part, (total, denominator) in parts.items():
                terms[f"{name}/{term}{part}"] = Term(total, denominator, term_rule.floor, factor)
    return Losses(terms)


def _without_crossing(predictions: Predictions, sizes: Int64[Tensor, "batch 2"]) -> Predictions:
    """The same answers; candidates that reach beyond their image, of these heights and widths, are not valid."""
    candidates = predictions.candidates
    inside = (candidates.boxes[..., :2] >= 0.0) & (candidates.boxes[..., 2:] <= sizes.flip(-1)[:, None])
    return replace(predictions, candidates=replace(candidates, valid=candidates.valid & inside.all(dim=-1)))


def _growth(views: Sequence[View]) -> float:
    """Pixels of the common canvas, over all rows, per pixel of the views' own canvases."""
    height, width = (max(view.pixels.shape[axis] for view in views) for axis in (2, 3))
    own = sum(len(view.pixels) * view.pixels.shape[2] * view.pixels.shape[3] for view in views)
    return height * width * sum(len(view.pixels) for view in views) / max(own, 1)


def _at_least_one(targets: Targets) -> Targets:
    """Targets with a row to gather from, even where no image has any."""
    if targets.boxes.shape[1]:
        return targets
    one = map_tensors(targets, lambda part: part.new_zeros(len(part), 1, *part.shape[2:]))
    return replace(one, all_teach=False)


def _losses_and_weights(
    predictions: Predictions, lesson: Lesson, term: TermRule
) -> tuple[Float[Tensor, "batch candidates"], Float[Tensor, "batch candidates"]]:
    """What each candidate loses, and how much that counts in this term."""
    assignment, criterion = lesson.assignment, term.criterion
    positive = learns = assignment.positive
    strength = torch.ones_like(assignment.quality)
    if term.quality == "target":
        strength = torch.where(positive, assignment.quality, strength)
    answers = _unit_where_not(positive, predictions) if "box" in criterion.needed else predictions
    losses = criterion(answers, lesson, strength)
    if criterion.teaches_background:
        learns = learns | assignment.background
    weight = assignment.weight * learns
    counts = criterion.counts(answers, lesson)
    if counts is not None:
        weight = weight * counts
    if term.quality == "weight":
        weight = torch.where(positive, weight * assignment.quality, weight)
    return losses, weight.to(losses.dtype)


def _unit_where_not(positive: Bool[Tensor, "batch candidates"], predictions: Predictions) -> Predictions:
    """The same answers, of candidates that are the unit box where they are not positive: the lesson's code of it, which
    is the unit box there as well, is finite."""
    boxes = at_least_fp32(predictions.candidates.boxes)
    own = torch.where(positive[..., None], boxes, pad(boxes.new_ones(2), (2, 0)))
    return replace(predictions, candidates=replace(predictions.candidates, boxes=own))

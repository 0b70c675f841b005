"""From matches to what a stage learns: ignored candidates, and the random sample, drawn from the views' keys."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ssodkit.assigners.matchers.base import Matcher, Question, ask
from ssodkit.detectors.rules import Sampler, StageRule
from ssodkit.ops.boxes import at_least_fp32, has_area
from ssodkit.ops.coding import BoxCoder
from ssodkit.ops.matching import best_coverage
from ssodkit.ops.random import uniform
from ssodkit.ops.rows import first_rows, take_rows
from ssodkit.structures.predictions import Candidates, Predictions
from ssodkit.structures.progress import Progress
from ssodkit.structures.teaching import IGNORE, Assignment, Supervision, Targets

CROWD_COVERAGE = 0.5
"""A background candidate with at least this share of its area in a crowd is ignored."""


def taught_sets(rule: StageRule, supervision: Supervision) -> Mapping[str, Targets]:
    """Term -> the target set that teaches it; all of one class where the stage knows one."""
    sets = {name: getattr(supervision, name) for name in ("objectness", "classes", "boxes")}
    if rule.one_class:
        alike: dict[int, Targets] = {}
        for targets in sets.values():
            alike.setdefault(id(targets), replace(targets, labels=torch.zeros_like(targets.labels)))
        sets = {name: alike[id(targets)] for name, targets in sets.items()}
    return {term: sets[part.taught_by] for term, part in rule.terms.items()}


@torch.no_grad()
def match(questions: Sequence[Question], progress: Progress) -> list[Assignment]:
    """What every candidate could learn from, for each question; a positive's weight is its target's.

    Targets of weight above 0 are matched first. A candidate left as background is ignored if the same matcher would
    have given it to a target of weight 0, or if half of its area lies in a crowd.
    """
    doubtful = [place for place, asked in enumerate(questions) if not asked.targets.all_teach]
    teaching = list(questions)
    for place in doubtful:
        teaching[place] = _about(questions[place], questions[place].targets.weight > 0.0)
    others = [_about(questions[place], questions[place].targets.weight <= 0.0) for place in doubtful]
    answers = ask([*teaching, *others], progress)
    matched = answers[: len(questions)]
    for place, undecided in zip(doubtful, answers[len(questions) :], strict=True):
        matched[place] = _ignoring(matched[place], undecided, questions[place])
    return [_weighted(assignment, asked.targets) for assignment, asked in zip(matched, questions, strict=True)]


def _about(asked: Question, these: Bool[Tensor, "batch targets"]) -> Question:
    """The same question about some of its targets, crowds excepted."""
    return replace(asked, targets=asked.targets.where(these & ~asked.targets.crowd))


def _ignoring(assignment: Assignment, undecided: Assignment, asked: Question) -> Assignment:
    """The same assignment; background that `undecided` takes, or a crowd holds, is ignored."""
    predictions, targets = asked.predictions, asked.targets
    boxes = at_least_fp32(predictions.candidates.boxes) if predictions.candidates.lie else predictions.decode()
    crowded = best_coverage(boxes, targets.boxes, targets.valid & targets.crowd) >= CROWD_COVERAGE
    index = torch.where(assignment.background & (undecided.positive | crowded), IGNORE, assignment.index)
    return replace(assignment, index=index)


def _weighted(assignment: Assignment, targets: Targets) -> Assignment:
    """The same assignment with the weights of its targets."""
    if not targets.boxes.shape[1]:
        return assignment
    own = targets.weight.gather(1, assignment.index.clamp(min=0)).to(assignment.weight.dtype)
    return replace(assignment, weight=torch.where(assignment.positive, own, assignment.weight))


@torch.no_grad()
def sample(assignment: Assignment, sampler: Sampler | None, keys: Int64[Tensor, "batch"], purpose: str) -> Assignment:
    """The same assignment with weight 0 for candidates that were not drawn, and with the draws counted.

    Drawn are the positives with the largest random numbers, at most the sampler's share, and as many of the background
    candidates as are missing. Without a sampler all positives and background candidates are drawn.
    """
    if sampler is None:
        drawn = assignment.positive | assignment.background
    else:
        draws = uniform(keys, (assignment.index.shape[1],), purpose)
        positive = _largest(draws, assignment.positive, torch.full_like(keys, sampler.positives), sampler.positives)
        room = sampler.per_image - positive.sum(dim=1)
        drawn = positive | _largest(draws, assignment.background, room, sampler.per_image)
    weight = assignment.weight * drawn
    return replace(assignment, weight=weight, sampled=drawn.sum(dim=1).to(weight.dtype))


@torch.no_grad()
def sample_regions(
    proposals: Candidates,
    rule: StageRule,
    matcher: Matcher,
    supervision: Supervision,
    keys: Int64[Tensor, "batch"],
    append_targets: bool = True,
) -> tuple[Candidates, Mapping[str, Assignment]]:
    """The regions that the box head is asked about in training, and what its terms learn from them.

    Drawn for the set that teaches classes; where another set teaches other terms, such as boxes, the positives of a
    further draw join in, and count in these terms alone. All draws use the same random numbers, so that a proposal
    drawn twice is asked once, and equal sets make equal samples. Regions that were not drawn are not valid.
    """
    taught = taught_sets(rule, supervision)
    of_classes = next(taught[name] for name, term in rule.terms.items() if term.criterion.teaches == "class")
    others = {id(targets): targets for targets in taught.values() if targets is not of_classes}

    def draw(targets: Targets) -> tuple[Candidates, Assignment]:
        pool = _append(proposals, targets) if append_targets else proposals
        (matched,) = match([Question(matcher, _unanswered(pool), targets)], supervision.progress)
        if append_targets:
            matched = _with_own_targets(matched, pool, targets)
        return pool, sample(matched, rule.sampler, keys, "regions")

    pool, drawn = draw(of_classes)
    if not others:
        return _compact(pool, dict.fromkeys(taught, drawn), rule.sampler)

    # One row of all: the proposals, then the boxes appended for each set.
    shared, length = proposals.boxes.shape[1], pool.boxes.shape[1]
    places = torch.arange(length, device=keys.device)
    boxes, valid, parts = [pool.boxes], [pool.valid], {id(of_classes): (drawn, places)}
    for key, targets in others.items():
        pool, drawn = draw(targets)
        own = torch.arange(length, length + pool.boxes.shape[1] - shared, device=keys.device)
        parts[key] = (_positives(drawn), torch.cat([places[:shared], own]))
        boxes.append(pool.boxes[:, shared:])
        valid.append(pool.valid[:, shared:])
        length += len(own)
    spread = {key: _spread(drawn, own, length) for key, (drawn, own) in parts.items()}
    plan = {term: spread[id(targets)] for term, targets in taught.items()}
    return _compact(Candidates(torch.cat(boxes, dim=1), torch.cat(valid, dim=1)), plan, rule.sampler)


def _largest(
    draws: Float[Tensor, "batch candidates"],
    eligible: Bool[Tensor, "batch candidates"],
    count: Int64[Tensor, "batch"],
    at_most: int,
) -> Bool[Tensor, "batch candidates"]:
    """The `count` eligible candidates of each image with the largest draws; no count is above `at_most`."""
    best, index = draws.masked_fill(~eligible, -1.0).topk(min(at_most, draws.shape[1]), dim=1)
    rank = torch.arange(index.shape[1], device=index.device)
    return torch.zeros_like(eligible).scatter(1, index, (best >= 0.0) & (rank < count[:, None]))


def _append(proposals: Candidates, targets: Targets) -> Candidates:
    """The proposals, followed by the boxes of the targets that teach and have an area."""
    teaches = targets.valid & (targets.weight > 0.0) & ~targets.crowd & has_area(targets.boxes)
    boxes = targets.boxes.to(proposals.boxes.dtype)
    return Candidates(torch.cat([proposals.boxes, boxes], dim=1), torch.cat([proposals.valid, teaches], dim=1))


def _with_own_targets(matched: Assignment, pool: Candidates, targets: Targets) -> Assignment:
    """The same assignment of a pool in which each appended box learns from the target that it is.

    A matcher gives equal boxes to the first of their targets, whatever their classes. Source: open-mmlab/mmdetection;
    torchvision leaves it to the matcher.
    """
    count = targets.boxes.shape[1]
    proposed = pool.boxes.shape[1] - count
    itself = torch.arange(count, device=pool.boxes.device).expand(len(pool.boxes), count)
    index = itself.masked_fill(~pool.valid[:, proposed:], IGNORE)
    weight = targets.weight.to(matched.weight.dtype)
    return replace(
        matched,
        index=torch.cat([matched.index[:, :proposed], index], dim=1),
        weight=torch.cat([matched.weight[:, :proposed], weight], dim=1),
        quality=torch.cat([matched.quality[:, :proposed], torch.ones_like(weight)], dim=1),
    )


def _unanswered(candidates: Candidates) -> Predictions:
    """Candidates about which nothing is predicted yet: all that a matcher may read before the box head ran."""
    nothing = candidates.boxes[..., :0]
    return Predictions(candidates, nothing, "sigmoid", candidates.boxes[:, :, None][:, :, :0], BoxCoder())


def _positives(assignment: Assignment) -> Assignment:
    """The drawn positives alone; `sampled` still counts all draws."""
    keeps = assignment.positive & (assignment.weight > 0.0)
    return replace(
        assignment,
        index=assignment.index.masked_fill(~keeps, IGNORE),
        weight=assignment.weight.masked_fill(~keeps, 0.0),
    )


def _spread(assignment: Assignment, places: Int64[Tensor, "candidates"], length: int) -> Assignment:
    """The same assignment for a row of `length` candidates, in which its own stand at `places`."""

    def spread(values: Tensor, fill: int | float) -> Tensor:
        return values.new_full((len(values), length), fill).index_copy(1, places, values)

    return replace(
        assignment,
        index=spread(assignment.index, IGNORE),
        weight=spread(assignment.weight, 0.0),
        quality=spread(assignment.quality, 0.0),
    )


def _compact(
    pool: Candidates, plan: Mapping[str, Assignment], sampler: Sampler | None
) -> tuple[Candidates, Mapping[str, Assignment]]:
    """The drawn rows alone, padded to as many as can be drawn; assignments that are one object stay one."""
    drawn = torch.stack([assignment.weight > 0.0 for assignment in plan.values()]).any(dim=0)
    count = pool.boxes.shape[1]
    if sampler is not None:
        further = len({id(assignment) for assignment in plan.values()}) - 1
        count = sampler.per_image + further * sampler.positives
    rows = first_rows(drawn, count)
    taken: dict[int, Assignment] = {}
    for assignment in plan.values():
        weight = take_rows(assignment.weight, rows)
        taken[id(assignment)] = replace(
            assignment,
            index=take_rows(assignment.index, rows).masked_fill(weight == 0.0, IGNORE),
            weight=weight,
            quality=take_rows(assignment.quality, rows),
        )
    valid = take_rows(drawn, rows)
    regions = Candidates(take_rows(pool.boxes, rows).masked_fill(~valid[..., None], 0.0), valid)
    return regions, {term: taken[id(assignment)] for term, assignment in plan.items()}

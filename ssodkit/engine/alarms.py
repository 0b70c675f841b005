"""Alarms: what a run says in words while it goes wrong, and which setting would help.

Numbers of pseudo-boxes are compared with the labels': unlabeled images mostly hold as many objects as labeled ones.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

REPORTS = 3
"""Reports in a row that an alarm about a number goes by."""
FEW, MANY = 1 / 3, 2.0
"""Pseudo-boxes per image, as shares of the labels', below and above which there are few and many."""
GROWTH, ABOVE = 1.3, 1.2
"""Over as many reports a number that runs away has grown by this factor, to more than this share of the labels'."""
WORSE = 0.02
"""AP that a teacher loses in two evaluations in a row before it is said."""
BEHIND = 0.03
"""AP by which a teacher may be behind its student."""


class Advice(NamedTuple):
    """What to change where a method's pseudo-boxes are too few, or too many."""

    more: str
    fewer: str


def number_alarm(counts: Sequence[float], labeled: float, advice: Advice) -> tuple[str, str] | None:
    """The kind of an alarm and its sentence, from the pseudo-boxes per image of all reports so far; None is well.

    `labeled` are the boxes of a labeled image.
    """
    recent = counts[-REPORTS:]
    if len(recent) < REPORTS or labeled <= 0:
        return None
    now, beside = recent[-1], f"labeled images have {labeled:.1f}"
    if max(recent) < FEW * labeled:
        return "few", (
            f"Few pseudo-boxes: {now:.1f} per image, and {beside}. What is not labeled is taught as background; "
            f"{advice.more}."
        )
    before = counts[-REPORTS - 1 :]
    rises = len(before) > REPORTS and all(late > early for early, late in pairwise(before))
    if rises and now > GROWTH * before[0] and now > ABOVE * labeled:
        return "away", (
            f"The number of pseudo-boxes runs away: from {before[0]:.1f} to {now:.1f} per image, and {beside}. The "
            f"teacher learns from its own mistakes; {advice.fewer}, or lower `method.unlabeled_weight`."
        )
    if min(recent) > MANY * labeled:
        return "many", f"Many pseudo-boxes: {now:.1f} per image, and {beside}. Most are wrong then; {advice.fewer}."
    return None


def teacher_alarm(averages: Mapping[int, Mapping[str, float]], steps: int) -> str | None:
    """The sentence for a teacher that gets worse on held-out labels, or lies far behind its student.

    `averages` are step -> network -> AP, of all evaluations so far; a training without a teacher has none to judge. Of
    its `steps`, the first half is a student's, whom an average follows late.
    """
    if not averages or "teacher" not in next(iter(averages.values())):
        return None
    done, teacher = list(averages), [networks["teacher"] for networks in averages.values()]
    behind = averages[done[-1]].get("student", 0.0) - teacher[-1]
    if behind > BEHIND and 2 * done[-1] >= steps:
        return (
            f"The teacher is {100 * behind:.1f} AP behind its student: its average is too slow for so short a run, and "
            "a gain of it means little. Lower `method.teacher.momentum.cap`."
        )
    best = max(teacher)
    if len(teacher) < 3 or max(teacher[-2:]) > best - WORSE:
        return None
    return (
        f"The teacher gets worse on the held-out labels: {100 * best:.1f} AP after step {done[teacher.index(best)]}, "
        f"{100 * teacher[-1]:.1f} now. Stop earlier (`engine.patience`), lower `method.unlabeled_weight`, or train "
        "fewer steps."
    )

"""Whether the image files of a recipe can be used, and which of them hold the same."""

import itertools
from collections.abc import Mapping

from ssodkit.data.annotations import ImageSet
from ssodkit.data.config import BrokenRule
from ssodkit.data.mistakes import listed
from ssodkit.data.overlap import copies
from ssodkit.data.pictures import find_broken, list_broken
from ssodkit.data.sets import OnProgress
from ssodkit.engine.doctor.findings import Finding

SKIP = "Put whole files in their place, or let them be left out: `data.broken: {skip: true}`"
TEACHES_MORE = "Remove the copies: they teach, or are scored, more than once"


def check_files(read: Mapping[str, ImageSet], rule: BrokenRule, on_progress: OnProgress) -> list[Finding]:
    """Files that are missing, broken, cut off or of another size than annotated, by source; a note where all are whole.

    `on_progress(done, total)` is called on the way.
    """
    total = sum(map(len, read.values()))
    done = itertools.count(1)
    findings = []
    broken = {key: find_broken(images, lambda: on_progress(next(done), total)) for key, images in read.items()}
    is_skipped = 0 < sum(map(len, broken.values())) <= rule.allowed(total)
    for key, problems in broken.items():
        if problems:
            what = list_broken(problems.values(), len(read[key]))
            findings.append(Finding("warning" if is_skipped else "mistake", "files", key, what, SKIP))
    if not findings:
        findings.append(Finding("note", "files", "", f"{total} image files looked at, all of them can be used"))
    return findings


def check_copies(read: Mapping[str, ImageSet]) -> list[Finding]:
    """Images that one source holds twice, and labeled ones among the unlabeled, by content.

    Of those that are trained on and tested the data tell themselves, when they are opened.
    """
    owners = [(key, place) for key, images in read.items() for place in range(len(images))]
    groups = copies([read[key].path(place) for key, place in owners])
    findings = []
    for key, images in read.items():
        mine = [[place for owner, place in map(owners.__getitem__, group) if owner == key] for group in groups]
        twice = [group for group in mine if len(group) > 1]
        if twice:
            shown = listed([" = ".join(map(images.name, group)) for group in twice], at_most=3)
            what = f"{sum(map(len, twice)) - len(twice)} images are copies of others, by content: {shown}"
            findings.append(Finding("warning", "copies", key, what, TEACHES_MORE))
    both = [group for group in groups if {"data.train", "data.unlabeled"} <= {owners[place][0] for place in group}]
    if both:
        what = f"{len(both)} of its images are among those of data.train as well, by content"
        findings.append(Finding("note", "copies", "data.unlabeled", what))
    return findings

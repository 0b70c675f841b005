"""The images that a run cannot use: what is left out before step 1, and what breaks while it trains."""

from collections.abc import Callable, Mapping

from ssodkit.data.broken import LEARNED, Broken, Skipped, leave_out, look_into, refuse_many, sizes_of
from ssodkit.data.config import BrokenRule, DataConfig
from ssodkit.data.sets import DataSets, open_data
from ssodkit.engine.bars import showing
from ssodkit.engine.distributed import Processes

NOTHING_BROKEN: Mapping[str, Broken] = {"left_out": {}, "later": {}}
"""What a checkpoint holds of a run without any."""


class BrokenImages:
    """Which images of a run are known to be broken; a resumed run goes on with what was known before.

    What was left out then stays out, though it may be mended by now, and what breaks since keeps its place: else the
    steps would draw other images than those of a run that never stopped.
    """

    left_out: Broken
    """Before step 1."""
    later: Broken
    """Met since; of this process until `share`, then of all."""

    def __init__(self, data: DataConfig, processes: Processes, saved: Mapping[str, Broken] | None) -> None:
        """Open a run's data without those that are broken; `saved` is what a checkpoint holds, None in a new run.

        The first process opens the data, makes it if need be and looks into it before the others. Raises DataError as
        `open_data` does, and for images that cannot be used.
        """
        self.rule, self._processes = data.broken, processes
        known = None if saved is None else saved["left_out"]
        opened = processes.first_alone(lambda: _open(data, known))
        self.left_out, self.later = processes.gather(None if opened is None else opened[1:])[0] or ({}, {})
        self.sets: DataSets = opened[0] if opened is not None else leave_out(open_data(data), self.left_out)
        before = (saved or NOTHING_BROKEN)["later"]
        self.later = _joined(before, self.later)
        self._told = set(_keys(before))

    def add(self, skipped: Skipped, warn: Callable[[str], None]) -> None:
        """Take note of an image that a step could not use."""
        self.later.setdefault(skipped.key, {}).setdefault(skipped.image_id, skipped.why)
        self._tell(warn)

    def share(self, warn: Callable[[str], None]) -> None:
        """Learn what the other processes have met."""
        if self.rule.skip and self._processes.count > 1:
            for other in self._processes.gather(self.later):
                self.later = _joined(other, self.later)
            self._tell(warn)

    def refuse_many(self) -> None:
        """Raise DataError that lists all of them, where these are more than the recipe allows to skip."""
        refuse_many(_joined(self.left_out, self.later), sizes_of(self.sets, self.left_out), self.rule)

    def state_dict(self) -> dict[str, Broken]:
        """In plain types, as a checkpoint holds it."""
        return {"left_out": self.left_out, "later": self.later}

    def _tell(self, warn: Callable[[str], None]) -> None:
        for key, image_id in _keys(self.later):
            if (key, image_id) not in self._told:
                self._told.add((key, image_id))
                warn(f"data.{key}: {self.later[key][image_id]} Others take its place in the steps that draw it.")


def _open(data: DataConfig, known: Broken | None) -> tuple[DataSets, Broken, Broken]:
    """The data without what is broken, what was left out, and what has broken since the run began."""
    with showing("reading the data") as on_read:
        sets = open_data(data, on_read)
    left_out = known or {}
    if known:
        sets = leave_out(sets, known)
    with showing("looking at images") as on_checked:
        broken = look_into(sets, on_checked)
    refuse_many(_joined(left_out, broken), sizes_of(sets, left_out), data.broken)
    if known is None:
        return leave_out(sets, broken), broken, {}
    scored = {key: problems for key, problems in broken.items() if key not in LEARNED}
    refuse_many(scored, sizes_of(sets), BrokenRule())  # scores on fewer images than before would not compare
    return sets, left_out, broken


def _joined(first: Broken, second: Broken) -> Broken:
    return {key: {**first.get(key, {}), **second.get(key, {})} for key in {**first, **second}}


def _keys(broken: Broken) -> list[tuple[str, int]]:
    return [(key, image_id) for key, problems in broken.items() for image_id in problems]

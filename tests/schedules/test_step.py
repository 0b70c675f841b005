import pytest

from ssodkit.plugins import Config, Slot
from ssodkit.schedules.base import ScheduleConfig
from ssodkit.schedules.step import StepConfig
from ssodkit.structures.progress import Progress


class Holder(Config):
    weight: Slot[ScheduleConfig]


def test_step__changes_exactly_at_its_step():
    schedule = StepConfig(before=0.0, after=2.0, at=3)
    assert [schedule.at(Progress(step, 10)) for step in (0, 2, 3, 9)] == [0.0, 0.0, 2.0, 2.0]


@pytest.mark.parametrize(("at", "first"), [("33 %", 3), ("0 %", 0), ("100 %", 10), ("never", 11)])
def test_step__a_share_of_the_run_is_rounded_down(at, first):
    schedule = StepConfig(before=0.0, after=1.0, at=at)
    values = [schedule.at(Progress(step, 10)) for step in range(12)]
    assert values.index(1.0) == first


def test_step__is_written_and_read_back_with_the_key_at():
    written = {"weight": {"type": "step", "before": 0.0, "after": 2.0, "at": "50 %"}}
    holder = Holder.model_validate(written)
    assert holder.model_dump(mode="json") == written
    assert Holder.model_validate(holder.model_dump(mode="json")) == holder

import pytest
from pydantic import ValidationError

from ssodkit.plugins import Config, Slot
from ssodkit.schedules.base import ScheduleConfig
from ssodkit.schedules.constant import ConstantConfig
from ssodkit.structures.progress import Progress


class Holder(Config):
    weight: Slot[ScheduleConfig]


def test_constant__never_changes():
    schedule = ConstantConfig(value=4.0)
    assert [schedule.at(Progress(step, 10)) for step in (0, 5, 10)] == [4.0, 4.0, 4.0]


@pytest.mark.parametrize("number", [4, 4.0])
def test_schedule__a_plain_number_is_a_constant(number):
    assert Holder.model_validate({"weight": number}).weight == ConstantConfig(value=4.0)


def test_schedule__a_truth_value_is_no_number():
    with pytest.raises(ValidationError):
        Holder.model_validate({"weight": True})

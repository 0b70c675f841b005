import pytest

from ssodkit.schedules.ramp import RampConfig
from ssodkit.structures.progress import Progress


def test_ramp__is_a_line_between_its_ends():
    schedule = RampConfig(before=1.0, after=3.0, start=10, end=20)
    assert [schedule.at(Progress(step, 100)) for step in (0, 10, 15, 20, 99)] == [1.0, 1.0, 2.0, 3.0, 3.0]


def test_ramp__may_fall():
    schedule = RampConfig(before=2.0, after=0.0, start="50 %", end="100 %")
    assert [schedule.at(Progress(step, 8)) for step in (4, 6, 8)] == [2.0, 1.0, 0.0]


def test_ramp__without_length_is_a_jump():
    schedule = RampConfig(before=0.0, after=2.0, start=0, end="7 %")  # 7 % of 8 steps is step 0
    assert schedule.at(Progress(0, 8)) == 0.0
    assert schedule.at(Progress(1, 8)) == 2.0


@pytest.mark.parametrize("steps", [2, 3, 7])
def test_ramp__stays_between_its_ends_in_the_shortest_runs(steps):
    schedule = RampConfig(before=0.0, after=2.0, start="33 %", end="40 %")
    values = [schedule.at(Progress(step, steps)) for step in range(steps + 1)]
    assert values == sorted(values)
    assert values[0] >= 0.0
    assert values[-1] == 2.0

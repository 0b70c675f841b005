import pytest

from ssodkit.schedules.every import EveryConfig
from ssodkit.structures.progress import Progress


@pytest.mark.parametrize(("steps", "rare"), [(3, [0, 3, 6, 9]), ("50 %", [0, 5]), (20, [0]), (1, list(range(10)))])
def test_every__is_rare_at_multiples_of_its_steps(steps, rare):
    schedule = EveryConfig(steps=steps, then=0.0, otherwise=1.0)
    assert [step for step in range(10) if schedule.at(Progress(step, 10)) == 0.0] == rare


@pytest.mark.parametrize("steps", ["0 %", "1 %"])
def test_every__of_less_than_a_step_is_every_step(steps):
    schedule = EveryConfig(steps=steps, then=0.5, otherwise=1.0)
    assert {schedule.at(Progress(step, 10)) for step in range(10)} == {0.5}

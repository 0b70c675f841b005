"""What every schedule says of its values, and the ranges that fields ask for."""

import pytest
from pydantic import ValidationError

from ssodkit.methods.supervised import SupervisedConfig
from ssodkit.plugins import load_plugins, members
from ssodkit.recipe.model import EngineConfig
from ssodkit.schedules.base import HIGHEST_RATE, ScheduleConfig
from ssodkit.structures.progress import Progress
from ssodkit.teachers.ema import EmaTeacherConfig

EXAMPLES = {
    "constant": {"value": 0.3},
    "ramp": {"before": 2.0, "after": 0.5, "start": 3, "end": "70 %"},
    "step": {"before": 0.5, "after": 2.0, "at": 4},
    "every": {"steps": 3, "then": 0.0, "otherwise": 1.0},
    "running_mean": {"cap": 0.9, "warmup": 2},
    "warmup_cosine": {"value": 0.2, "warmup": "30 %", "flat_until": 5},
    "warmup_drops": {"value": 0.2, "warmup": 2, "drops": [5, "80 %"]},
    "rise_and_fall": {"peak": 0.4, "up": 3, "down": "80 %"},
}
LOW, HIGH = {"type": "step", "before": 0.0, "after": 1.0, "at": 5}, {"type": "ramp", "after": 2.0, "end": 5}


def test_span__holds_every_value_and_every_schedule_has_an_example():
    load_plugins()
    known = {name: one for name, one in members("schedule").items() if one.__module__.startswith("ssodkit.")}
    assert set(EXAMPLES) == set(known)
    for name, values in EXAMPLES.items():
        schedule = known[name].model_validate(values)
        assert isinstance(schedule, ScheduleConfig)
        lowest, highest = schedule.span
        for steps in (1, 2, 10, 100):
            reached = [schedule.at(Progress(step, steps)) for step in range(steps + 1)]
            assert lowest <= min(reached)
            assert max(reached) <= highest


@pytest.mark.parametrize("name", sorted(EXAMPLES.keys() - {"running_mean"}))
def test_schedules__no_value_is_negative(name: str):
    load_plugins()
    for field in {"value", "before", "after", "then", "otherwise", "peak"} & EXAMPLES[name].keys():
        with pytest.raises(ValidationError, match="greater than or equal to 0"):
            members("schedule")[name].model_validate({**EXAMPLES[name], field: -0.1})


def test_within__a_field_refuses_a_schedule_that_leaves_its_range_at_any_time():
    assert EmaTeacherConfig.model_validate({"momentum": LOW}).momentum.span == (0.0, 1.0)
    with pytest.raises(ValidationError, match=r"must be at most 1\.0, and this schedule reaches 2"):
        EmaTeacherConfig.model_validate({"momentum": HIGH})
    with pytest.raises(ValidationError, match=r"must be at most 1000\.0, and this schedule reaches 1001"):
        SupervisedConfig.model_validate({"unlabeled_weight": 1001})
    with pytest.raises(ValidationError, match=f"must be at most {HIGHEST_RATE}, and this schedule reaches 101"):
        EngineConfig.model_validate({"steps": 1, "lr": 101.0})

import pytest

from ssodkit.schedules.running_mean import RunningMeanConfig
from ssodkit.structures.progress import Progress


@pytest.mark.parametrize(
    ("updates", "momentum"),
    [(0, 0.0), (99, 0.990000), (100, 0.990099), (700, 0.998573), (998, 0.998999), (999, 0.999), (100_000, 0.999)],
)
def test_running_mean__has_soft_teachers_momentum(updates, momentum):
    assert RunningMeanConfig(cap=0.999).at(Progress(updates, 180_000)) == pytest.approx(momentum, abs=5e-7)


@pytest.mark.parametrize(
    ("updates", "momentum"),
    [(0, 0.0), (1, 0.5), (9, 0.9), (99, 0.99), (1998, 0.99949975), (1999, 0.9995), (2000, 0.9995), (72_000, 0.9995)],
)
def test_running_mean__has_mean_teachers_momentum(updates, momentum):
    assert RunningMeanConfig(cap=0.9995).at(Progress(updates, 180_000)) == pytest.approx(momentum, abs=1e-9)


def test_running_mean__warmup_is_the_general_form():
    schedule = RunningMeanConfig(cap=0.999, warmup=100)
    assert schedule.at(Progress(0, 1000)) == 0.0
    assert schedule.at(Progress(50, 1000)) == pytest.approx(1 - 101 / 151)


def test_running_mean__weighs_all_states_alike_below_its_cap():
    schedule, mean = RunningMeanConfig(cap=0.999), 0.0
    for updates, state in enumerate([5.0, 1.0, 3.0, 7.0]):
        momentum = schedule.at(Progress(updates, 10))
        mean = momentum * mean + (1 - momentum) * state
    assert mean == pytest.approx(4.0)

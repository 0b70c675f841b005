import pytest

from ssodkit.schedules.rise_and_fall import RiseAndFallConfig
from ssodkit.structures.progress import Progress

SSD = {0: 0.0, 1: 0.006740, 8000: 0.060055, 16000: 0.286505, 24000: 0.731616, 32000: 1.0, 66000: 1.0, 100000: 1.0}
SSD |= {105000: 0.457833, 110000: 0.043937, 115000: 0.000884}
RFCN = {10022: 0.286505, 20044: 1.0, 60132: 1.0, 65143: 0.043937}


@pytest.mark.parametrize(
    ("up", "down", "steps", "published"), [(32000, 100000, 120000, SSD), (20044, 60132, 70154, RFCN)]
)
def test_rise_and_fall__has_the_published_numbers(up, down, steps, published):
    schedule = RiseAndFallConfig(up=up, down=down)
    weights = [schedule.at(Progress(step, steps)) for step in published]
    assert weights == pytest.approx(list(published.values()), abs=1e-6)


def test_rise_and_fall__follows_the_two_stage_run_by_itself():
    weights = [RiseAndFallConfig().at(Progress(step, 70154)) for step in RFCN]
    assert weights == pytest.approx(list(RFCN.values()), abs=1e-6)


def test_rise_and_fall__has_a_peak_and_need_not_fall():
    schedule = RiseAndFallConfig(peak=0.5, up="50 %", down="never")
    assert [schedule.at(Progress(step, 4)) for step in range(5)] == pytest.approx(
        [0.0, 0.143252, 0.5, 0.5, 0.5], abs=1e-6
    )
    assert schedule.span == (0.0, 0.5)


def test_rise_and_fall__falls_from_the_peak_wherever_it_is_reached():
    schedule = RiseAndFallConfig(up="50 %", down="20 %")
    weights = [schedule.at(Progress(step, 10)) for step in range(11)]
    late = RiseAndFallConfig(up="50 %", down="50 %")
    assert weights == [late.at(Progress(step, 10)) for step in range(11)]
    assert weights[5] == 1.0


@pytest.mark.parametrize("steps", [1, 2, 3, 7])
def test_rise_and_fall__stays_in_its_span_in_the_shortest_runs(steps):
    weights = [RiseAndFallConfig().at(Progress(step, steps)) for step in range(steps + 1)]
    assert all(0.0 <= weight <= 1.0 for weight in weights)
    assert RiseAndFallConfig(up=0).at(Progress(0, steps)) == 1.0

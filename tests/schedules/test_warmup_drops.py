import pytest

from ssodkit.schedules.warmup_drops import WarmupDropsConfig
from ssodkit.structures.progress import Progress

STEPS = 180_000


@pytest.mark.parametrize(
    ("step", "rate"), [(0, 0.000010), (100, 0.002008), (250, 0.005005), (499, 0.009980), (500, 0.010000)]
)
def test_warmup_drops__has_mmdetections_warmup(step, rate):
    schedule = WarmupDropsConfig(value=0.01, warmup=500, factor=0.001)
    assert schedule.at(Progress(step, STEPS)) == pytest.approx(rate, abs=5e-7)


@pytest.mark.parametrize(("step", "rate"), [(0, 0.000010), (100, 0.001009), (500, 0.005005), (1000, 0.010000)])
def test_warmup_drops__has_detectron2s_warmup(step, rate):
    schedule = WarmupDropsConfig(value=0.01, warmup=1000, factor=0.001)
    assert schedule.at(Progress(step, STEPS)) == pytest.approx(rate, abs=5e-7)


@pytest.mark.parametrize(("step", "rate"), [(0, 0.003300), (500, 0.006650), (1000, 0.010000)])
def test_warmup_drops__has_stacs_warmup(step, rate):
    schedule = WarmupDropsConfig(value=0.01, warmup=1000, factor=0.33)
    assert schedule.at(Progress(step, STEPS)) == pytest.approx(rate, abs=5e-7)


@pytest.mark.parametrize(
    ("step", "rate"), [(119_999, 0.01), (120_000, 0.001), (159_999, 0.001), (160_000, 0.0001), (179_999, 0.0001)]
)
def test_warmup_drops__drops_at_its_steps(step, rate):
    schedule = WarmupDropsConfig(value=0.01, warmup=500, drops=(120_000, 160_000))
    assert schedule.at(Progress(step, STEPS)) == pytest.approx(rate)


def test_warmup_drops__takes_shares_of_the_run():
    schedule = WarmupDropsConfig(value=1.0, drops=("50 %", "never"))
    assert [schedule.at(Progress(step, 4)) for step in range(5)] == pytest.approx([1.0, 1.0, 0.1, 0.1, 0.1])


def test_warmup_drops__without_warmup_starts_at_the_value():
    assert WarmupDropsConfig(value=0.3).at(Progress(0, 1)) == 0.3


@pytest.mark.parametrize(
    ("step", "rate"), [(0, 0.001), (59_999, 0.001), (60_000, 0.0003), (119_999, 0.0003), (120_000, 0.00009)]
)
def test_warmup_drops__has_stacs_schedule_on_voc(step, rate):
    """Configured with (7500, 15000, 20000) for eight GPUs, and eight times as long on one."""
    drops = tuple(8 * drop for drop in (7_500, 15_000))
    schedule = WarmupDropsConfig(value=0.001, drops=drops, gamma=0.3)
    assert schedule.at(Progress(step, 8 * 20_000)) == pytest.approx(rate)

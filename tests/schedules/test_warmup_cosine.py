import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR

from ssodkit.schedules.warmup_cosine import WarmupCosineConfig
from ssodkit.structures.progress import Progress


def test_warmup_cosine__is_torchs_cosine():
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.5)
    theirs = CosineAnnealingLR(optimizer, T_max=20, eta_min=0.05)
    ours = WarmupCosineConfig(value=0.5, final=0.1)
    for step in range(20):
        assert ours.at(Progress(step, 20)) == pytest.approx(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()


def test_warmup_cosine__warms_up_stays_and_falls():
    schedule = WarmupCosineConfig(value=0.05, warmup=10, factor=0.1, flat_until="60 %", final=0.02)
    rates = [schedule.at(Progress(step, 100)) for step in range(101)]
    assert rates[0] == pytest.approx(0.005)
    assert rates[5] == pytest.approx(0.05 * 0.55)
    assert rates[10:61] == pytest.approx([0.05] * 51)
    assert rates[80] == pytest.approx(0.05 * (0.02 + 0.98 / 2))  # halfway down
    assert rates[100] == pytest.approx(0.001)


@pytest.mark.parametrize("flat_until", ["100 %", "never"])
def test_warmup_cosine__may_stay_flat_to_the_end(flat_until):
    schedule = WarmupCosineConfig(value=0.05, flat_until=flat_until)
    assert [schedule.at(Progress(step, 2)) for step in range(3)] == [0.05, 0.05, 0.05]

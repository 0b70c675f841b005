"""Where cells run on one machine, and what is said where an engine is not there."""

import pytest

from ssodkit.bench import engines
from ssodkit.bench.engines import make_slots
from ssodkit.errors import TrainingError


@pytest.fixture
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


@pytest.mark.usefixtures("eight_cores")
def test_make_slots__divides_the_cores():
    assert make_slots(1, "cpu") == [{}]
    assert make_slots(3, "cpu") == [{"OMP_NUM_THREADS": "2"}] * 3
    assert make_slots(20, "cpu") == [{"OMP_NUM_THREADS": "1"}] * 20


@pytest.mark.usefixtures("eight_cores")
def test_make_slots__deals_out_the_gpus_that_may_be_used(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert make_slots(3, "cuda") == [{"CUDA_VISIBLE_DEVICES": number} for number in ("2", "5", "2")]
    assert make_slots(2, "cpu") == [{}, {}]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert make_slots(2, None) == [{}, {}]


def test_import_extra__says_how_to_install_what_is_missing():
    with pytest.raises(TrainingError) as error:
        engines._import_extra("no_such_module", "slurm")
    assert str(error.value) == (
        "`--engine slurm` needs no_such_module, which is not installed: `pip install 'ssodkit[slurm]'`"
    )

import pytest
import torch

from ssodkit.engine.precision import autocast, precision_on

CPU = torch.device("cpu")


@pytest.mark.parametrize(("has_tiles", "chosen"), [(True, "bf16"), (False, "fp32")])
def test_precision_on__auto_is_bf16_on_a_cpu_with_matrix_tiles_alone(monkeypatch, has_tiles, chosen):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: has_tiles)
    assert precision_on(CPU, "auto") == chosen
    with autocast("auto", CPU):
        assert torch.is_autocast_enabled("cpu") == (chosen == "bf16")


@pytest.mark.parametrize("named", ["fp32", "bf16", "fp16"])
def test_precision_on__what_is_named_is_taken_everywhere(named):
    assert precision_on(CPU, named) == precision_on(torch.device("meta"), named) == named


def test_precision_on__auto_is_fp32_on_a_device_that_is_not_known():
    assert precision_on(torch.device("meta"), "auto") == "fp32"

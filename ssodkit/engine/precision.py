"""The precisions in which networks compute."""

from contextlib import AbstractContextManager
from typing import Literal

import torch

Precision = Literal["auto", "fp32", "bf16", "fp16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def precision_on(device: torch.device, precision: Precision) -> Literal["fp32", "bf16", "fp16"]:
    """The precision itself; `auto` is bf16 where the device multiplies matrices of it faster, fp32 elsewhere.

    Those are GPUs with bf16 of their own, and CPUs with AMX.
    """
    if precision != "auto":
        return precision
    if device.type == "cuda":
        with torch.cuda.device(device):
            return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if device.type == "cpu" and torch.cpu._is_amx_tile_supported() else "fp32"


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Within it, what may be computed in this precision is."""
    name = precision_on(device, precision)
    return torch.autocast(device.type, dtype=DTYPES[name], enabled=name != "fp32")

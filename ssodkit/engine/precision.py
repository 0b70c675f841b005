"""The precisions in which networks compute."""

from contextlib import AbstractContextManager
from typing import Literal

import torch

Precision = Literal["fp32", "bf16", "fp16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Within it, what may be computed in this precision is."""
    return torch.autocast(device.type, dtype=DTYPES[precision], enabled=precision != "fp32")

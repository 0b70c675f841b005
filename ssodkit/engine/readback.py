"""Numbers on their way from the device to the host, to be read later without waiting."""

import torch
from torch import Tensor


class Readback:
    """A copy to page-locked memory that starts at once; `read` waits only if it has not arrived."""

    def __init__(self, numbers: Tensor) -> None:
        self._host = numbers
        self._arrived: torch.cuda.Event | None = None
        if numbers.is_cuda:
            self._host = torch.empty_like(numbers, device="cpu", pin_memory=True)
            self._host.copy_(numbers, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record()

    def read(self) -> list[float]:
        """The numbers, in the order in which they were given."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._host.tolist()

"""`python -m ssodkit.bench.child PARENT run ...` is `ssodkit run ...`, which stops when its parent process dies.

It stops as after SIGTERM, with a checkpoint. Only Linux tells a process that its parent has died; elsewhere it goes on,
and so does its claim.
"""

import ctypes
import os
import runpy
import signal
import sys

PR_SET_PDEATHSIG = 1
"""From Linux's prctl.h."""


def stop_with(parent: int) -> None:
    """From here on, this process gets SIGTERM when the process number `parent`, which has started it, dies."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM))
    if os.getppid() != parent:  # it died before that
        os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    stop_with(int(sys.argv.pop(1)))
    runpy.run_module("ssodkit", run_name="__main__", alter_sys=True)

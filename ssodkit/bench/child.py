"""`python -m ssodkit.bench.child PARENT run ...` is `ssodkit run ...`, which stops when its parent process dies.

It stops as after SIGTERM, with a checkpoint. Slurm sends SIGUSR2 to every process of a job whose time is over: that is
for submitit, which stops us, and would kill a training and its loaders without a checkpoint.
"""

import os
import runpy
import signal
import sys
import threading
import time

POLL = 0.1
"""Seconds between two looks at the parent. Linux would tell (PR_SET_PDEATHSIG), but once for each thread of a dying
parent, and a second SIGTERM ends a training without a checkpoint."""


def stop_with(parent: int) -> None:
    """From here on, this process gets SIGTERM when the process number `parent`, which has started it, dies."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(POLL)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    stop_with(int(sys.argv.pop(1)))
    runpy.run_module("ssodkit", run_name="__main__", alter_sys=True)

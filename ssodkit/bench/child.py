"""`python -m ssodkit.bench.child PARENT run ...` is `ssodkit run ...`, which stops when its parent process dies.

It stops as after SIGTERM, with a checkpoint. Slurm sends SIGUSR2 to every process of a job whose time is over: that is
for submitit, which stops us, and would kill a training and its loaders without a checkpoint.
"""

import runpy
import signal
import sys

from ssodkit.engine.stopping import stop_with

if __name__ == "__main__":
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    stop_with(int(sys.argv.pop(1)))
    runpy.run_module("ssodkit", run_name="__main__", alter_sys=True)

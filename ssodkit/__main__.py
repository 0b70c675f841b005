"""`python -m ssodkit`: the command line, as torch's launcher starts it in each process."""

import os
import sys

from ssodkit.cli import main

if __name__ == "__main__":
    try:
        main()
    except SystemExit as ending:
        if "RANK" not in os.environ:
            raise
        # One of several processes: all is written, and the process group is closed. Unloading Python while threads of
        # that group still end aborted one process in some dozen runs, with the exit code of a crash.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(ending.code if isinstance(ending.code, int) else int(ending.code is not None))

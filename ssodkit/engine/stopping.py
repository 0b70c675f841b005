"""Stopping on SIGINT and SIGTERM: the first asks politely, the second ends the process at once."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ssodkit.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)
STDOUT = 1
POLL = 0.1
"""Seconds between two looks at a parent. Linux would tell (PR_SET_PDEATHSIG), but once for each thread of a dying
parent, and a second SIGTERM ends a training without a checkpoint."""
SHOW_CURSOR = b"\x1b[?25h\n"
"""For a terminal: a progress bar hides the cursor, and has no time to bring it back."""


class Stopping:
    """Within its `with`, the first signal is remembered in `received`; a second one has its usual effect."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._raises = False
        self._advice = ""
        self._usual: dict[signal.Signals, object] = {}

    def __enter__(self) -> "Stopping":
        if threading.current_thread() is threading.main_thread():  # elsewhere Python sets no handler
            self._usual = {number: signal.signal(number, self._receive) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._usual.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    @contextmanager
    def at_once(self, advice: str = "") -> Iterator[None]:
        """Where nothing can be lost, such as in an evaluation: the first signal raises Interrupted right there.

        Its text ends with `advice`, such as how to go on.
        """
        self._raises, self._advice = True, advice
        try:
            if self.received is not None:
                raise self._interrupted(self.received)
            yield
        finally:
            self._raises = False

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            if os.isatty(STDOUT):
                os.write(STDOUT, SHOW_CURSOR)
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        self.received = signal.Signals(number)
        if self._raises:
            raise self._interrupted(self.received)

    def _interrupted(self, received: signal.Signals) -> Interrupted:
        return Interrupted(f"stopped by {received.name}{self._advice}", received)


def stop_with(parent: int) -> None:
    """From here on, this process gets SIGTERM when the process number `parent`, which has started it, dies."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(POLL)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()

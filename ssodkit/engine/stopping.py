"""Stopping on SIGINT and SIGTERM: the first asks politely, the second ends the process at once."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from ssodkit.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)
STDOUT, STDERR = 1, 2
POLL = 0.1
"""Seconds between two looks at a parent. Linux would tell (PR_SET_PDEATHSIG), but once for each thread of a dying
parent, and a second SIGTERM ends a training without a checkpoint."""
SHOW_CURSOR = b"\x1b[?25h\n"
"""For a terminal: a progress bar hides the cursor, and has no time to bring it back."""


class Stopping:
    """Within its `with`, the first signal is remembered in `received`; a second one ends the process at once.

    Its last words are what `way_on` says then, such as how to go on; None where another process speaks.
    """

    def __init__(self, way_on: Callable[[], str] | None = str) -> None:
        self._way_on = way_on
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
            self._end(signal.Signals(number))
            return
        self.received = signal.Signals(number)
        if self._raises:
            raise self._interrupted(self.received)

    def _end(self, received: signal.Signals) -> None:
        """Whatever the last words meet, the signal has its usual effect."""
        signal.signal(received, signal.SIG_DFL)
        try:
            if os.isatty(STDOUT):
                os.write(STDOUT, SHOW_CURSOR)
            if self._way_on is not None:
                way_on = self._way_on()
                os.write(STDERR, f"ended at once by {received.name}{'; ' if way_on else ''}{way_on}\n".encode())
        finally:
            os.kill(os.getpid(), received)

    def _interrupted(self, received: signal.Signals) -> Interrupted:
        return Interrupted(f"stopped by {received.name}{self._advice}", received)


def stop_with(parent: int) -> None:
    """From here on, this process gets SIGTERM when the process number `parent`, which has started it, dies."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(POLL)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()

"""Standard output and error of work that goes on when nobody reads them any more, as behind `| head`."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def outliving_readers(notice: str = "") -> Iterator[None]:
    """Within it, printing to a reader who is gone does nothing, where Python would raise BrokenPipeError.

    When that is noticed of standard output, `notice` is said on standard error, once.
    """
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _lasting(sys.stdout, notice), _lasting(sys.stderr)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()  # what was printed last may be what nobody takes
        sys.stdout, sys.stderr = before


def _lasting(stream: Any, notice: str = "") -> Any:
    """The same text stream, made to last; a program without it has None, which stays."""
    if stream is None:
        return None
    inner = stream.stream if isinstance(stream, _Lasting) else stream  # else the outer one would notice before this one
    return _Lasting(inner, notice)


class _Lasting:
    """A stream that falls silent when its reader is gone."""

    def __init__(self, stream: Any, notice: str) -> None:
        self.stream, self._notice = stream, notice

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        try:
            self.stream.write(text)
        except BrokenPipeError:
            self._fall_silent()
        return len(text)

    def flush(self) -> None:
        try:
            self.stream.flush()
        except BrokenPipeError:
            self._fall_silent()

    def _fall_silent(self) -> None:
        """From here on the descriptor leads nowhere: also for what waits in the buffer, and for child processes."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.stream.fileno())
        os.close(nowhere)
        if self._notice:
            print(self._notice, file=sys.stderr)

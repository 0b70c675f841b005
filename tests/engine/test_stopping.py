import os
import signal
import subprocess
import sys

import pytest

from ssodkit.engine.stopping import Stopping
from ssodkit.errors import Interrupted


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping__the_first_signal_is_only_remembered(number):
    with Stopping() as stopping:
        assert stopping.received is None
        os.kill(os.getpid(), number)
        assert stopping.received == number


def test_stopping__handlers_are_put_back():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with Stopping():
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_stopping__where_nothing_can_be_lost_the_first_signal_raises():
    with pytest.raises(Interrupted) as caught, Stopping() as stopping, stopping.at_once():
        os.kill(os.getpid(), signal.SIGTERM)
    assert caught.value.signal == signal.SIGTERM


def test_stopping__a_signal_from_before_raises_where_nothing_can_be_lost():
    with Stopping() as stopping:
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(Interrupted), stopping.at_once():
            raise AssertionError("not reached")


TWO_SIGNALS = (
    "import os, signal, time\n"
    "from ssodkit.engine.stopping import Stopping\n"
    "with Stopping(lambda: 'go on so'):\n"
    "    os.kill(os.getpid(), signal.SIGINT)\n"
    "    os.kill(os.getpid(), signal.SIGTERM)\n"
    "    time.sleep(30)\n"
)


def test_stopping__the_second_signal_ends_the_process_with_last_words():
    ended = subprocess.run([sys.executable, "-c", TWO_SIGNALS], timeout=20, capture_output=True)
    assert (ended.returncode, ended.stdout) == (-signal.SIGTERM, b"")
    assert ended.stderr == b"ended at once by SIGTERM; go on so\n"


@pytest.mark.parametrize("way_on", ["None", "lambda: 1 / 0"])
def test_stopping__the_second_signal_ends_the_process_also_without_words(way_on):
    code = TWO_SIGNALS.replace("lambda: 'go on so'", way_on)
    ended = subprocess.run([sys.executable, "-c", code], timeout=20, capture_output=True)
    assert (ended.returncode, ended.stderr) == (-signal.SIGTERM, b"")


def test_stopping__the_second_signal_leaves_a_terminal_with_its_cursor():
    ours, theirs = os.openpty()
    subprocess.run([sys.executable, "-c", TWO_SIGNALS], timeout=20, stdout=theirs)
    assert os.read(ours, 100).startswith(b"\x1b[?25h")
    os.close(ours)
    os.close(theirs)

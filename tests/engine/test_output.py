import os
import sys
from contextlib import contextmanager, redirect_stdout

import pytest

from ssodkit.engine.output import outliving_readers


@contextmanager
def nobody_reads():
    """Within it, standard output is a pipe whose reader is gone."""
    reads, writes = os.pipe()
    os.close(reads)
    with open(writes, "w") as stream, redirect_stdout(stream):
        yield


def test_outliving_readers__printing_goes_on_and_the_notice_is_said_once(capsys):
    with nobody_reads(), outliving_readers(), outliving_readers("nobody reads"):
        print("first", flush=True)
        print("second", flush=True)
    assert capsys.readouterr().err == "nobody reads\n"


def test_outliving_readers__what_waits_in_the_buffer_is_lost_without_an_error():
    with nobody_reads():
        with outliving_readers():
            print("only in the buffer")
        print("nobody minds any more", flush=True)
    with pytest.raises(BrokenPipeError), nobody_reads():
        print("but without it", flush=True)


def test_outliving_readers__a_program_without_output_has_none():
    with redirect_stdout(None):
        with outliving_readers("nobody reads"):
            print("nowhere")
        assert sys.stdout is None


def test_outliving_readers__what_is_read_is_printed_as_ever(capsys):
    before = sys.stdout
    with outliving_readers("nobody reads"):
        print("read", end="")
        assert sys.stdout.isatty() is False
    assert sys.stdout is before
    assert capsys.readouterr() == ("read", "")

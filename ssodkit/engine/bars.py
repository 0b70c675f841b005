"""Bars that show how far long work is, on a terminal alone."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress


@contextmanager
def showing(what: str) -> Iterator[Callable[[int, int], None]]:
    """Within it, a call with what is done and what there is to do moves a bar, which is there while work is left.

    Nothing is shown where no terminal would show it, and by no process but the first.
    """
    is_seen = Console().is_terminal and os.environ.get("RANK", "0") == "0"
    with Progress(transient=True, disable=not is_seen) as bar:
        task = bar.add_task(what, visible=False)
        yield lambda done, total: bar.update(task, completed=done, total=total, visible=done < total)

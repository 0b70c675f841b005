"""The command line: one verb per thing a user does. What a verb needs is imported when it runs: help is quick."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from ssodkit.cli import benchmark, doctor, recipes, runs, start
from ssodkit.engine.output import outliving_readers
from ssodkit.engine.stopping import Stopping, stop_with
from ssodkit.errors import Interrupted, SsodkitError

app = typer.Typer(
    help="Semi-supervised object detection: a few labeled pictures, many without labels, a better detector.",
    epilog="Anywhere in a command, --debug shows where an error comes from.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command()(start.init)
app.command()(doctor.doctor)
app.command()(runs.run)
app.command("eval")(runs.evaluate)
app.command()(runs.predict)
app.command()(runs.label)
app.command()(runs.review)
app.command()(runs.export)
app.command()(benchmark.bench)
app.command()(benchmark.table)
app.command()(benchmark.report)
app.command("list")(recipes.list_)
recipe_app = typer.Typer(help="Check, show and explain recipes.", no_args_is_help=True)
recipe_app.command()(recipes.check)
recipe_app.command()(recipes.show)
recipe_app.command()(recipes.explain)
recipe_app.command()(recipes.schema)
app.add_typer(recipe_app, name="recipe")


def main() -> None:
    """The console script `ssodkit`: what a user can mend ends as a sentence, with exit code 2."""
    # Threads that wait for each other shall sleep: spinning, they take cores from the loader, and a busy machine with
    # two of them trains three times as slowly. OpenMP reads this when torch is imported, which nothing has done yet.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # what a terminal cannot show is no reason to end
    with outliving_readers():
        _run_verb()


def _run_verb() -> None:
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    stopping = Stopping()
    if os.environ.get(runs.LAUNCHER) == str(os.getppid()):
        stop_with(os.getppid())
    try:
        with _stopping_at_once(stopping):
            app(arguments, prog_name="ssodkit")
    except Interrupted as interrupted:
        if os.environ.get("RANK", "0") == "0":  # all processes stop after the same step, and one says so
            print(interrupted, file=sys.stderr)
        sys.exit(128 + interrupted.signal)
    except Exception as error:
        if "--debug" in sys.argv:
            raise
        if stopping.received is not None:  # pydantic makes an error of its own of whatever is raised within it
            sys.exit(128 + stopping.received)
        if not isinstance(error, SsodkitError | OSError):
            raise
        rank = f"process {os.environ['RANK']}: " if os.environ.get("RANK") else ""
        sys.stderr.write(f"{rank}{_sentence(error)}\n")  # in one piece, as other processes write there too
        sys.exit(2)


@contextmanager
def _stopping_at_once(stopping: Stopping) -> Iterator[None]:
    """Until a run has its own way to stop; one of several processes may wait for others, and must be ended at once."""
    if "RANK" in os.environ:
        yield
        return
    with stopping, stopping.at_once():
        yield


def _sentence(error: SsodkitError | OSError) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename} cannot be read or written: {error.strerror}."
    return str(error)


def _print_version(wanted: bool) -> bool:
    if wanted:
        from ssodkit import __version__

        print(__version__)
        raise typer.Exit
    return wanted


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """What stands before the verb."""

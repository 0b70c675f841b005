"""The command line: one verb per thing a user does. What a verb needs is imported when it runs: help is quick."""

import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ssodkit.engine.stopping import Stopping
from ssodkit.errors import Interrupted, SsodkitError

app = typer.Typer(
    help="Semi-supervised object detection: a few labeled pictures, many without labels, a better detector.",
    epilog="Anywhere in a command, --debug shows where an error comes from.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
recipe_app = typer.Typer(help="Check and show recipes.", no_args_is_help=True)
app.add_typer(recipe_app, name="recipe")


class ImageSize(StrEnum):
    """The size in which a network sees images."""

    ORIGINAL = "original"
    TEST = "test"


class Engine(StrEnum):
    """What runs the cells of a suite."""

    LOCAL = "local"
    SLURM = "slurm"
    RAY = "ray"


class Network(StrEnum):
    """Which of a run's networks."""

    STUDENT = "student"
    TEACHER = "teacher"


class TableFormat(StrEnum):
    """How a table is written."""

    MARKDOWN = "markdown"
    LATEX = "latex"
    CSV = "csv"
    HTML = "html"


RecipeName = Annotated[str, typer.Argument(metavar="RECIPE", help="A file, or the name of a shipped recipe.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change one value of the recipe; may be repeated.")
]
OnDevice = Annotated[str | None, typer.Option("--device", metavar="cpu|cuda", help="Default: cuda where there is one.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")]


def main() -> None:
    """The console script `ssodkit`: what a user can mend ends as a sentence, with exit code 2."""
    # Threads that wait for each other shall sleep: spinning, they take cores from the loader, and a busy machine with
    # two of them trains three times as slowly. OpenMP reads this when torch is imported, which nothing has done yet.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    stopping = Stopping()
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
        rank = f"process {os.environ['RANK']}: " if "RANK" in os.environ else ""
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


@app.command()
def run(
    recipe: Annotated[
        str | None, typer.Argument(metavar="RECIPE", help="A file, or the name of a shipped recipe.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Run folder; default: a new one in runs/.")] = None,
    overrides: Overrides = None,
    device: OnDevice = None,
    processes: Annotated[int, typer.Option(min=1, metavar="N", help="Processes on this machine.")] = 1,
    stop_after: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="End after step N, to go on later.")
    ] = None,
    resume: Annotated[Path | None, typer.Option(metavar="DIR", help="Go on with the run in this folder.")] = None,
) -> None:
    """Train a recipe, or go on with a run."""
    if (recipe is None) == (resume is None):
        raise typer.BadParameter("give either a RECIPE or --resume DIR")
    if resume is not None and (out is not None or overrides):
        raise typer.BadParameter("a resumed run keeps its folder and its recipe: leave out --out and --set")
    from ssodkit.recipe.check import load_recipe

    loaded = load_recipe(recipe, overrides or ()) if recipe is not None else None
    if processes > 1:
        _launch(processes)
        return
    from ssodkit.engine import train

    if loaded is not None:
        train.train(loaded, out=out, device=device, stop_after=stop_after)
    elif resume is not None:
        train.resume(resume, device=device, stop_after=stop_after)


@app.command(name="eval")
def evaluate(run: RunFolder, device: OnDevice = None) -> None:
    """Score the last checkpoint of a run again: student and teacher."""
    from ssodkit.engine.evaluate import evaluate

    evaluate(run, device=device)


@app.command()
def predict(
    run: RunFolder,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGES", help="Image files, and folders of them.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="New folder for the pictures and the COCO results.")],
    score: Annotated[float, typer.Option(min=0.0, max=1.0, metavar="SCORE", help="Lowest score that is drawn.")] = 0.5,
    network: Annotated[
        Network | None, typer.Option(metavar="student|teacher", help="Default: the recipe's result.")
    ] = None,
    device: OnDevice = None,
) -> None:
    """Draw what a network detects.

    The detections are also written as COCO results, with the category ids of the training data.
    """
    from ssodkit.engine.predict import predict

    predict(run, images, out, network=network and network.value, score=score, device=device)


@app.command()
def label(
    run: RunFolder,
    images: Annotated[
        Path | None, typer.Argument(metavar="FOLDER", help="Default: the run's unlabeled images.", show_default=False)
    ] = None,
    *,
    out: Annotated[Path, typer.Option(metavar="FILE", help="New file for the labels.")],
    score: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, metavar="SCORE", help="Default: the recipe's test threshold.")
    ] = None,
    network: Annotated[
        Network | None, typer.Option(metavar="student|teacher", help="Default: the recipe's result.")
    ] = None,
    size: Annotated[
        ImageSize, typer.Option(metavar="original|test", help="Of the images: their own, or as in the test.")
    ] = ImageSize.ORIGINAL,
    device: OnDevice = None,
) -> None:
    """Write pseudo-labels: what a network finds in unlabeled images.

    The file is COCO JSON with a score per box, for a training with `data.unlabeled: {type: stored, file: FILE}`.
    """
    from ssodkit.engine.label import label

    label(run, out, images, network and network.value, score, size.value, device)


@app.command()
def bench(
    suite: Annotated[str, typer.Argument(metavar="SUITE", help="A file, or the name of a shipped suite.")],
    is_list: Annotated[bool, typer.Option("--list", help="Only show what is done and what is left.")] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE,...",
            help="Only cells of this method, percent, fold or seed; may be repeated for several values of a key.",
        ),
    ] = None,
    parallel: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Cells at once: dealt out over the GPUs, or a share of the cores each."),
    ] = None,
    processes: Annotated[
        int, typer.Option(min=1, metavar="N", help="Processes of each cell, on as many GPUs, where there are any.")
    ] = 1,
    results: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Of the result files; default: results/ beside the suite.")
    ] = None,
    runs: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Of the runs; default: runs/bench. No cell is trained twice by those who share it."
        ),
    ] = None,
    engine: Annotated[
        Engine, typer.Option(metavar="local|slurm|ray", help="What runs the cells; default: this machine.")
    ] = Engine.LOCAL,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--engine-set",
            metavar="KEY=VALUE",
            help="For slurm a parameter of submitit, such as timeout_min=60, for ray one of a task, such as "
            "num_gpus=0.5; may be repeated.",
        ),
    ] = None,
    device: OnDevice = None,
) -> None:
    """Train every cell of a suite that has no result file yet.

    May be interrupted and started again at any time, also several times at once with the same --runs: no cell is
    trained twice. A cell that fails does not stop the others; it is tried again at the next start.
    """
    from ssodkit.bench.run import bench, list_cells, open_work

    work = open_work(suite, only or (), results, runs)
    if is_list:
        list_cells(work, parallel)
    elif bench(work, parallel, engine.value, settings or (), device, processes):
        raise typer.Exit(1)


@app.command()
def table(
    suite: Annotated[str, typer.Argument(metavar="SUITE", help="A file, or the name of a shipped suite.")],
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="With --write; default: README.md beside the suite.")
    ] = None,
    form: Annotated[TableFormat, typer.Option("--format", metavar="markdown|latex|csv|html")] = TableFormat.MARKDOWN,
    results: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Result files; default: results/ beside the suite.")
    ] = None,
    metric: Annotated[str | None, typer.Option(metavar="AP", help="Default: that of the suite's papers.")] = None,
    network: Annotated[
        Network | None, typer.Option(metavar="student|teacher", help="Default: the recipes' result.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(metavar="SCORE", help="Test threshold; default: the recipes' first.")
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="Renew the table between its markers in FILE.")] = False,
) -> None:
    """Show the results of a suite beside the papers' numbers."""
    if file is not None and not write:
        raise typer.BadParameter("a FILE is changed only with --write")
    if write and form is not TableFormat.MARKDOWN:
        raise typer.BadParameter("--write writes Markdown: leave out --format")
    from ssodkit.bench.formats import FORMATS
    from ssodkit.bench.renew import renew
    from ssodkit.bench.suite import find_suite
    from ssodkit.bench.table import load_table

    made, refused = load_table(suite, results, metric, network and network.value, threshold)
    for sentence in refused:
        print(f"left out: {sentence}", file=sys.stderr)
    text = FORMATS[form.value](made)
    if write:
        renew(file or find_suite(suite).parent / "README.md", made.suite.name, text)
    else:
        print(text, end="")


@app.command()
def report(
    sources: Annotated[
        list[str], typer.Argument(metavar="RUNS_OR_SUITE", help="Folders of runs, and files or names of suites.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="New folder for the page.")],
    runs: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Of the runs of suites; default: runs/bench.")
    ] = None,
    results: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Of the result files; default: results/ beside the suite.")
    ] = None,
) -> None:
    """Show what happened in runs: a page to open in a browser."""
    from ssodkit.bench.report.page import report

    print(report(sources, out, runs, results))


@app.command(name="list")
def list_(
    kind: Annotated[str | None, typer.Argument(metavar="KIND", help="Such as selector, to see its fields.")] = None,
) -> None:
    """List the plug-ins that recipes can name."""
    from ssodkit.plugins import load_plugins
    from ssodkit.recipe.catalog import describe_slot, list_plugins

    load_plugins()
    print(describe_slot(kind) if kind else list_plugins(), end="")


@recipe_app.command()
def check(recipe: RecipeName, overrides: Overrides = None) -> None:
    """Find every mistake in a recipe.

    No data, weights or labels need exist.
    """
    from ssodkit.recipe.check import load_recipe

    print(f"{load_recipe(recipe, overrides or ()).name}: no mistake found in {recipe}")


@recipe_app.command()
def show(recipe: RecipeName, overrides: Overrides = None) -> None:
    """Print a recipe and where its values come from."""
    from ssodkit.recipe.check import load_with_places
    from ssodkit.recipe.show import show_recipe

    print(show_recipe(*load_with_places(recipe, overrides or ())), end="")


@recipe_app.command()
def schema(
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Default: print it.")] = None,
    recipe: Annotated[str | None, typer.Argument(metavar="RECIPE", help="Include the plug-ins it names.")] = None,
) -> None:
    """Write the JSON schema of recipes.

    With it, editors complete and explain recipes while they are written.
    """
    from ssodkit.plugins import load_plugins
    from ssodkit.recipe.check import read_with_plugins
    from ssodkit.recipe.schema import recipe_schema

    if recipe is None:
        load_plugins()
    else:
        read_with_plugins(recipe)
    text = recipe_schema()
    if out is None:
        print(text, end="")
    else:
        out.write_text(text, encoding="utf-8")


def _launch(processes: int) -> None:
    """Run this command line in several processes on this machine, under torch's own launcher."""
    from torch.distributed import run as launcher
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    for handler in logging.getLogger("torch.distributed").handlers:
        handler.addFilter(lambda record: ".elastic." not in record.name)  # each process speaks for itself
    place = ["--standalone", "--nproc-per-node", str(processes), "-m", "ssodkit"]
    try:
        launcher.run(launcher.parse_args([*place, *_without_processes(sys.argv[1:])]))
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode > 0:
            raise typer.Exit(failure.exitcode) from error
        name = signal.Signals(-failure.exitcode).name
        print(f"process {rank} was ended by {name}; mostly the machine's memory is full then", file=sys.stderr)
        raise typer.Exit(128 - failure.exitcode) from error
    except SignalException as error:
        raise typer.Exit(128 + error.sigval) from error


def _without_processes(arguments: list[str]) -> list[str]:
    kept = [argument for argument in arguments if not argument.startswith("--processes=")]
    if "--processes" in kept:
        position = kept.index("--processes")
        del kept[position : position + 2]
    return kept

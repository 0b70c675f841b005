"""Verbs that compare methods: bench, table, report."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ssodkit.cli.options import Network, OnDevice, TrustPlugins

SuiteName = Annotated[str, typer.Argument(metavar="SUITE", help="A file, or the name of a shipped suite.")]
ResultsFolder = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Of the result files; default: results/ beside the suite.")
]


class Engine(StrEnum):
    """What runs the cells of a suite."""

    LOCAL = "local"
    SLURM = "slurm"
    RAY = "ray"


class TableFormat(StrEnum):
    """How a table is written."""

    MARKDOWN = "markdown"
    LATEX = "latex"
    CSV = "csv"
    HTML = "html"


def bench(
    suite: SuiteName,
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
    results: ResultsFolder = None,
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
    trust_plugins: TrustPlugins = False,
) -> None:
    """Train every cell of a suite that has no result file yet.

    May be interrupted and started again at any time, also several times at once with the same --runs: no cell is
    trained twice. A cell that fails does not stop the others; it is tried again at the next start.
    """
    from ssodkit.bench.run import bench, list_cells, open_work

    work = open_work(suite, only or (), results, runs, trust_plugins or not is_list)
    if is_list:
        list_cells(work, parallel)
    elif bench(work, parallel, engine.value, settings or (), device, processes):
        raise typer.Exit(1)


def table(
    suite: SuiteName,
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="With --write; default: README.md beside the suite.")
    ] = None,
    form: Annotated[TableFormat, typer.Option("--format", metavar="markdown|latex|csv|html")] = TableFormat.MARKDOWN,
    results: ResultsFolder = None,
    metric: Annotated[str | None, typer.Option(metavar="AP", help="Default: that of the suite's papers.")] = None,
    network: Annotated[
        Network | None, typer.Option(metavar="student|teacher", help="Default: the recipes' result.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(metavar="SCORE", help="Test threshold; default: the recipes' first.")
    ] = None,
    per_class: Annotated[
        bool, typer.Option("--per-class", help="Show AP by class, a table for each share of labels.")
    ] = False,
    write: Annotated[bool, typer.Option("--write", help="Renew the table between its markers in FILE.")] = False,
    trust_plugins: TrustPlugins = False,
) -> None:
    """Show the results of a suite beside the papers' numbers."""
    if per_class and (write or metric or threshold or form is not TableFormat.MARKDOWN):
        raise typer.BadParameter(
            "--per-class prints AP in Markdown: leave out --format, --metric, --threshold, --write"
        )
    if file is not None and not write:
        raise typer.BadParameter("a FILE is changed only with --write")
    if write and form is not TableFormat.MARKDOWN:
        raise typer.BadParameter("--write writes Markdown: leave out --format")
    from ssodkit.bench.formats import FORMATS
    from ssodkit.bench.per_class import class_tables
    from ssodkit.bench.renew import renew
    from ssodkit.bench.suite import find_suite
    from ssodkit.bench.table import load_table

    made, refused = load_table(suite, results, metric, network and network.value, threshold, trust_plugins)
    for sentence in refused:
        print(f"left out: {sentence}", file=sys.stderr)
    text = class_tables(made) if per_class else FORMATS[form.value](made)
    if write:
        renew(file or find_suite(suite).parent / "README.md", made.suite.name, text)
    else:
        print(text, end="")


def report(
    sources: Annotated[
        list[str], typer.Argument(metavar="RUNS_OR_SUITE", help="Folders of runs, and files or names of suites.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="New folder for the page.")],
    runs: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Of the runs of suites; default: runs/bench.")
    ] = None,
    results: ResultsFolder = None,
    trust_plugins: TrustPlugins = False,
) -> None:
    """Show what happened in runs: a page to open in a browser."""
    from ssodkit.bench.report.page import report

    print(report(sources, out, runs, results, trust_plugins))

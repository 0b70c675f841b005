"""What a report is of: run folders given one by one, and suites."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ssodkit.bench.folders import CellFolder
from ssodkit.bench.published import read_published
from ssodkit.bench.report.read import GALLERIES, IMAGES, RunRecord, from_result, read_run, with_moments
from ssodkit.bench.results import read_results
from ssodkit.bench.suite import Cell, Suite, cells_of, results_folder
from ssodkit.bench.table import Table, make_table
from ssodkit.engine.checkpoint import RECIPE
from ssodkit.engine.gallery import MOMENTS
from ssodkit.engine.results import RESULT
from ssodkit.errors import RecipeError, TrainingError


class Sources(NamedTuple):
    """What there is to show."""

    records: list[RunRecord]
    sentences: list[str]
    """On what is missing of the suites."""
    tables: list[Table]
    """Of the suites."""


def read_sources(sources: Sequence[str], runs: Path, results: Path | None, trust_plugins: bool = False) -> Sources:
    """The runs and suites.

    A folder is a run, all else the file or the name of a suite, whose cells lie in `runs/CELL/run` or, where that is
    gone, in `results`. Raises TrainingError for a folder that is no run and for a suite without a finished run,
    RecipeError for a suite with a mistake; of both kinds what `make_table` raises.
    """
    folders = [Path(source) for source in dict.fromkeys(sources) if Path(source).is_dir()]
    names = dict(zip(folders, short_names(folders), strict=True))
    suites = [source for source in dict.fromkeys(sources) if not Path(source).is_dir()]
    records: list[RunRecord] = [read_run(folder, names[folder]) for folder in folders]
    missing, tables = [], []
    for source in suites:
        found, sentences, (table,) = _read_suite(source, runs, results, len(suites) > 1, trust_plugins)
        records += found
        missing += sentences
        tables.append(table)
    seen = [place for place, record in enumerate(records) if record.gallery and (record.gallery / MOMENTS).is_file()]
    for place in seen[:GALLERIES]:
        records[place] = with_moments(records[place], IMAGES)
    return Sources(records, missing, tables)


def short_names(folders: Sequence[Path]) -> list[str]:
    """The last parts of the paths, as many as it takes to tell them apart. Each cell's folder is called `run`."""
    paths = [folder.resolve() for folder in folders]
    parts = [path.parts[1:-1] if path.name == "run" and len(path.parts) > 2 else path.parts[1:] for path in paths]
    for length in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def _read_suite(source: str, runs: Path, results: Path | None, is_one_of_several: bool, trust_plugins: bool) -> Sources:
    try:
        suite, cells = cells_of(source, trust_plugins)
    except RecipeError as error:
        if "there is no suite" in str(error):
            raise TrainingError(f"{source} is no folder of a run, and {error}") from error
        raise
    folder = results_folder(source, results)
    found = read_results(folder, cells)
    left = found.of(cells)
    baselines = {row.baseline for row in suite.methods}
    titles = {row.name: row.title for row in suite.methods}
    records, missing = [], 0
    for cell in cells:
        row, prefix = titles[cell.method], f"{suite.name}, " if is_one_of_several else ""
        name, panel = prefix + _name(cell, row, suite), f"{prefix}{cell.share} labeled"
        run = CellFolder(runs / cell.name).run
        if (run / RESULT if cell.hash in left else run / RECIPE).is_file():
            record = read_run(run, name, row, panel)
        elif cell.hash in left:
            record = from_result(left[cell.hash], name, row, panel)
        else:
            missing += 1
            continue
        records.append(replace(record, is_baseline=record.is_baseline or cell.method in baselines))
    if not any(record.is_finished for record in records):
        raise TrainingError(
            f"no cell of the suite {suite.name} is finished: there is nothing of its {len(cells)} cells in {runs} "
            f"and {folder}. Begin with `ssodkit bench {source}`, or say by --runs and --results where they lie."
        )
    sentences = [f"{missing} of the {len(cells)} cells of {suite.name} have not begun."] if missing else []
    table = make_table(suite, cells, left, read_published() if suite.published else ())
    return Sources(records, [*sentences, *found.refused], [table])


def _name(cell: Cell, row: str, suite: Suite) -> str:
    seed = "" if suite.seeds == "per_fold" else f", seed {cell.seed}"
    return f"{row}, {cell.share}, fold {cell.fold}{seed}"

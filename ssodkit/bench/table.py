"""Tables: methods as rows, shares of labels as columns, means over folds beside the papers' numbers.

A table is made of a suite and its result files alone; `layout.py` says it in words, `formats.py` writes it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ssodkit.bench.protocol import Scored, check_labels, check_protocol, choose_scored
from ssodkit.bench.published import SHARES, Published, find_published, read_published
from ssodkit.bench.results import CellResult, read_results
from ssodkit.bench.statistics import Difference, mean, paired_difference, sample_deviation
from ssodkit.bench.suite import Cell, MethodRow, Suite, cells_of, results_folder
from ssodkit.data.shares import Share
from ssodkit.errors import RecipeError
from ssodkit.plugins import suggest


@dataclass(frozen=True)
class Entry:
    """A method at one share of labels."""

    row: MethodRow
    cells: tuple[Cell, ...]
    """All of its trainings."""
    results: tuple[CellResult, ...]
    """Of those that are done."""
    points: Mapping[int, float | None]
    """Fold -> the mean of its seeds, of folds whose seeds are all done; None where the metric has no value."""
    published: Published | None
    baseline: "Entry | None" = None
    """What the gain is over, at the same share."""

    @property
    def share(self) -> Share:
        """How many of the images have labels."""
        return self.cells[0].share

    @property
    def folds(self) -> int:
        """How many folds there are, done or not."""
        return len({cell.fold for cell in self.cells})

    @property
    def steps(self) -> int:
        """Of a training."""
        return self.cells[0].recipe.engine.steps

    @property
    def mean(self) -> float | None:
        """Over the folds that are done, in points."""
        return mean(list(self._values.values()))

    @property
    def deviation(self) -> float | None:
        """The sample's, over the folds that are done, in points."""
        return sample_deviation(list(self._values.values()))

    @property
    def gain(self) -> Difference | None:
        """Over the baseline, paired by fold; None where no fold is done in both, or there is no baseline."""
        theirs = self.baseline._values if self.baseline else {}
        shared = [fold for fold in self._values if fold in theirs]
        return paired_difference([self._values[fold] for fold in shared], [theirs[fold] for fold in shared])

    @property
    def _values(self) -> dict[int, float]:
        return {fold: value for fold, value in self.points.items() if value is not None}


@dataclass(frozen=True)
class Table:
    """A suite's results."""

    suite: Suite
    scored: Scored
    rows: tuple[tuple[Entry, ...], ...]
    """Method by method, an entry for each share of labels."""

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Of all methods."""
        return tuple(entry for row in self.rows for entry in row)

    @property
    def cells(self) -> tuple[Cell, ...]:
        """All trainings, done or not."""
        return tuple(cell for entry in self.entries for cell in entry.cells)

    @property
    def results(self) -> tuple[CellResult, ...]:
        """Of all trainings that are done."""
        return tuple(result for entry in self.entries for result in entry.results)


def load_table(
    path: Path | str,
    results: Path | None = None,
    metric: str | None = None,
    network: str | None = None,
    threshold: float | None = None,
    trust_plugins: bool = False,
) -> tuple[Table, tuple[str, ...]]:
    """The table of a suite, and a sentence for each result file that was left out because it cannot be read.

    `results` is the folder of the result files, by default the suite's own. Errors are those of `make_table`, and
    RecipeError where the suite has a mistake or the folder is none, and of plug-ins as `cells_of` says.
    """
    suite, cells = cells_of(path, trust_plugins)
    found = read_results(results_folder(path, results), cells, brief=True)
    published = read_published() if suite.published else ()
    return make_table(suite, cells, found.of(cells), published, metric, network, threshold), found.refused


def make_table(
    suite: Suite,
    cells: Sequence[Cell],
    results: Mapping[str, CellResult],
    published: Sequence[Published],
    metric: str | None = None,
    network: str | None = None,
    threshold: float | None = None,
) -> Table:
    """The table of a suite's cells; `results` by the hash of the recipe. By default the metric is the papers'.

    Raises RecipeError where metric, network or threshold do not exist or differ, and TrainingError where results must
    not stand side by side.
    """
    done = [(cell, results[cell.hash]) for cell in cells if cell.hash in results]
    metric = metric or (suite.published.metric if suite.published else "AP")
    scored = choose_scored(cells, done, metric, network, threshold)
    check_protocol(cells, done)
    if suite.published:
        _check_published(suite, published)
    places: dict[tuple[str, Share | None], list[Cell]] = {}
    for cell in cells:
        places.setdefault((cell.method, None if suite.shares == (None,) else cell.share), []).append(cell)
    points = {cell.hash: scored.points(result) for cell, result in done}

    def make_entry(row: MethodRow, share: Share | None) -> Entry:
        mine = places[row.name, share]
        return Entry(
            row=row,
            cells=tuple(mine),
            results=tuple(results[cell.hash] for cell in mine if cell.hash in results),
            points=_points_of_folds(mine, points),
            published=_published_beside(suite, row, mine[0].share, metric, published),
        )

    columns = [{row.name: make_entry(row, share) for row in suite.methods} for share in suite.shares]
    for column in columns:
        for entry in column.values():
            for mine, theirs in zip(
                entry.cells, column[entry.row.baseline].cells if entry.row.baseline else (), strict=False
            ):
                check_labels(mine, theirs)
    rows = tuple(
        tuple(
            replace(column[row.name], baseline=column[row.baseline]) if row.baseline else column[row.name]
            for column in columns
        )
        for row in suite.methods
    )
    return Table(suite, scored, rows)


def _points_of_folds(cells: Sequence[Cell], points: Mapping[str, float | None]) -> dict[int, float | None]:
    """Fold -> the mean over its seeds, of the folds of which every seed is done."""
    folds: dict[int, list[Cell]] = {}
    for cell in cells:
        folds.setdefault(cell.fold, []).append(cell)
    whole = {fold: mine for fold, mine in folds.items() if all(cell.hash in points for cell in mine)}
    values = {fold: [points[cell.hash] for cell in mine] for fold, mine in whole.items()}
    return {fold: mean([one for one in mine if one is not None]) for fold, mine in values.items()}


def _published_beside(
    suite: Suite, row: MethodRow, share: Share, metric: str, published: Sequence[Published]
) -> Published | None:
    columns = suite.published
    if columns is None or row.published is None:
        return None
    if columns.percent == "same" and share.shots is not None:
        return None  # nobody publishes by shots here
    percent = share.percent if columns.percent == "same" else columns.percent
    return find_published(
        published,
        method=row.published.method,
        detector=row.published.detector,
        setting=columns.setting,
        percent=percent if columns.setting in SHARES else None,
        metric=metric,
        variant=row.published.variant,
        source=row.published.source,
    )


def _check_published(suite: Suite, published: Sequence[Published]) -> None:
    """Raise RecipeError where a row names a variant or a source that its method and detector are not published with."""
    for row in suite.methods:
        wanted = row.published
        if wanted is None:
            continue
        of_method = [one for one in published if (one.method, one.detector) == (wanted.method, wanted.detector)]
        variants = sorted({one.variant for one in of_method if one.variant is not None})
        if wanted.variant is not None and wanted.variant not in variants:
            raise RecipeError(
                f"the row '{row.name}' asks for the published variant '{wanted.variant}' of '{wanted.method}', and "
                f"there is none; {suggest(wanted.variant, variants) if variants else 'leave `variant` out'}"
            )
        of_row = [one for one in of_method if one.variant == wanted.variant]
        sources = sorted({one.source for one in of_row})
        if wanted.source is not None and not any(one.is_of(wanted.source) for one in of_row):
            raise RecipeError(
                f"the row '{row.name}' asks for the number of '{wanted.method}' that '{wanted.source}' has published, "
                f"and there is none; {suggest(wanted.source, sources) if sources else 'leave `source` out'}"
            )

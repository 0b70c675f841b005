"""AP by class of a suite's methods, in Markdown: classes as rows, as there may be many."""

from ssodkit.bench.formats import escape_markdown
from ssodkit.bench.layout import heading
from ssodkit.bench.statistics import mean
from ssodkit.bench.table import Entry, Table


def class_tables(table: Table) -> str:
    """A table for each share of labels: AP of each class in points, the mean over the trainings that are done.

    Trainings whose result files were written before classes were kept do not count.
    """
    return "\n".join(_of_share(table, [row[place] for row in table.rows]) for place in range(len(table.rows[0])))


def _of_share(table: Table, entries: list[Entry]) -> str:
    columns = [_averages(table, entry) for entry in entries]
    names = list(dict.fromkeys(name for column in columns for name in column))
    counted = [sum(bool(result.per_class) for result in entry.results) for entry in entries]
    heads = [f"{entry.row.title} ({count})" for entry, count in zip(entries, counted, strict=True)]
    about = f"AP by class, {table.scored.network}, {heading(table, entries[0])}; in brackets the trainings."
    if not names:
        return f"{about} No result file has them: those of earlier versions keep the mean alone.\n"
    rows = [[name, *(_points(column.get(name)) for column in columns)] for name in names]
    lines = [[escape_markdown(cell) for cell in line] for line in (["class", *heads], *rows)]
    lines.insert(1, ["---", *["---:"] * len(heads)])
    return "\n".join([about, "", *(f"| {' | '.join(line)} |" for line in lines)]) + "\n"


def _averages(table: Table, entry: Entry) -> dict[str, float | None]:
    """Class -> its mean AP in points over the trainings of a method; None where no test image has such a box."""
    values: dict[str, list[float]] = {}
    for result in entry.results:
        for name, scores in result.per_class.get(table.scored.network_of(result), {}).items():
            values.setdefault(name, []).extend([] if scores.AP is None else [100.0 * scores.AP])
    return {name: mean(points) for name, points in values.items()}


def _points(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"

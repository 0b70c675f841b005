"""AP by class of a suite's methods: classes as rows, as there may be many."""

import html
from collections.abc import Sequence
from dataclasses import dataclass

from ssodkit.bench.formats import escape_markdown
from ssodkit.bench.layout import heading
from ssodkit.bench.statistics import mean
from ssodkit.bench.table import Entry, Table


@dataclass(frozen=True)
class ClassTable:
    """AP of each class at one share of labels, in points, the means over the trainings that are done.

    Trainings whose result files were written before classes were kept do not count.
    """

    about: str
    lines: tuple[tuple[str, ...], ...]
    """The head, then a line for each class; empty where no result file has them."""


def class_tables(table: Table) -> str:
    """In Markdown, a table for each share of labels."""
    return "\n".join(map(_markdown, tables_by_class(table)))


def class_tables_html(table: Table) -> str:
    """A piece of a page: the tables of those shares whose result files have classes, folded; nothing where none has."""
    return "".join(_html(each) for each in tables_by_class(table) if each.lines)


def tables_by_class(table: Table) -> list[ClassTable]:
    """One for each share of labels."""
    return [_of_share(table, [row[place] for row in table.rows]) for place in range(len(table.rows[0]))]


def _of_share(table: Table, entries: Sequence[Entry]) -> ClassTable:
    columns = [_averages(table, entry) for entry in entries]
    names = list(dict.fromkeys(name for column in columns for name in column))
    counted = [sum(bool(result.per_class) for result in entry.results) for entry in entries]
    heads = [f"{entry.row.title} ({count})" for entry, count in zip(entries, counted, strict=True)]
    about = f"AP by class, {table.scored.network}, {heading(table, entries[0])}; in brackets the trainings."
    lines = [("class", *heads), *((name, *(_points(column.get(name)) for column in columns)) for name in names)]
    return ClassTable(about, tuple(lines) if names else ())


def _markdown(shown: ClassTable) -> str:
    if not shown.lines:
        return f"{shown.about} No result file has them: those of earlier versions keep the mean alone.\n"
    lines = [[escape_markdown(cell) for cell in line] for line in shown.lines]
    lines.insert(1, ["---", *["---:"] * (len(lines[0]) - 1)])
    return "\n".join([shown.about, "", *(f"| {' | '.join(line)} |" for line in lines)]) + "\n"


def _html(shown: ClassTable) -> str:
    head, *rows = ([html.escape(cell) for cell in line] for line in shown.lines)
    heads = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "\n".join(
        f'<tr><th scope="row">{name}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>' for name, *cells in rows
    )
    about = html.escape(shown.about)
    return (
        f'<details>\n<summary>{about}</summary>\n<div class="scroll" role="region" aria-label="{about}" tabindex="0">\n'
        f"<table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n</div>\n</details>\n"
    )


def _averages(table: Table, entry: Entry) -> dict[str, float | None]:
    """Class -> its mean AP in points over the trainings of a method; None where no test image has such a box."""
    values: dict[str, list[float]] = {}
    for result in entry.results:
        for name, scores in result.per_class.get(table.scored.network_of(result), {}).items():
            values.setdefault(name, []).extend([] if scores.AP is None else [100.0 * scores.AP])
    return {name: mean(points) for name, points in values.items()}


def _points(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"

"""Writes a report: a folder with one page, its scripts and its pictures, that needs nothing from anywhere else.

What is read by everyone stands in the page as HTML; figures and galleries are in `data.js`, since a page from the file
system may not fetch.
"""

import html
import json
from collections.abc import Iterable, Sequence
from datetime import timedelta
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from ssodkit.bench.folders import RUNS
from ssodkit.bench.formats import html_table
from ssodkit.bench.per_class import class_tables_html
from ssodkit.bench.report.curves import (
    class_figures,
    health_figures,
    learning_figures,
    loss_figures,
    pace_figures,
    reliability_figures,
    scores,
    threshold_figures,
)
from ssodkit.bench.report.figures import Figure
from ssodkit.bench.report.gallery import gallery_data
from ssodkit.bench.report.read import RunRecord
from ssodkit.bench.report.sources import Sources, read_sources
from ssodkit.bench.table import Table
from ssodkit.data.files import write_whole
from ssodkit.engine.folders import filled_whole, refuse_used
from ssodkit.engine.nested import flatten

PAGE = "index.html"
COLUMNS = ("run", "AP teacher", "AP student", "steps", "wall time", "images/s", "memory", "recipe", "device", "commit")
"""Of the table of runs."""


def report(
    sources: Sequence[str],
    out: Path,
    runs: Path | None = None,
    results: Path | None = None,
    trust_plugins: bool = False,
) -> Path:
    """Write the report of runs and suites to the new or empty folder `out`; the page that is to be opened.

    `runs` and `results` say where those of suites lie, by default where `ssodkit bench` leaves them.
    Plug-ins of suites are run as `cells_of` says, those of run folders never. Raises TrainingError or RecipeError where
    a source is neither, or `out` is in use; then nothing is written.
    """
    refuse_used(out)
    read = read_sources(sources, runs or RUNS, results, trust_plugins)
    with filled_whole(out) as draft:
        write_page(read, draft)
    return out / PAGE


def write_page(read: Sources, out: Path) -> None:
    """Write all files of a report to a folder."""
    from plotly.offline import get_plotlyjs

    records = read.records
    sections = {
        "learning": learning_figures(records),
        "classes": class_figures(records),
        "health": health_figures(records),
        "thresholds": threshold_figures(records),
        "reliability": reliability_figures(records),
        "losses": loss_figures(records),
        "pace": pace_figures(records),
    }
    galleries = gallery_data(records, out)
    data = {
        "figures": {
            figure.key: [content for _, content in figure.variants]
            for figures in sections.values()
            for figure in figures
        },
        "galleries": galleries,
        "recipes": [record.recipe_text for record in records],
        "differences": recipe_table(records),
    }
    ours = files("ssodkit.bench.report")
    page = Template((ours / "page.html").read_text(encoding="utf-8")).substitute(
        tables="".join(map(_suite, read.tables)),
        table_links="".join(f"<a href='#suite-{html.escape(each.suite.name)}'>Table</a>\n" for each in read.tables[:1]),
        overview=_overview(records),
        notes="".join(
            f"<p class='note'>{html.escape(sentence)}</p>" for sentence in [*read.sentences, *_notes(records)]
        ),
        gallery_choice=_select("gallery-run", "run", [gallery["name"] for gallery in galleries]),
        gallery_note=html.escape(_gallery_note(records, len(galleries))),
        recipe_choices="".join(
            _select(key, label, [record.name for record in records], chosen)
            for key, label, chosen in (("recipe-a", "recipe of", 0), ("recipe-b", "beside", min(1, len(records) - 1)))
        ),
        **{name: "".join(map(_figure, figures)) for name, figures in sections.items()},
    )
    write_whole(out / PAGE, page)
    write_whole(out / "data.js", f"const REPORT = {_to_script(data)};\n")
    write_whole(out / "plotly.min.js", get_plotlyjs())
    for name in ("page.css", "page.js"):
        write_whole(out / name, (ours / name).read_text(encoding="utf-8"))


def recipe_table(records: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """Every key in which any two of the recipes differ, and its values, run by run, as JSON; None where it is not."""
    leaves = [flatten(record.recipe) for record in records]
    keys = dict.fromkeys(key for each in leaves for key in each)
    rows = [
        {"key": key, "values": [json.dumps(each[key], ensure_ascii=False) if key in each else None for each in leaves]}
        for key in keys
    ]
    return [row for row in rows if len(set(row["values"])) > 1]


def _suite(table: Table) -> str:
    name = html.escape(table.suite.name)
    content = html_table(table) + class_tables_html(table)
    return f"<section id='suite-{name}' class='suite'>\n<h2>{name}</h2>\n{content}</section>\n\n"


def _overview(records: Sequence[RunRecord]) -> str:
    rows = []
    for record in records:
        result = record.result or {}
        curves = scores(record, "AP")
        steps = record.recipe["engine"]["steps"]
        cells = [
            html.escape(record.name),
            *(_last_score(curves, network, result.get("result")) for network in ("teacher", "student")),
            str(steps) if record.is_finished else f"{record.last_step} of {steps}",
            str(timedelta(seconds=round(result["seconds"]))) if "seconds" in result else "–",
            "–" if record.images_per_second is None else f"{record.images_per_second:.1f}",
            "–" if record.memory_gb is None else f"{record.memory_gb:.2f} GB",
            html.escape(str(record.recipe["name"])),
            html.escape(str(result.get("device", "–"))),
            html.escape(_commits(result.get("sources") or ())),
        ]
        first, *rest = cells
        rows.append(f"<tr><th scope='row'>{first}</th>{''.join(f'<td>{cell}</td>' for cell in rest)}</tr>")
    head = "".join(f"<th scope='col'>{name}</th>" for name in COLUMNS)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _last_score(curves: Any, network: str, result: str | None) -> str:
    values = list(curves.get(network, {}).values())
    if not values:
        return "–"
    shown = f"{values[-1]:.1f}"
    return f"<strong>{shown}</strong>" if network == result else shown


def _commits(sources: Iterable[Any]) -> str:
    """Short, with `+` where the checkout was changed."""
    shown = [source["commit"][:7] + ("" if source["clean"] else "+") for source in sources if source["commit"]]
    return ", ".join(shown) or "–"


def _notes(records: Sequence[RunRecord]) -> list[str]:
    notes = [f"{record.name}: {note}" for record in records for note in record.notes]
    unfinished = [record.name for record in records if not record.is_finished]
    if unfinished:
        notes.append(f"Not finished, shown as far as it is: {', '.join(unfinished)}.")
    return notes


def _gallery_note(records: Sequence[RunRecord], shown: int) -> str:
    if shown == 0:
        return "Nothing to show: no run has a gallery (watch.gallery in its recipe) or has reached a moment of it."
    return "" if shown == len(records) else f"{shown} of the {len(records)} runs are shown with a gallery."


def _figure(figure: Figure) -> str:
    key = html.escape(figure.key)
    note = f"<p class='note'>{html.escape(figure.note)}</p>" if figure.note else ""
    if not figure.variants:
        return f"<article class='card'><h3>{html.escape(figure.title)}</h3>{note}</article>"
    labels = [label for label, _ in figure.variants]
    choice = _select(f"choice-{key}", "show", labels) if len(labels) > 1 else ""
    return (
        f"<article class='card figure' data-figure='{key}'><h3>{html.escape(figure.title)}</h3>{choice}"
        f"<div class='plot' role='img' aria-label='{html.escape(figure.title)}'></div><ul class='legend'></ul>"
        f"<p class='caption'>{html.escape(figure.caption)}</p>{note}</article>"
    )


def _select(key: str, label: str, names: Sequence[str], chosen: int = 0) -> str:
    options = "".join(
        f"<option value='{place}'{' selected' if place == chosen else ''}>{html.escape(name)}</option>"
        for place, name in enumerate(names)
    )
    return f"<label class='choice'>{label} <select id='{key}'>{options}</select></label>"


def _to_script(data: Any) -> str:
    """JSON that means the same in a script: no tag can end in it."""
    return json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")

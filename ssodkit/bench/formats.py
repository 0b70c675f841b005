"""Tables as text: Markdown, LaTeX and HTML say what a reader needs, CSV says everything. All text is escaped."""

import csv
import html
import io
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import groupby
from typing import Any

from ssodkit.bench.layout import Column, Text, describe_device, describe_sources, lay_out
from ssodkit.bench.statistics import mean
from ssodkit.bench.table import Entry, Table


def to_markdown(table: Table) -> str:
    """A pipe table, with what it says above and footnotes below."""
    layout = lay_out(table)
    escape = escape_markdown

    def line(cells: Iterator[str]) -> str:
        return f"| {' | '.join(cells)} |"

    heads = (f"{column.group}: {column.head}" if column.group else column.head for column in layout.columns)
    warning = [f"**{escape(layout.warning)}**", ""] if layout.warning else []
    notes = [f"{number}. {escape(text)}" for number, text in enumerate(layout.notes, start=1)]
    lines = [
        *warning,
        escape(layout.about),
        "",
        *(f"- {escape(fact)}" for fact in layout.facts),
        "",
        line(escape(head) for head in heads),
        line("---" if place == 0 else "---:" for place in range(len(layout.columns))),
        *(line(escape(cell.text) + _marks(cell, " <sup>{}</sup>") for cell in row) for row in layout.rows),
        *(["", *notes] if notes else []),
    ]
    return "\n".join(lines) + "\n"


def to_latex(table: Table) -> str:
    """A `table` for a paper, shrunk to the width of its line where it is wider; needs booktabs and graphicx."""
    layout = lay_out(table)
    escape = _escape_latex

    def line(cells: Iterator[str]) -> str:
        return " & ".join(cells) + r" \\"

    lines = [
        "% needs \\usepackage{booktabs,graphicx}",
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{escape(layout.about)}}}",
        f"\\label{{tab:{layout.name.replace('_', '-')}}}",
        "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%",
        f"\\begin{{tabular}}{{l{'r' * (len(layout.columns) - 1)}}}",
        "\\toprule",
        *_latex_groups(layout.columns),
        line(escape(column.head) for column in layout.columns),
        "\\midrule",
        *(line(escape(cell.text) + _marks(cell, "\\textsuperscript{{{}}}") for cell in row) for row in layout.rows),
        "\\bottomrule",
        "\\end{tabular}}",
        "\\par\\smallskip",
        "\\begin{minipage}{\\linewidth}\\footnotesize",
        *([f"\\textbf{{{escape(layout.warning)}}}\\par"] if layout.warning else []),
        *(f"{escape(fact)}\\par" for fact in layout.facts),
        *(f"\\textsuperscript{{{number}}} {escape(text)}\\par" for number, text in enumerate(layout.notes, start=1)),
        "\\end{minipage}",
        "\\end{table}",
    ]
    return "\n".join(lines) + "\n"


def to_html(table: Table) -> str:
    """A page of its own, without network, in the reader's choice of light and dark."""
    return HTML.format(title=html.escape(table.suite.name), table=html_table(table))


def html_table(table: Table) -> str:
    """A piece of a page: the table, what it says above, and footnotes below, whose ids begin with the suite's name."""
    layout = lay_out(table)
    escape = html.escape
    name = escape(layout.name)
    warning = f'<p class="warning"><strong>{escape(layout.warning)}</strong></p>\n' if layout.warning else ""
    head = "".join(
        f'<th colspan="{len(columns)}" scope="colgroup">{escape(group)}</th>' if group else "<td></td>" * len(columns)
        for group, columns in _groups(layout.columns)
    )
    heads = "".join(f'<th scope="col">{escape(column.head)}</th>' for column in layout.columns)
    rows = "\n".join(f"<tr>{''.join(_html_cells(row, name))}</tr>" for row in layout.rows)
    facts = "\n".join(f"<li>{escape(fact)}</li>" for fact in layout.facts)
    notes = "\n".join(
        f'<li id="{name}-note-{number}">{escape(text)}</li>' for number, text in enumerate(layout.notes, start=1)
    )
    return TABLE.format(
        title=name,
        warning=warning,
        about=escape(layout.about),
        facts=facts,
        groups=head,
        heads=heads,
        rows=rows,
        notes=f"<ol>\n{notes}\n</ol>\n" if notes else "",
    )


HTML = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 1rem/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem;
  background: Canvas; color: CanvasText; }}
.warning {{ border: 2px solid; padding: 0.5rem 1rem; }}
.scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: 0.3rem 0.7rem; text-align: right; white-space: nowrap; }}
th:first-child {{ text-align: left; }}
th[scope="colgroup"] {{ text-align: center; border-bottom: 1px solid; }}
tbody tr {{ border-top: 1px solid color-mix(in srgb, currentColor 25%, transparent); }}
</style>
</head>
<body>
<h1>{title}</h1>
{table}</body>
</html>
"""

TABLE = """{warning}<p>{about}</p>
<ul>
{facts}
</ul>
<div class="scroll" role="region" aria-label="{title}" tabindex="0">
<table>
<thead>
<tr>{groups}</tr>
<tr>{heads}</tr>
</thead>
<tbody>
{rows}
</tbody>
</table>
</div>
{notes}"""


def to_csv(table: Table) -> str:
    """A line per method and share of labels, in full precision; scores in points, what is missing empty."""
    stream = io.StringIO()
    lines = [_csv_line(table, entry) for entry in table.entries]
    writer = csv.DictWriter(stream, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return stream.getvalue()


FORMATS: Mapping[str, Callable[[Table], str]] = {
    "markdown": to_markdown,
    "latex": to_latex,
    "csv": to_csv,
    "html": to_html,
}


def _csv_line(table: Table, entry: Entry) -> dict[str, Any]:
    gain, published, results = entry.gain, entry.published, entry.results
    low, high = (gain.interval if gain else None) or (None, None)
    networks = dict.fromkeys(table.scored.network_of(result) for result in results) or [table.scored.network]
    return {
        "suite": table.suite.name,
        "warning": table.suite.warning,
        "method": entry.row.name,
        "title": entry.row.title,
        "percent": entry.share.percent if entry.share.shots is None else None,
        "shots": entry.share.shots,
        "metric": table.scored.metric,
        "network": " ".join(networks),
        "threshold": table.scored.threshold,
        "steps": entry.steps,
        "trainings": len(entry.cells),
        "trainings_done": len(results),
        "folds": entry.folds,
        "folds_done": len(entry.points),
        "mean": entry.mean,
        "deviation": entry.deviation,
        "baseline": entry.row.baseline,
        "baseline_steps": entry.baseline.steps if entry.baseline else None,
        "gain": gain.mean if gain else None,
        "gain_low": low,
        "gain_high": high,
        "gain_folds": gain.pairs if gain else None,
        "published": published.value if published else None,
        "published_spread": published.spread if published else None,
        "published_setting": published.setting if published else None,
        "published_percent": published.percent if published else None,
        "published_variant": published.variant if published else None,
        "published_network": published.network if published else None,
        "published_origin": published.origin if published else None,
        "published_unconfirmed": published.unconfirmed if published else None,
        "published_note": published.note if published else None,
        "published_source": published.source if published else None,
        "seconds": mean([result.seconds for result in results]),
        "images_per_second": mean([one.images_per_second for one in results if one.images_per_second is not None]),
        "memory_gb": mean([result.memory_gb for result in results if result.memory_gb is not None]),
        "devices": "; ".join(dict.fromkeys(describe_device(result) for result in results)),
        "sources": "; ".join(describe_sources(results)),
        "fold_hashes": " ".join(dict.fromkeys(result.fold.hash for result in results)),
    }


def _marks(cell: Text, form: str) -> str:
    return form.format(",".join(map(str, cell.notes))) if cell.notes else ""


def _groups(columns: tuple[Column, ...]) -> list[tuple[str, list[Column]]]:
    return [(group, list(members)) for group, members in groupby(columns, key=lambda column: column.group)]


def _html_cells(row: tuple[Text, ...], name: str) -> Iterator[str]:
    for place, cell in enumerate(row):
        links = ", ".join(f'<a href="#{name}-note-{number}">{number}</a>' for number in cell.notes)
        text = html.escape(cell.text) + (f" <sup>{links}</sup>" if links else "")
        yield f'<th scope="row">{text}</th>' if place == 0 else f"<td>{text}</td>"


def _latex_groups(columns: tuple[Column, ...]) -> list[str]:
    """The heads over several columns, and the rules under them."""
    heads: list[str] = []
    rules: list[str] = []
    start = 1
    for group, members in _groups(columns):
        end = start + len(members) - 1
        heads.append(f"\\multicolumn{{{len(members)}}}{{c}}{{{_escape_latex(group)}}}")
        rules += [f"\\cmidrule(lr){{{start}-{end}}}"] if group else []
        start = end + 1
    return [" & ".join(heads) + r" \\", *rules]


def escape_markdown(text: str) -> str:
    """No markup but what was meant: `_` inside a word is none."""
    text = re.sub(r"([\\|*`])|(?<!\w)(_)|(_)(?!\w)", lambda found: "\\" + found[0], " ".join(text.split()))
    return text.replace("&", "&amp;").replace("<", "&lt;")


LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}


def _escape_latex(text: str) -> str:
    """Text for TeX; the sign of a number is a minus, not a hyphen, and a quotation begins with a quote of its own."""
    escaped = "".join(LATEX.get(sign, sign) for sign in " ".join(text.split()))
    escaped = re.sub(r"(?<!\S)'(?=\S)", "`", escaped)
    return "--" if escaped == "-" else re.sub(r"(?:(?<=^)|(?<=[ (]))-(?=\d)", "$-$", escaped)

"""The figures of a report, built with Plotly, as plain JSON. Names from outside are escaped: Plotly reads tags.

A color is an index into the palette of the page's light or dark look, or `neutral`; the page's script fills it in.
"""

import html
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from ssodkit.bench.report.read import RunRecord

POINTS = 400
"""At most, of a line; longer ones are averaged in equal pieces."""
MARKED = 30
"""Up to so many points of a line are marked."""
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "star", "cross")
DASHES = ("solid", "dash", "dot", "dashdot")

Curve = Mapping[int, float | None]
"""Step -> value; None leaves a gap."""
Trace = dict[str, Any]


@dataclass(frozen=True)
class Figure:
    """One place of the page where one of several variants is shown."""

    key: str
    title: str
    caption: str
    variants: tuple[tuple[str, dict[str, Any]], ...]
    """Label, and the figure as Plotly's JSON."""
    note: str = ""
    """Says what is not shown, and why."""


@dataclass(frozen=True)
class Look:
    """By which color and symbol a row is known in all figures; baselines are gray."""

    color: str
    place: int


def looks(records: Sequence[RunRecord]) -> dict[str, Look]:
    """One per row of the report."""
    found: dict[str, Look] = {}
    counts = {True: 0, False: 0}
    for record in records:
        if record.row not in found:
            place = counts[record.is_baseline]
            found[record.row] = Look(f"{'neutral' if record.is_baseline else 'color'} {place}", place)
            counts[record.is_baseline] += 1
    return found


def by_run(
    key: str,
    title: str,
    caption: str,
    records: Sequence[RunRecord],
    lines: Mapping[str, Callable[[RunRecord], Mapping[str, Curve]]],
    absent: str,
    extra: Callable[[Sequence[RunRecord]], list[Trace]] = lambda shown: [],
    **axis: Any,
) -> Figure:
    """A figure with a line for each row: the mean over its finished runs, these faint behind it.

    `lines` maps the label of a variant to what is drawn of a run: by name (the first is solid) a curve. `absent` says
    why runs have none.
    """
    look, variants, shown = looks(records), [], set()
    panels = list(dict.fromkeys(record.panel for record in records))
    for label, draw in lines.items():
        for panel in panels:
            drawn = [(record, draw(record)) for record in records if record.panel == panel]
            drawn = [(record, curves) for record, curves in drawn if any(_has_points(c) for c in curves.values())]
            if not drawn:
                continue
            shown |= {record.name for record, _ in drawn}
            is_marked = all(len(curve) <= MARKED for _, curves in drawn for curve in curves.values())
            traces = [trace for row in look for trace in _row_traces(row, look[row], drawn, is_marked)]
            traces += extra([record for record, _ in drawn])
            name = ", ".join(part for part in (label, panel) if part)
            variants.append((name, make_figure(traces, **axis)))
    return Figure(key, title, caption, tuple(variants), not_shown(records, shown, absent))


def _row_traces(
    row: str, look: Look, drawn: list[tuple[RunRecord, Mapping[str, Curve]]], is_marked: bool
) -> list[Trace]:
    own = [(record, curves) for record, curves in drawn if record.row == row]
    traces: list[Trace] = []
    for place, name in enumerate(dict.fromkeys(name for _, curves in own for name in curves)):
        style: dict[str, Any] = {"dash": DASHES[min(place, 1)], "color": look.color, "group": row, "entry": place == 0}
        mine = [(record, curves[name]) for record, curves in own if _has_points(curves.get(name, {}))]
        if not mine:
            continue
        title = f"{row}, {name}" if name else row
        symbol = SYMBOLS[look.place % len(SYMBOLS)] if is_marked else None
        if len(mine) == 1:
            traces.append(line(row, mine[0][1], hover=title, symbol=symbol, **style))
            continue
        for record, curve in mine:
            faint = f"{record.name}, {name}" if name else record.name
            traces.append(line(row, curve, hover=faint, symbol=symbol, faint=True, **style | {"entry": False}))
        finished = [curve for record, curve in mine if record.is_finished] or [curve for _, curve in mine]
        hover = f"{title}: mean of {len(finished)} runs" if len(finished) > 1 else title
        traces.append(line(row, mean_curve(finished), hover=hover, symbol=symbol, **style))
    return traces


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """At the steps at which all of them have a value."""
    steps = [step for step in curves[0] if all(curve.get(step) is not None for curve in curves)]
    return {step: fmean(value for curve in curves if (value := curve[step]) is not None) for step in steps}


def line(
    name: str,
    curve: Curve,
    color: str,
    *,
    hover: str = "",
    dash: str = "solid",
    symbol: str | None = None,
    group: str = "",
    entry: bool = True,
    faint: bool = False,
) -> Trace:
    """A trace of a curve; `entry`: whether the legend names it, `symbol`: how its points are marked."""
    steps, values = thin(curve)
    return {
        "type": "scatter",
        "name": text(name),
        "x": steps,
        "y": values,
        "mode": "lines" if symbol is None else "lines+markers",
        "line": {"width": 1.0 if faint else 2.0, "dash": dash},
        "marker": {"symbol": symbol, "size": 4 if faint else 7} if symbol else {},
        "opacity": 0.5 if faint else 1.0,
        "legendgroup": text(group or name),
        "showlegend": entry,
        "hovertemplate": f"{text(hover or name)}<br>step %{{x}}: %{{y:.4~g}}<extra></extra>",
        "meta": {"color": color, "title": name},
    }


def thin(curve: Curve) -> tuple[list[int], list[float | None]]:
    """Steps and values, at most POINTS of them: means of equal pieces, at the pieces' last steps."""
    points = list(curve.items())
    size = -(-len(points) // POINTS) or 1
    if size == 1:
        return [step for step, _ in points], [value for _, value in points]
    pieces = [points[start : start + size] for start in range(0, len(points), size)]
    known = [[value for _, value in piece if value is not None] for piece in pieces]
    return [piece[-1][0] for piece in pieces], [fmean(values) if values else None for values in known]


def make_figure(traces: Iterable[Trace], *, x: str = "step", y: str = "", **axis: Any) -> dict[str, Any]:
    """Checked by Plotly, as JSON; what both looks share of the layout."""
    import plotly.graph_objects as go

    figure = go.Figure(list(traces))
    figure.update_layout(
        template="none",
        margin={"l": 52, "r": 12, "t": 12, "b": 44},
        showlegend=False,  # the page has one of its own, which wraps
        hovermode="closest",
        xaxis={"title": {"text": x, "standoff": 6}, "automargin": True, "rangemode": "tozero"},
        yaxis={"title": {"text": y, "standoff": 6}, "automargin": True, **axis},
    )
    content: dict[str, Any] = figure.to_plotly_json()
    content["layout"].pop("template")
    return content


def text(name: str) -> str:
    """A name as Plotly shows it: no tag, no entity and no reference to a value in it means anything."""
    return html.escape(name, quote=False).replace("{", "&#123;")


def _has_points(curve: Curve) -> bool:
    return any(value is not None for value in curve.values())


def not_shown(records: Sequence[RunRecord], shown: set[str], absent: str) -> str:
    """Which runs are not among those that are `shown` by name, and that `absent` is why; empty where all are."""
    absents = [record for record in records if record.name not in shown]
    if not absents:
        return ""
    if not shown:
        return f"Nothing to show: {absent}."
    rows = {record.row for record in records if record.name in shown}
    names = list(dict.fromkeys(record.name if record.row in rows else record.row for record in absents))
    listed = "; ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
    return f"Not shown: {listed} ({absent})."

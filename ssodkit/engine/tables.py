"""Tables for the reader of a terminal."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

COLUMNS = {
    "AP": "AP",
    "AP50": "AP50",
    "AP75": "AP75",
    "AP_voc07": "AP, VOC07",
    "AP50_voc07": "AP50, VOC07",
    "AP50_voc10": "AP50, VOC10",
}
"""Name of a score -> heading of its column, where the recipe's metric has it."""


CLASSES_SHOWN, CLASSES_IN_A_LINE = 20, 10
"""Up to so many are all listed."""


def score_table(result: Mapping[str, Any]) -> Table:
    """Scores in percent, one row for each network and test threshold; `result` as `result.json` has it."""
    thresholds: Mapping[str, Mapping[str, Mapping[str, float | None]]] = result["thresholds"]
    names = [name for name in COLUMNS if name in next(iter(next(iter(thresholds.values())).values()))]
    table = Table(title=f"test scores after step {result['step']}, in percent", title_justify="left")
    table.add_column("network", no_wrap=True)
    table.add_column("score above")
    for name in names:
        table.add_column(COLUMNS[name], justify="right")
    for place, (threshold, networks) in enumerate(thresholds.items()):
        for network, scores in networks.items():
            is_result = place == 0 and network == result["result"]
            cells = [_percent(scores[name]) for name in names]
            table.add_row(network + " (the result)" * is_result, threshold, *cells, style="bold" if is_result else None)
    return table


def class_table(result: Mapping[str, Any]) -> Table:
    """AP in percent of each class, for the network that is the result; the best first, those without a box last.

    Of more than `CLASSES_SHOWN`, the best half of as many and the worst.
    """
    table = Table(title=f"{result['result']} by class, in percent", title_justify="left")
    table.add_column("class")
    for name in ("boxes", "AP", "AP50"):
        table.add_column(name, justify="right")
    rows = best_first(result["per_class"][result["result"]])
    hidden = range(CLASSES_SHOWN // 2, len(rows) - CLASSES_SHOWN // 2) if len(rows) > CLASSES_SHOWN else range(0)
    for place, (name, scores) in enumerate(rows):
        if place not in hidden:
            table.add_row(Text(name), str(scores["boxes"]), _percent(scores["AP"]), _percent(scores["AP50"]))
        elif place == hidden.start:
            table.add_row(Text(f"({len(hidden)} between them)"), "", "", "")
    return table


def classes_in_words(result: Mapping[str, Any]) -> str:
    """AP of each class of the result in a line, such as ` (cat 31.2, dog 9.8)`; empty if there are many."""
    rows = best_first(result["per_class"][result["result"]])
    if len(rows) > CLASSES_IN_A_LINE:
        return ""
    listed = ", ".join(f"{name} {_percent(scores['AP'])}" for name, scores in rows)
    return f" ({listed})"


def best_first(classes: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any]]]:
    """Classes and their scores by falling AP; those that have none are last."""
    return sorted(classes.items(), key=lambda pair: -1.0 if pair[1]["AP"] is None else pair[1]["AP"], reverse=True)


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.1f}"

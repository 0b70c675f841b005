"""What a comparison says in words: whether the unlabeled images helped, and how sure that is."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

NOISE = 2.0
"""AP by which one more training of the same recipe has moved a run."""


def print_verdict(comparison: Mapping[str, Any]) -> None:
    """The classes of both sides, and the sentences."""
    console = Console(soft_wrap=True)
    console.print(_table(comparison))
    console.print(Text(verdict(comparison)))
    console.print(Text(choice(comparison["chosen"])))


def verdict(comparison: Mapping[str, Any]) -> str:
    """Whether the unlabeled images helped, in one or two sentences."""
    difference, interval = 100 * comparison["difference"], comparison["interval"]
    draws, over = comparison["draws"], comparison["interval_over"]
    if interval is None:
        return f"{difference:+.1f} AP with the unlabeled images; too few {over} to say how sure that is."
    low, high = (100 * end for end in interval)
    if low > 0:
        said = "The unlabeled images helped"
    elif high < 0:
        said = "The unlabeled images did harm"
    else:
        said = "It is not shown that the unlabeled images help"
    where = f"{draws} draws" if over == "draws" else f"the {comparison['test_images']} test images"
    text = f"{said}: {difference:+.1f} AP, 95 % interval {low:+.1f} to {high:+.1f} over {where}."
    if over != "draws":
        text += f" That is one pair of trainings, and another moves it by about {NOISE:.0f} AP: `--folds 5` says more."
    elif draws < 5:
        text += " From so few draws the interval is wide: `--folds 5` says more."
    if over == "draws" and not comparison["redrawn"]:
        text += " All draws have the same labels, and another seed: data.shots or data.percent would draw others."
    return text


def choice(chosen: Mapping[str, Any]) -> str:
    """Which network is used from here on."""
    whose = "of the control" if chosen["run"] != "." else "of the run"
    if chosen["by"] == "recipe":
        return f"predict, label, eval and load use the {chosen['network']} {whose}, as evaluation.stands says."
    how = f"{100 * chosen['AP']:.1f} AP on the {chosen['by']} images"
    if chosen["by"] == "test":
        how += ", on which it was chosen, so that its score is a little too good"
    return f"predict, label, eval and load use the {chosen['network']} {whose}: {how}."


def _table(comparison: Mapping[str, Any]) -> Table:
    table = Table(title="AP by class, in percent, test images", title_justify="left")
    table.add_column("class")
    for heading in ("with unlabeled images", "labels alone", "difference"):
        table.add_column(heading, justify="right")
    ours = [pair["AP"] for pair in comparison["pairs"]]
    controls = [pair["control_AP"] for pair in comparison["pairs"]]
    for name, scores in comparison["per_class"].items():
        table.add_row(Text(name), *_cells(scores["AP"], scores["control_AP"]))
    table.add_row("all", *_cells(sum(ours) / len(ours), sum(controls) / len(controls)), style="bold")
    return table


def _cells(ours: float | None, control: float | None) -> list[str]:
    if ours is None or control is None:
        return ["-", "-", "-"]
    return [f"{100 * ours:.1f}", f"{100 * control:.1f}", f"{100 * (ours - control):+.1f}"]

"""The verb that a new user begins with: init."""

from pathlib import Path
from typing import Annotated

import typer

from ssodkit.cli.options import OnDevice


def init(
    labeled: Annotated[
        Path,
        typer.Option(metavar="LABELS", help="COCO JSON, a data.yaml, or a folder with Pascal VOC XML or YOLO labels."),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="New file for the recipe, such as mine.yaml.")],
    images: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Of the labeled pictures, where it cannot be told from the labels."),
    ] = None,
    unlabeled: Annotated[Path | None, typer.Option(metavar="DIR", help="Pictures without labels.")] = None,
    test: Annotated[
        Path | None,
        typer.Option(metavar="LABELS", help="Of the test pictures; default: the labels' own part, else a fifth of them."),
    ] = None,
    test_images: Annotated[Path | None, typer.Option(metavar="DIR", help="Of the test pictures, like --images.")] = None,
    shots: Annotated[
        int | None,
        typer.Option(min=1, metavar="K", help="Use the labels of K pictures per class, and the others without."),
    ] = None,
    method: Annotated[str | None, typer.Option(metavar="NAME", help="Default: the one that gained most.")] = None,
) -> None:
    """Write a recipe for pictures of one's own.

    Labels are recognized and looked at, and the recipe's numbers follow from them, each with its reason behind it.
    """
    from ssodkit.recipe.draft.command import init

    init(labeled, out, images, unlabeled, test, test_images, shots, method)

"""The verb that a new user begins with: init."""

from pathlib import Path
from typing import Annotated

import typer


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
        typer.Option(metavar="LABELS", help="Of the test pictures; default: the labels' own test part, else a fifth."),
    ] = None,
    test_images: Annotated[Path | None, typer.Option(metavar="DIR", help="Of the test pictures.")] = None,
    shots: Annotated[
        int | None,
        typer.Option(min=1, metavar="K", help="Use the labels of K pictures per class, and the others without."),
    ] = None,
    any_way_up: Annotated[
        bool,
        typer.Option("--any-way-up", help="The pictures have no upright, such as of cells, surfaces or from above."),
    ] = False,
    method: Annotated[str | None, typer.Option(metavar="NAME", help="Default: the one that gained most.")] = None,
    weights: Annotated[
        str,
        typer.Option(
            metavar="auto|none|NAME|FILE",
            help="What the network starts from: torchvision's Faster R-CNN, trained on COCO, or a network of timm, by "
            "its name or as a file; or none: a light detector with new weights. auto: where there is a GPU, what torch "
            "keeps of the former, or timm of resnet50.tv_in1k.",
        ),
    ] = "auto",
) -> None:
    """Write a recipe for pictures of one's own.

    Labels are recognized and looked at, and the recipe's numbers follow from them, each with its reason behind it.
    """
    from ssodkit.data.files import write_whole
    from ssodkit.engine.bars import showing
    from ssodkit.engine.folders import refuse_existing
    from ssodkit.recipe.draft.draft import DEFAULT, Wish, draft

    refuse_existing(out)
    wish = Wish(labeled, images, unlabeled, test, test_images, shots, any_way_up, method or DEFAULT, weights)
    with showing("looking at pictures") as on_progress:
        made = draft(wish, out.stem, on_progress)
    write_whole(out, made.text)
    for line in (*made.found, f"recipe     {out}"):
        print(line)
    print(f"next       ssodkit doctor {out}\n           ssodkit run {out}{made.compares}")

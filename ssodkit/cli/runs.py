"""Verbs that make a run or use one: run, eval, predict, label, review, export."""

import logging
import os
import signal
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ssodkit.cli.options import Network, OnDevice, Overrides, RunFolder, TrustPlugins


class Control(StrEnum):
    """What a run can be compared with."""

    SUPERVISED = "supervised"


class FileFormat(StrEnum):
    """Of an exported detector."""

    ONNX = "onnx"
    TORCHSCRIPT = "torchscript"
    SAFETENSORS = "safetensors"


class LabelFormat(StrEnum):
    """How labels are written."""

    COCO = "coco"
    VOC = "voc"
    YOLO = "yolo"


class ImageSize(StrEnum):
    """The size in which a network sees images."""

    TEST = "test"
    ORIGINAL = "original"


def run(
    recipe: Annotated[
        str | None, typer.Argument(metavar="RECIPE", help="A file, or the name of a shipped recipe.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Run folder; default: a new one in runs/.")] = None,
    overrides: Overrides = None,
    device: OnDevice = None,
    processes: Annotated[int, typer.Option(min=1, metavar="N", help="Processes on this machine.")] = 1,
    stop_after: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="End after step N, to go on later.")
    ] = None,
    resume: Annotated[Path | None, typer.Option(metavar="DIR", help="Go on with the run in this folder.")] = None,
    compare: Annotated[
        Control | None,
        typer.Option(
            metavar="supervised", help="Train the same on its labels alone, too, and say whether the rest helped."
        ),
    ] = None,
    folds: Annotated[
        int, typer.Option(min=1, metavar="N", help="With --compare: on so many draws, a fold and a seed each.")
    ] = 1,
    trust_plugins: TrustPlugins = False,
) -> None:
    """Train a recipe, or go on with a run.

    Training a recipe runs the plug-ins that it names, and remembers them. Every other verb, and --resume, refuses to
    run plug-ins that are new here unless they are trusted.
    """
    if (recipe is None) == (resume is None):
        raise typer.BadParameter("give either a RECIPE or --resume DIR")
    if resume is not None and (out is not None or overrides or compare):
        raise typer.BadParameter("a resumed run keeps what it was: leave out --out, --set and --compare")
    if compare is None and folds > 1:
        raise typer.BadParameter("--folds are draws of a comparison: add --compare supervised")
    if compare is not None and stop_after is not None:
        raise typer.BadParameter("a comparison trains to the end: leave out --stop-after, and stop it with Ctrl-C")
    from ssodkit.engine.start import check_start
    from ssodkit.recipe.check import load_with_places

    loaded = None
    if recipe is not None:
        loaded, tree = load_with_places(recipe, overrides or (), trust_plugins=True)
        check_start(loaded, tree)
    if processes > 1:
        _launch(processes)
        return
    from ssodkit.bench import compare as comparison
    from ssodkit.engine import train

    if loaded is not None and compare is not None:
        comparison.compare(loaded, out, folds, device)
    elif resume is not None and comparison.is_comparison(resume):
        comparison.resume(resume, device, trust_plugins)
    elif loaded is not None:
        train.train(loaded, out=out, device=device, stop_after=stop_after)
    elif resume is not None:
        train.resume(resume, device=device, stop_after=stop_after, trust_plugins=trust_plugins)


def evaluate(
    run: RunFolder,
    data: Annotated[
        Path | None,
        typer.Option(metavar="LABELS", help="Other labeled images: a COCO file, a data.yaml, a VOC or YOLO folder."),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Their folder, where LABELS does not say it.")
    ] = None,
    device: OnDevice = None,
    trust_plugins: TrustPlugins = False,
) -> None:
    """Score the last checkpoint of a run again: student and teacher.

    Classes are listed one by one. With --data, the images that lie there are scored instead of the run's test images;
    classes are joined by their names.
    """
    if images is not None and data is None:
        raise typer.BadParameter("--images says where the images of --data are: give both")
    from ssodkit.engine.evaluate import evaluate

    evaluate(run, device=device, trust_plugins=trust_plugins, data=data, images=images)


def predict(
    run: RunFolder,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGES", help="Image files, and folders of them.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="New folder for the pictures and the COCO results.")],
    score: Annotated[float, typer.Option(min=0.0, max=1.0, metavar="SCORE", help="Lowest score that is drawn.")] = 0.5,
    network: Annotated[
        Network | None, typer.Option(metavar="student|teacher", help="Default: the recipe's result.")
    ] = None,
    device: OnDevice = None,
    trust_plugins: TrustPlugins = False,
) -> None:
    """Draw what a network detects.

    The detections are also written as COCO results, with the category ids of the training data.
    """
    from ssodkit.engine.predict import predict

    predict(run, images, out, network and network.value, score, device, trust_plugins)


def label(
    run: RunFolder,
    images: Annotated[
        Path | None, typer.Argument(metavar="FOLDER", help="Default: the run's unlabeled images.", show_default=False)
    ] = None,
    *,
    out: Annotated[Path, typer.Option(metavar="PATH", help="New file for the labels; a new folder for VOC and YOLO.")],
    form: Annotated[
        LabelFormat, typer.Option("--format", metavar="coco|voc|yolo", help="Of the labels; only COCO holds scores.")
    ] = LabelFormat.COCO,
    score: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=1.0, metavar="SCORE", help="Default: the recipe's test threshold; 0.5 for VOC and YOLO."
        ),
    ] = None,
    network: Annotated[
        Network | None, typer.Option(metavar="student|teacher", help="Default: the recipe's result.")
    ] = None,
    size: Annotated[
        ImageSize, typer.Option(metavar="test|original", help="Of the images: as in the test, or their own.")
    ] = ImageSize.TEST,
    device: OnDevice = None,
    trust_plugins: TrustPlugins = False,
) -> None:
    """Write pseudo-labels: what a network finds in unlabeled images.

    COCO JSON has a score per box, for a training with `data.unlabeled: {type: stored, file: FILE}`. Folders of VOC XML
    and YOLO txt hold links to the images, and can be trained on as `data.train` once they are corrected.
    """
    from ssodkit.engine.label import label

    label(run, out, images, network and network.value, score, size.value, device, trust_plugins, form.value)


def review(
    run: RunFolder,
    images: Annotated[
        Path | None, typer.Argument(metavar="FOLDER", help="Default: the run's unlabeled images.", show_default=False)
    ] = None,
    *,
    out: Annotated[Path, typer.Option(metavar="DIR", help="New folder for the page.")],
    score: Annotated[float, typer.Option(min=0.0, max=1.0, metavar="SCORE", help="Lowest score that it knows.")] = 0.1,
    network: Annotated[
        Network | None, typer.Option(metavar="student|teacher", help="Default: the recipe's result.")
    ] = None,
    device: OnDevice = None,
    trust_plugins: TrustPlugins = False,
) -> None:
    """Write a page on which to look through what a network finds.

    Open it in a browser: pictures come in the order of doubt, boxes are ticked as wrong or fine by keys, and those that
    are kept are downloaded as COCO JSON. It needs no server and no network.
    """
    from ssodkit.engine.review import review

    review(run, out, images, network and network.value, score, device, trust_plugins)


def export(
    run: RunFolder,
    format: Annotated[
        FileFormat, typer.Option("--format", metavar="onnx|torchscript|safetensors", help="Of the file.")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="New file.")],
    network: Annotated[
        Network | None, typer.Option(metavar="student|teacher", help="Default: the recipe's result.")
    ] = None,
    score: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, metavar="SCORE", help="Default: the recipe's test threshold.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="ONNX: pictures that it takes at once; default: any number.")
    ] = None,
    size: Annotated[
        str | None, typer.Option(metavar="HEIGHTxWIDTH", help="ONNX: size that it takes, in pixels; default: any.")
    ] = None,
    trust_plugins: TrustPlugins = False,
) -> None:
    """Write the whole detector into one file.

    ONNX and TorchScript take RGB pictures (batch, 3, height, width) of uint8, all of one size, and give boxes in their
    pixels, scores, labels and counts: resize and suppression are inside. Of TorchScript, `import torchvision` comes
    before the file is loaded: it has the suppression. safetensors holds the weights, and all that `ssodkit.load` needs.
    Before a file is written, it is compared with the run on sample pictures.
    """
    from ssodkit.engine.export import export

    export(run, out, format.value, network and network.value, score, batch, _parse_size(size), trust_plugins)


def _parse_size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise typer.BadParameter(f"write --size as HEIGHTxWIDTH in pixels, such as 480x640, not '{text}'")
    return int(height), int(width)


LAUNCHER = "SSODKIT_LAUNCHER"
"""Names the process of `--processes` to those that it has started, which stop when it dies."""


def _launch(processes: int) -> None:
    """Run this command line in several processes on this machine, under torch's own launcher."""
    from torch.distributed import run as launcher
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    for handler in logging.getLogger("torch.distributed").handlers:
        handler.addFilter(lambda record: ".elastic." not in record.name)  # each process speaks for itself
    os.environ[LAUNCHER] = str(os.getpid())
    place = ["--standalone", "--nproc-per-node", str(processes), "-m", "ssodkit"]
    try:
        launcher.run(launcher.parse_args([*place, *_without_processes(sys.argv[1:])]))
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode > 0:
            raise typer.Exit(failure.exitcode) from error
        name = signal.Signals(-failure.exitcode).name
        print(f"process {rank} was ended by {name}; mostly the machine's memory is full then", file=sys.stderr)
        raise typer.Exit(128 - failure.exitcode) from error
    except SignalException as error:
        raise typer.Exit(128 + error.sigval) from error


def _without_processes(arguments: list[str]) -> list[str]:
    kept = [argument for argument in arguments if not argument.startswith("--processes=")]
    if "--processes" in kept:
        position = kept.index("--processes")
        del kept[position : position + 2]
    return kept

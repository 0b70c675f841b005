"""A recipe tried for a step and a few test images: what it costs, whether losses are finite, how its views look."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ssodkit.data.batch_plan import derive_batch
from ssodkit.data.files import written_whole
from ssodkit.data.loader import batches_in_order, training_batches
from ssodkit.data.sets import DataSets
from ssodkit.engine.distributed import Processes
from ssodkit.engine.doctor.findings import Finding
from ssodkit.engine.evaluate import score_networks, test_views
from ssodkit.engine.pace import peak_memory
from ssodkit.engine.pictures import GAP, GROUND, HEAD, LARGEST, SMALLEST, Boxes, draw_boxes
from ssodkit.engine.update import Updater
from ssodkit.methods.base import Method
from ssodkit.recipe.model import Recipe
from ssodkit.structures.geometry import SemiBatch, Stream, carry_labels
from ssodkit.structures.progress import Progress
from ssodkit.structures.teaching import Targets

SCORED = 8
"""Test images of the trial evaluation."""
SHOWN = 8
"""Images on a sheet."""


@dataclass(frozen=True)
class Cost:
    """What a run will take, as far as one step tells; seconds."""

    loading: float
    """Of one step's images, where one process decodes them and makes their views."""
    step: float
    """Without loading."""
    scoring: float
    """Of all test or validation images, once."""
    whole: float
    """Of the run: its steps, each as long as the tried one or its loading, and its evaluations."""
    memory_gb: float
    """The most that was taken on the way."""

    def describe(self) -> str:
        """In a sentence."""
        return (
            f"the run will take about {timedelta(seconds=round(self.whole))}: a step {self.step:.2f} s, its images "
            f"{self.loading:.2f} s, an evaluation {self.scoring:.0f} s; {self.memory_gb:.1f} GB of memory"
        )

    def as_json(self) -> dict[str, float]:
        """In plain types."""
        return asdict(self)


def try_out(
    recipe: Recipe, sets: DataSets, method: Method, processes: Processes, out: Path | None
) -> tuple[list[Finding], Cost]:
    """Make the last two steps of the run with new weights, the second of them timed, and score a few test images.

    The method is changed. Sheets of all views are written into the folder `out`, if there is one.
    """
    plan = derive_batch(recipe.data.batch, 1, recipe.engine.images_per_device, recipe.engine.lr_for_images)
    last = Progress(recipe.engine.steps - 1, recipe.engine.steps)
    updater = Updater(method, recipe.engine, processes, recipe.seed, plan.lr_factor)
    findings: list[Finding] = []
    loading = step = 0.0
    start = time.perf_counter()
    for batches in training_batches(
        sets,
        recipe.views,
        plan,
        recipe.seed,
        range(max(0, last.step - 1), last.step + 1),
        device=processes.device,
        uses_unlabeled=lambda number: recipe.method.uses_unlabeled(last),
        on_skipped=(lambda skipped: None) if recipe.data.broken.skip else None,
    ):
        loading, start = time.perf_counter() - start, time.perf_counter()
        numbers = updater(batches, last).read()
        step, start = time.perf_counter() - start, time.perf_counter()
        if numbers.is_halted:
            terms = ", ".join(numbers.not_finite) or "the gradients"
            what = f"a step with new weights is not finite: {terms}"
            findings.append(Finding("mistake", "step", "engine.lr", what, "Lower the learning rate; look at the boxes"))
            break
    losses = ", ".join(f"{name} {value:.3f}" for name, value in numbers.losses.items())
    findings.append(Finding("note", "step", "", f"losses of one step with new weights: {losses}"))
    scored = sets.test.subset(np.unique(np.linspace(0, len(sets.test) - 1, min(SCORED, len(sets.test))).astype(int)))
    alone = recipe.model_copy(update={"engine": recipe.engine.model_copy(update={"workers": 0})})
    start = time.perf_counter()  # without the start of loader processes, which few images do not make up for
    score_networks(method.networks(), scored, alone, processes)
    seconds = (time.perf_counter() - start) / len(scored)
    if out is not None:
        _write_sheets(recipe, sets, batches, out)
    cost = _cost(recipe, sets, loading, step, seconds, peak_memory(processes.device) / 1e9)
    return [*findings, Finding("note", "time", "", cost.describe())], cost


def _cost(recipe: Recipe, sets: DataSets, loading: float, step: float, per_image: float, memory: float) -> Cost:
    engine, scored = recipe.engine, sets.test if sets.validation is None else sets.validation
    times = engine.steps // engine.evaluate_every if engine.evaluate_every else 0
    each = max(step, loading / engine.workers) if engine.workers else step + loading
    whole = engine.steps * each + per_image * (times * len(scored) + len(sets.test))
    return Cost(loading, step, per_image * len(scored), whole, memory)


def _write_sheets(recipe: Recipe, sets: DataSets, batches: tuple[SemiBatch, ...], out: Path) -> None:
    """A sheet for each kind of images: its views side by side, with the boxes that are known of them."""
    names = [category.name for category in sets.categories]
    batch = batches[0]
    streams: dict[str, Stream] = {"labeled": batch.labeled}
    if batch.unlabeled is not None:
        streams["unlabeled"] = _with_hidden_labels(batch.unlabeled, sets)
    streams["test"] = next(batches_in_order(sets.test, test_views(recipe), SHOWN))
    for name, stream in streams.items():
        tiles = {title: _tiles(stream, title, names) for title in stream.views}
        with written_whole(out / f"{name}.png") as file:
            _side_by_side(tiles).save(file, format="PNG")


def _with_hidden_labels(stream: Stream, sets: DataSets) -> Stream:
    if sets.hidden is None:
        return stream
    ids = next(iter(stream.views.values())).image_ids.cpu().numpy()
    hidden = sets.hidden.targets(sets.hidden.positions(ids))
    return Stream(stream.views, {name: carry_labels(hidden, view.to("cpu")) for name, view in stream.views.items()})


def _tiles(stream: Stream, title: str, names: list[str]) -> list[Image.Image]:
    view, targets = stream.views[title].to("cpu"), stream.targets[title].to("cpu")
    tiles = []
    for row, (height, width) in enumerate(view.sizes[:SHOWN].tolist()):
        pixels = view.pixels[row, :, :height, :width].permute(1, 2, 0).contiguous().numpy()
        tiles.append(draw_boxes(pixels, _boxes(targets, row, names), SMALLEST, LARGEST))
    return tiles


def _boxes(targets: Targets, row: int, names: list[str]) -> Boxes:
    keep = targets.valid[row]
    return Boxes(targets.boxes[row][keep].numpy(), targets.labels[row][keep].numpy(), names)


def _side_by_side(tiles: Mapping[str, list[Image.Image]]) -> Image.Image:
    """Columns of pictures under their titles; rows are as high as their highest."""
    columns = list(tiles.values())
    heights = [max(column[row].height for column in columns) for row in range(len(columns[0]))]
    widths = [max(tile.width for tile in column) for column in columns]
    size = sum(widths) + GAP * (len(widths) + 1), HEAD + sum(heights) + GAP * len(heights)
    sheet = Image.new("RGB", size, GROUND)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=18)
    left = GAP
    for title, column, width in zip(tiles, columns, widths, strict=True):
        pen.text((left + width / 2, HEAD / 2), title, fill="black", font=font, anchor="mm")
        top = HEAD
        for tile, height in zip(column, heights, strict=True):
            sheet.paste(tile, (left, top))
            top += height + GAP
        left += width + GAP
    return sheet

"""A step that was not finite, kept: its images, and the weights, which nothing has changed since.

>>> from ssodkit.engine.replay import replay
>>> replay("runs/mine-1/replay/step_00000123.pt")
Numbers(losses={'labeled/roi/class': nan, 'labeled/roi/box': 0.31}, not_finite=('labeled/roi/class',), ...)
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ssodkit.data.mistakes import listed
from ssodkit.engine.build import build_method, place
from ssodkit.engine.distributed import open_processes
from ssodkit.engine.update import Numbers, Outcome, Updater
from ssodkit.errors import TrainingError
from ssodkit.methods.base import Method
from ssodkit.plugins import load_plugins
from ssodkit.recipe.model import Recipe
from ssodkit.recipe.trust import refuse_unknown
from ssodkit.structures.geometry import SemiBatch, Stream
from ssodkit.structures.progress import Progress
from ssodkit.structures.records import map_tensors
from ssodkit.structures.teaching import Targets
from ssodkit.structures.views import View

LISTED_IMAGES = 8
"""File names in a message; the file has them all."""
RECORDS: list[Any] = [SemiBatch, Stream, View, Targets]
"""The only classes that a file of this kind may hold."""


def save_replay(
    folder: Path, outcome: Outcome, method: Method, recipe: Recipe, num_classes: int, rank: int = 0
) -> Path:
    """Write what repeats a step of this process; the method must not have changed since."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (f"step_{outcome.step:08d}" + (f"_process_{rank}" if rank else "") + ".pt")
    content = {
        "step": outcome.step,
        "recipe": recipe.model_dump(mode="json"),
        "num_classes": num_classes,
        "batches": tuple(map_tensors(batch, torch.Tensor.cpu) for batch in outcome.batches),
        "method": method.state_dict(),
    }
    torch.save(content, path)
    return path


def streams_of(terms: Sequence[str]) -> frozenset[str]:
    """The streams whose images may be at fault for these losses: that which a name begins with, else both."""
    both = frozenset({"labeled", "unlabeled"})
    named = {term.split("/")[0] for term in terms}
    return both & named if named and named <= both else both


def not_finite(
    step: int, numbers: Numbers, is_scaled: bool, names: Sequence[str], path: Path, again: str
) -> TrainingError:
    """What to say of a step with the images `names`, kept in `path`; `is_scaled` where its loss is, as under fp16."""
    if numbers.not_finite:
        terms = ", ".join(f"`{term}`" for term in numbers.not_finite)
        what = f"the losses {terms} were not finite" if len(numbers.not_finite) > 1 else f"{terms} was not finite"
    elif is_scaled:
        what = f"gradients overflowed until the scale of the loss fell to {numbers.loss_scale:g}"
    else:
        what = "the losses were finite, but their gradient was not"
    return TrainingError(
        f"step {step}: {what}. No weight was changed by it. Its images: {listed(names, at_most=LISTED_IMAGES)}. The "
        f"step is kept in {path} (see ssodkit.engine.replay). Mend boxes of these images that look wrong{again}; or "
        "start a new run with a lower engine.lr, with engine.clip_norm, or in fp32."
    )


def replay(path: Path | str, device: str | None = None, trust_plugins: bool = False) -> Numbers:
    """Compute a saved step once more: its losses, which of them are not finite, the norm of its gradients.

    Raises RecipeError for plug-ins that were never run here, unless `trust_plugins`.
    """
    with torch.serialization.safe_globals(RECORDS):
        saved = torch.load(path, map_location="cpu", weights_only=True)
    if not trust_plugins:
        refuse_unknown(saved["recipe"]["plugins"])
    load_plugins(saved["recipe"]["plugins"])
    recipe = Recipe.model_validate(saved["recipe"])
    with open_processes(device) as processes:
        method = build_method(recipe, saved["num_classes"], load_weights=False)
        method.load_state_dict(saved["method"])
        updater = Updater(place(method, recipe, processes.device), recipe.engine, processes, recipe.seed)
        batches = tuple(batch.to(processes.device) for batch in saved["batches"])
        return updater(batches, Progress(saved["step"] - 1, recipe.engine.steps)).read()

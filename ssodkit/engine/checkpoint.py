"""Checkpoints: whole folders, written beside their place, flushed to the disk and renamed.

    RUN/checkpoints/last/student.safetensors, teacher.safetensors    the networks, for evaluation and export
    RUN/checkpoints/last/state.pt                                    all that a restart needs
    RUN/checkpoints/step_00001000/                                   older ones, as many as the recipe keeps

A crash at any moment leaves at least one whole checkpoint, and `find_last` finds the newest.
"""

import io
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from torch import nn

from ssodkit.data.annotations import Category
from ssodkit.engine.nested import flatten
from ssodkit.errors import TrainingError
from ssodkit.plugins import PluginConfig
from ssodkit.recipe.check import load_recipe
from ssodkit.recipe.model import Recipe

STATE = "state.pt"
RECIPE = "recipe.yaml"
"""In the folder of a run: the whole recipe."""
FIRST_STAGE = "stage1"
"""In the folder of a run that makes its own labels first: the folder of that run."""


@dataclass(frozen=True)
class Origin:
    """What a checkpoint belongs to. It is refused where any of these differs."""

    recipe: dict[str, Any]
    """Resolved, as JSON values; where plug-in files lie and how many workers load images does not count."""
    plugins: dict[str, str]
    """`slot/type` -> the class that defines it, of every plug-in in the recipe."""
    categories: tuple[Category, ...]
    """In the order of the class labels."""
    fold: str
    """Hash of the labeled image ids."""

    @classmethod
    def of(cls, recipe: Recipe, categories: tuple[Category, ...], fold: str) -> "Origin":
        """The origin of a run's checkpoints."""
        counts = recipe.model_dump(mode="json", exclude={"plugins": True, "engine": {"workers"}})
        return cls(counts, _plugins_of(recipe), categories, fold)

    def as_state(self) -> dict[str, Any]:
        """In plain types, as a checkpoint holds it."""
        return {**asdict(self), "categories": [list(category) for category in self.categories]}

    def refuse_other(self, saved: Mapping[str, Any], where: Path) -> None:
        """Raise TrainingError if the origin `saved` in the checkpoint at `where` is another one."""
        for what, here, there in (
            ("recipe", flatten(self.recipe), flatten(saved["recipe"])),
            ("set of plug-ins", self.plugins, saved["plugins"]),
            ("class table", _by_label(self.categories), _by_label(saved["categories"])),
            ("labeled fold", {"hash": self.fold}, {"hash": saved["fold"]}),
        ):
            differences = [
                f"{key}: {there.get(key, 'absent')} there, {here.get(key, 'absent')} here"
                for key in sorted({*here, *there}, key=str)
                if here.get(key) != there.get(key)
            ]
            if differences:
                more = f"; and {len(differences) - 4} more" if len(differences) > 4 else ""
                raise TrainingError(
                    f"{where} is a checkpoint with another {what} ({'; '.join(differences[:4])}{more}). "
                    "Go on with what it was made with, or start a new run."
                )


class Checkpoints:
    """Writes the checkpoints of one run."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self.keep = keep

    def save(self, state: Mapping[str, Any], networks: Mapping[str, nn.Module], name: str = "last") -> Path:
        """Write a checkpoint of `state["step"]`; an older `last` moves aside, an older one of another name goes.

        Raises TrainingError if the disk refuses, for instance because it is full: what was there before stays.
        """
        writing, goal = self.folder / ".writing", self.folder / name
        try:
            shutil.rmtree(writing, ignore_errors=True)
            writing.mkdir(parents=True)
            self._write_files(writing, state, networks)
            if goal.exists():
                self._move_aside(goal)
            writing.rename(goal)
            _flush_folder(self.folder)
        except OSError as error:
            shutil.rmtree(writing, ignore_errors=True)
            run = self.folder.parent
            cure = f"go on from the one before with `ssodkit run --resume {run}`"
            raise TrainingError(
                f"{goal}: the checkpoint of step {state['step']} cannot be written ({error.strerror or error}). "
                f"Make room, then {cure if find_checkpoints(run) else 'start the run anew'}."
            ) from error
        self._forget_old()
        return goal

    def _write_files(self, folder: Path, state: Mapping[str, Any], networks: Mapping[str, nn.Module]) -> None:
        from safetensors.torch import save

        about = {
            "format": "ssodkit",
            "step": str(state["step"]),
            "categories": json.dumps(state["origin"]["categories"]),
            "fold": state["origin"]["fold"],
        }
        for name, network in networks.items():
            tensors = {key: tensor.contiguous() for key, tensor in network.state_dict().items()}
            _write(folder / f"{name}.safetensors", save(tensors, metadata={**about, "network": name}))
        buffer = io.BytesIO()
        torch.save(dict(state), buffer)
        with buffer.getbuffer() as content:  # given back even if the disk is full
            _write(folder / STATE, content)
        _flush_folder(folder)

    def _move_aside(self, old: Path) -> None:
        if old.name == "last":
            old.rename(self.folder / f"step_{read_step(old):08d}")
        else:
            shutil.rmtree(old)

    def _forget_old(self) -> None:
        older = sorted(self.folder.glob("step_*"))
        for folder in older[: max(0, len(older) - (self.keep - 1))]:
            shutil.rmtree(folder)


def read_run(run: Path, trust_plugins: bool = False) -> tuple[Recipe, Path]:
    """The recipe of a run and its newest checkpoint; raises TrainingError if the folder has none."""
    return read_recipe(run, trust_plugins), find_last(run)


def read_recipe(run: Path, trust_plugins: bool = False) -> Recipe:
    """The recipe of a run; raises TrainingError if the folder holds none.

    Plug-ins that it names are run as `load_recipe` says: those that were not run here before only if trusted.
    """
    if not (run / RECIPE).is_file():
        raise TrainingError(f"{run} holds no run: there is no {RECIPE} in it. Give the folder that `ssodkit run` made.")
    return load_recipe(run / RECIPE, trust_plugins=trust_plugins)


def find_last(run: Path) -> Path:
    """The newest whole checkpoint of a run; raises TrainingError where there is none."""
    whole = find_checkpoints(run)
    if not whole and can_go_on(run):
        raise TrainingError(
            f"{run} holds no checkpoint yet: the run in it has not begun its second stage. Go on with "
            f"`ssodkit run --resume {run}`; the first stage is a run of its own in {run / FIRST_STAGE}."
        )
    if not whole:
        raise TrainingError(
            f"{run} holds no checkpoint: the run in it ended before its first one. "
            f"Start it anew with `ssodkit run {run / RECIPE}`."
        )
    return whole[0]


def find_checkpoints(run: Path) -> list[Path]:
    """All whole checkpoints of a run that it can go on from, the newest first."""
    folder = run / "checkpoints"
    candidates = (folder / "last", *sorted(folder.glob("step_*"), reverse=True))
    return [candidate for candidate in candidates if (candidate / STATE).is_file()]


def can_go_on(run: Path) -> bool:
    """Whether `ssodkit run --resume` finds something to go on with: a checkpoint, or the first of two stages."""
    return bool(find_checkpoints(run)) or (run / FIRST_STAGE).is_dir()


def load_state(checkpoint: Path) -> dict[str, Any]:
    """All that a restart needs, on the CPU. Nothing in the file can run code.

    Raises TrainingError if the file is damaged or holds anything but numbers, text and tensors.
    """
    try:
        state = torch.load(checkpoint / STATE, map_location="cpu", weights_only=True)
        state["origin"]
    except Exception as error:  # a file with other content makes torch's reader raise whatever its bytes lead to
        raise _damaged(checkpoint, STATE) from error
    assert isinstance(state, dict)
    return state


def load_network(checkpoint: Path, name: str, network: nn.Module) -> None:
    """Put the saved weights into `network`; raises TrainingError if they are not its own."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = checkpoint / f"{name}.safetensors"
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise _damaged(checkpoint, path.name) from error
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise unfitting(checkpoint, error) from error


def unfitting(checkpoint: Path, error: Exception) -> TrainingError:
    """What to say where a checkpoint's tensors are not those of the networks that the recipe builds."""
    first = next((line.strip() for line in str(error).splitlines()[1:] if line.strip()), str(error)).rstrip(".")
    return TrainingError(
        f"{checkpoint} holds other networks than this recipe builds ({first}). Was the run's {RECIPE} or the code of "
        "a plug-in changed? Go on with what the run was made with, or start a new one."
    )


def _damaged(checkpoint: Path, name: str) -> TrainingError:
    return TrainingError(
        f"{checkpoint / name} is damaged: it is not what ssodkit wrote there. Delete the folder {checkpoint}; "
        "then the run's checkpoint before it is taken, if there is one."
    )


def read_step(checkpoint: Path) -> int:
    """The step of a checkpoint, without reading its tensors."""
    return int(_read_metadata(checkpoint)["step"])


def read_categories(checkpoint: Path) -> tuple[Category, ...]:
    """The class table of a checkpoint, in the order of the labels."""
    return tuple(Category(*pair) for pair in json.loads(_read_metadata(checkpoint)["categories"]))


def read_fold(checkpoint: Path) -> str | None:
    """The hash of the labeled images that a checkpoint's networks have learned from; None in those of version 0.1."""
    return _read_metadata(checkpoint).get("fold")


def _by_label(categories: Iterable[Iterable[object]]) -> dict[str, str]:
    pairs = enumerate(categories)
    return {f"class {label}": " ".join(str(part) for part in pair) for label, pair in pairs}


def _plugins_of(value: object) -> dict[str, str]:
    found: dict[str, str] = {}
    if isinstance(value, PluginConfig):
        found[f"{value.slot}/{value.type}"] = f"{type(value).__module__}.{type(value).__qualname__}"
    if isinstance(value, BaseModel):
        parts = [getattr(value, name) for name in type(value).model_fields]
    elif isinstance(value, Mapping):
        parts = list(value.values())
    else:
        parts = list(value) if isinstance(value, list | tuple) else []
    for part in parts:
        found |= _plugins_of(part)
    return found


def _read_metadata(checkpoint: Path) -> dict[str, str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(checkpoint / "student.safetensors", framework="pt") as file:
            metadata: dict[str, str] = file.metadata()
    except (OSError, SafetensorError) as error:
        raise _damaged(checkpoint, "student.safetensors") from error
    return metadata


def _write(path: Path, content: bytes | memoryview) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    """Make the names in a folder last through a loss of power."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

"""Checkpoints: whole folders, written beside their place, flushed to the disk and renamed.

    RUN/checkpoints/last/student.safetensors, teacher.safetensors    the networks, for evaluation and export
    RUN/checkpoints/last/state.pt                                    all that a restart needs
    RUN/checkpoints/last/checksums.sha256                            of these, checked when they are read
    RUN/checkpoints/step_00001000/                                   older ones, as many as the recipe keeps
    RUN/checkpoints/best/                                            the best on the validation images, if there are any

A crash at any moment leaves at least one whole checkpoint, and `find_last` finds the newest. Whatever else is in these
folders is not ours: it is never counted, never deleted, and where a checkpoint must go it gets another name. What was
written before there were checksums is read without.
"""

import io
import itertools
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ssodkit.data.annotations import Category
from ssodkit.data.files import DRAFT, flush_folder, new_draft
from ssodkit.engine.checksums import CHECKSUMS, NOT_OURS, checksum, find_damage, list_checksums, listed_names
from ssodkit.errors import TrainingError
from ssodkit.recipe.check import load_recipe
from ssodkit.recipe.model import Recipe
from ssodkit.structures.progress import Progress

STATE, NETWORK = "state.pt", ".safetensors"
"""Files of a checkpoint: the state, and what a network's name is followed by."""
STUDENT = f"student{NETWORK}"
ALWAYS = (STATE, STUDENT)
LAST, BEST = "last", "best"
OLDER = re.compile(r"step_[0-9]{8,}")
"""Names of checkpoints."""
RECIPE = "recipe.yaml"
"""In the folder of a run: the whole recipe."""
FIRST_STAGE = "stage1"
"""In the folder of a run that makes its own labels first: the folder of that run."""
CHOICE = "choice.json"
"""In the folder of a run that was compared with a control: which `run`, within it, and `network` stand for it."""


class Checkpoints:
    """Writes the checkpoints of one run, which must hold the run's lock; `warn` is told what gets another name."""

    def __init__(self, folder: Path, keep: int, warn: Callable[[str], None] = print) -> None:
        self.folder, self.keep, self.warn = folder, keep, warn

    def save(self, state: Mapping[str, Any], networks: Mapping[str, nn.Module], name: str = LAST) -> Path:
        """Write a checkpoint of `state["step"]`; an older `last` moves aside, an older one of another name goes.

        Raises TrainingError if the disk refuses, for instance because it is full: what was there before stays.
        """
        writing, goal = new_draft(self.folder), self.folder / name
        try:
            writing.mkdir(parents=True)
            _write_files(writing, state, networks)
            self._clear(goal)
            writing.rename(goal)
            flush_folder(self.folder)
        except OSError as error:
            shutil.rmtree(writing, ignore_errors=True)
            run = self.folder.parent
            cure = f"go on from the one before with `ssodkit run --resume {run}`"
            raise TrainingError(
                f"{goal}: the checkpoint of step {state['step']} cannot be written ({error.strerror or error}). "
                f"Make room, then {cure if find_checkpoints(run) else 'start the run anew'}."
            ) from error
        self.tidy()
        return goal

    def tidy(self) -> None:
        """Remove older checkpoints beyond those that are kept, and what a crash has left unfinished."""
        for old in find_checkpoints(self.folder.parent)[self.keep :]:
            self._discard(old)
        for path in _entries(self.folder):
            if DRAFT.fullmatch(path.name) and path.is_dir():
                shutil.rmtree(path)

    def _clear(self, place: Path) -> None:
        """Make room for a checkpoint at `place`, in steps after each of which nothing is lost."""
        if not os.path.lexists(place):
            return
        if place.name != LAST or not is_checkpoint(place):
            self._discard(place)
            return
        try:
            older = place.with_name(f"step_{read_step(place):08d}")
        except TrainingError:  # it was damaged since it was written, which must not end the run
            self._put_aside(place, "is damaged")
            return
        self._clear(older)
        place.rename(older)

    def _discard(self, path: Path) -> None:
        """Take away what has had its time; `tidy` removes it, as what is half removed shall look like no checkpoint."""
        if is_checkpoint(path) and _is_all_ours(path):
            path.rename(new_draft(self.folder))
        else:
            self._put_aside(path, "holds what ssodkit did not write")

    def _put_aside(self, path: Path, why: str) -> None:
        names = (path.with_name(f"{path.name}.aside-{number}") for number in itertools.count(1))
        aside = next(name for name in names if not os.path.lexists(name))
        path.rename(aside)
        self.warn(f"{path} {why}: it is kept as {aside.name}")


def _write_files(folder: Path, state: Mapping[str, Any], networks: Mapping[str, nn.Module]) -> None:
    from safetensors.torch import save

    about = {
        "format": "ssodkit",
        "step": str(state["step"]),
        "categories": json.dumps(state["origin"]["categories"]),
        "fold": state["origin"]["fold"],
    }
    checksums = {}
    for name, network in networks.items():
        tensors = {key: tensor.contiguous() for key, tensor in network.state_dict().items()}
        file = f"{name}{NETWORK}"
        checksums[file] = _write(folder / file, save(tensors, metadata={**about, "network": name}))
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    with buffer.getbuffer() as content:  # given back even if the disk is full
        checksums[STATE] = _write(folder / STATE, content)
    _write(folder / CHECKSUMS, list_checksums(checksums).encode())
    flush_folder(folder)


def read_run(run: Path, trust_plugins: bool = False) -> tuple[Recipe, Path]:
    """The recipe and the checkpoint that stand for a run, its networks whole; TrainingError if there is none.

    The recipe's test rule is that of the checkpoint's step.

    Where the run was compared with a control, they may be the control's, and the recipe's result is what was chosen.
    `run` may also be the folder of one of its checkpoints, such as `RUN/checkpoints/best`, which is taken then.
    """
    if is_checkpoint(run):
        recipe = read_recipe(run.absolute().parent.parent, trust_plugins)
        _refuse_damaged(run, NETWORK)
        return as_tested(recipe, run), run
    try:
        chosen = json.loads((run / CHOICE).read_text(encoding="utf-8"))
        other, network = run / chosen["run"], chosen["network"]
    except FileNotFoundError:
        return read_own_run(run, trust_plugins)
    except (ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{run / CHOICE} is damaged. Delete it, and the run's own network is used.") from error
    recipe, checkpoint = read_own_run(other, trust_plugins)
    evaluation = recipe.evaluation.model_copy(update={"result": network})
    return recipe.model_copy(update={"evaluation": evaluation}), checkpoint


def read_own_run(run: Path, trust_plugins: bool = False) -> tuple[Recipe, Path]:
    """The run's own recipe and the checkpoint that is its result, whatever a comparison chose; raises as `read_run`."""
    recipe = read_recipe(run, trust_plugins)
    checkpoint = find_networks(run, recipe)
    return as_tested(recipe, checkpoint), checkpoint


def as_tested(recipe: Recipe, checkpoint: Path) -> Recipe:
    """The recipe of a run with the test rule of one of its checkpoints, where the rule changes in the run."""
    test = recipe.detector.test.at(Progress(read_step(checkpoint), recipe.engine.steps))
    detector = recipe.detector.model_copy(update={"test": test})
    return recipe.model_copy(update={"detector": detector})


def read_recipe(run: Path, trust_plugins: bool = False) -> Recipe:
    """The recipe of a run; raises TrainingError if the folder holds none.

    Plug-ins that it names are run as `load_recipe` says: those that were not run here before only if trusted.
    """
    if not (run / RECIPE).is_file():
        raise TrainingError(f"{run} holds no run: there is no {RECIPE} in it. Give the folder that `ssodkit run` made.")
    return load_recipe(run / RECIPE, trust_plugins=trust_plugins)


def find_last(run: Path) -> Path:
    """The newest checkpoint of a run; raises TrainingError where there is none."""
    found = find_checkpoints(run)
    if not found and can_go_on(run):
        raise TrainingError(
            f"{run} holds no checkpoint yet: the run in it has not begun its second stage. Go on with "
            f"`ssodkit run --resume {run}`; the first stage is a run of its own in {run / FIRST_STAGE}."
        )
    if not found:
        raise TrainingError(
            f"{run} holds no checkpoint: the run in it ended before its first one. "
            f"Start it anew with `ssodkit run {run / RECIPE}`."
        )
    return found[0]


def find_networks(run: Path, recipe: Recipe) -> Path:
    """The checkpoint of a run that is its result: the newest, or the best, as its recipe says, its networks whole.

    Raises TrainingError where there is none such.
    """
    checkpoint = find_last(run)
    if recipe.evaluation.checkpoint == BEST:
        checkpoint = run / "checkpoints" / BEST
        if not is_checkpoint(checkpoint):
            raise TrainingError(
                f"{run} holds no best checkpoint yet: its networks were not scored on the validation images. "
                f"Go on with `ssodkit run --resume {run}`."
            )
    _refuse_damaged(checkpoint, NETWORK)
    return checkpoint


def find_checkpoints(run: Path) -> list[Path]:
    """All checkpoints of a run that it can go on from, the newest first."""
    folder = run / "checkpoints"
    older = [path for path in _entries(folder) if OLDER.fullmatch(path.name)]
    older.sort(key=lambda path: int(path.name.removeprefix("step_")), reverse=True)
    return [path for path in (folder / LAST, *older) if is_checkpoint(path)]


def is_checkpoint(path: Path) -> bool:
    """Whether this is a folder with a checkpoint's files, be they whole or not; a link leads to somebody else's."""
    return path.is_dir() and not path.is_symlink() and any((path / name).exists() for name in (*ALWAYS, CHECKSUMS))


def can_go_on(run: Path) -> bool:
    """Whether `ssodkit run --resume` finds something to go on with: a checkpoint, or the first of two stages."""
    return bool(find_checkpoints(run)) or (run / FIRST_STAGE).is_dir()


def load_state(checkpoint: Path) -> dict[str, Any]:
    """All that a restart needs, on the CPU. Nothing in the file can run code.

    Raises TrainingError if any file of the checkpoint is damaged, or this one holds anything but numbers, text and
    tensors.
    """
    _refuse_damaged(checkpoint)
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


def incomplete(checkpoint: Path, error: KeyError) -> TrainingError:
    """What to say where a checkpoint's state lacks something."""
    return TrainingError(
        f"{checkpoint / STATE} has no {error}: it was written by another version of ssodkit. Go on with that one, or "
        "start a new run."
    )


def _refuse_damaged(checkpoint: Path, suffix: str = "") -> None:
    """Raise TrainingError where a file of a checkpoint, with this suffix, is not what was written there."""
    damage = find_damage(checkpoint, ALWAYS, suffix)
    if damage is not None:
        raise _damaged(checkpoint, *damage)


def _damaged(checkpoint: Path, name: str, why: str = NOT_OURS) -> TrainingError:
    run = checkpoint.parent.parent
    older = [path for path in find_checkpoints(run) if path != checkpoint]
    if checkpoint.name == BEST:
        then = "the run then keeps the best from here on"
    elif older:
        then = f"the run's checkpoint before it, {older[0].name}, is taken then"
    else:
        then = f"the run has no other, and must start anew with `ssodkit run {run / RECIPE}`"
    return TrainingError(
        f"{checkpoint / name} is damaged: {why}. Put a whole copy there, or move the folder {checkpoint} elsewhere: "
        f"{then}."
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


def _read_metadata(checkpoint: Path) -> dict[str, str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(checkpoint / STUDENT, framework="pt") as file:
            metadata: dict[str, str] = file.metadata()
    except (OSError, SafetensorError) as error:
        raise _damaged(checkpoint, STUDENT) from error
    return metadata


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _is_all_ours(checkpoint: Path) -> bool:
    """Whether nothing but a checkpoint's own files is in its folder."""
    ours = {*ALWAYS, f"teacher{NETWORK}", CHECKSUMS, *listed_names(checkpoint)}
    return all(path.name in ours and path.is_file() for path in checkpoint.iterdir())


def _write(path: Path, content: bytes | memoryview) -> str:
    """Write a file through to the disk; its checksum."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return checksum(content)

"""Files of weights, and those that torch keeps of torchvision's detectors; nothing in them can run code."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssodkit.detectors.backbones.weights import SUFFIX, is_within_reach
from ssodkit.detectors.torchvision_weights import weights_of
from ssodkit.errors import RecipeError

AS_STATE = "Write them alone, with `torch.save(model.state_dict(), FILE)`"


def read_weights(path: Path) -> tuple[Mapping[str, Tensor], Mapping[str, str]]:
    """The tensors of a file, and what it says about them: a safetensors file, or a state that torch has saved.

    Raises RecipeError for other files.
    """
    if path.suffix == SUFFIX:
        return _read_safetensors(path)
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file with other content makes torch's reader raise whatever its bytes lead to
        raise RecipeError(f"{path} cannot be read as weights. {AS_STATE}") from error
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise RecipeError(f"{path} holds more than weights. {AS_STATE}")
    return state, {}


def kept_file(name: str) -> Path | None:
    """The file of torchvision's COCO weights of a network, where torch keeps it since it was fetched."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights_of(name).url).name
    return path if path.is_file() else None


def fetch_weights(name: str) -> Mapping[str, Tensor]:
    """torchvision's COCO weights of a network, which torch keeps from then on. Raises RecipeError where it cannot."""
    entry, kept = weights_of(name), kept_file(name)
    try:
        if kept is not None:
            return read_weights(kept)[0]
        if not is_within_reach(entry.url):
            raise ConnectionError("there is no network, and torch keeps no copy of them")
        state: Mapping[str, Tensor] = entry.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:  # the disk, the network, or a file that is not what was asked for
        raise RecipeError(
            f"the weights of torchvision's {name} cannot be fetched ({str(error).rstrip('.')}). Run once online, so "
            f"that torch keeps them; or fetch {entry.url} and name the file here; or take `weights` out, and the "
            "backbone's are used"
        ) from error
    return state


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise RecipeError(f"{path} cannot be read ({error})") from error

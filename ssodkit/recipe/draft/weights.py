"""What the network of a first recipe starts from: new weights, or those of a network of timm."""

from dataclasses import dataclass
from pathlib import Path

import torch

from ssodkit.detectors.backbones.timm import Timm, TimmConfig
from ssodkit.detectors.backbones.weights import SUFFIX, kept_weights, network_of, whole_name
from ssodkit.errors import RecipeError

AUTO, NONE = "auto", "none"
DEFAULT_NETWORK = TimmConfig().name


@dataclass(frozen=True)
class Start:
    """A choice, and why it was made."""

    network: str | None
    """By its name in timm; None: the light detector, from new weights."""
    reason: str
    file: Path | None = None
    """With the network's weights; None: timm has them, or fetches them."""
    gpu: int | None = None
    """Bytes of the GPU that trains; None: there is none here."""

    def describe(self) -> str:
        """In a line."""
        what = "new" if self.network is None else f"of {self.network}"
        return f"{what}{f', in {self.file}' if self.file else ''}, {self.reason}"


def gpu_memory() -> int | None:
    """Bytes of the first CUDA device; None where there is none."""
    return torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else None


def choose_start(asked: str, gpu: int | None) -> Start:
    """What `--weights` means: `auto`, `none`, the name of a network in timm, or a file of its weights.

    `gpu` are the bytes of the GPU that trains, None where there is none. Raises RecipeError for a file of other
    weights, and for a network that timm does not have or that gives no pyramid.
    """
    if asked == NONE:
        return Start(None, "as --weights says", gpu=gpu)
    if asked == AUTO:
        return _automatic(gpu)
    try:
        if asked.endswith(SUFFIX) or Path(asked).exists():
            name, file = network_of(Path(asked), DEFAULT_NETWORK), Path(asked)
            reason = "as --weights says"
        else:
            name, file = whole_name(asked), None
            reason = f"as --weights says; timm {'keeps' if kept_weights(name) else 'fetches'} them"
        with torch.device("meta"):  # nothing is computed
            Timm(TimmConfig(name=name), load_weights=False)
    except RecipeError as error:
        raise RecipeError(f"--weights {asked}: {error}") from error
    return Start(name, reason, file, gpu)


def _automatic(gpu: int | None) -> Start:
    """Pre-trained weights where they are on this machine, and a GPU that makes use of them."""
    if gpu is None:
        why = f"as there is no GPU; --weights {DEFAULT_NETWORK} takes a larger network with ImageNet's"
        return Start(None, why)
    if kept_weights(DEFAULT_NETWORK) is None:
        why = f"as timm keeps none of {DEFAULT_NETWORK}; --weights {DEFAULT_NETWORK} fetches them, or name a file"
        return Start(None, why, gpu=gpu)
    return Start(DEFAULT_NETWORK, f"as there is a GPU and timm keeps them; --weights {NONE} takes new ones", gpu=gpu)

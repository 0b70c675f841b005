"""What the network of a first recipe starts from: new weights, a network of timm, or a detector of torchvision."""

from dataclasses import dataclass
from pathlib import Path

import torch

from ssodkit.detectors.backbones.timm import Timm, TimmConfig
from ssodkit.detectors.backbones.weights import SUFFIX, kept_weights, network_of, whole_name
from ssodkit.detectors.torchvision_weights import is_torchvisions, kind_of, plain_name
from ssodkit.detectors.weight_files import kept_file, read_weights
from ssodkit.errors import RecipeError

AUTO, NONE = "auto", "none"
DEFAULT_NETWORK = TimmConfig().name
DETECTORS = ("fasterrcnn_resnet50_fpn_v2", "fasterrcnn_resnet50_fpn")
"""Of torchvision, of the architecture that is written; the better one first."""
SAVED = (".pth", ".pt")
"""Ends of the names of files that torch has saved."""


@dataclass(frozen=True)
class Start:
    """A choice, and why it was made."""

    network: str | None
    """By its name in timm; None: none."""
    reason: str
    file: Path | None = None
    """With the network's or detector's weights; None: timm or torch has them, or fetches them."""
    gpu: int | None = None
    """Bytes of the GPU that trains; None: there is none here."""
    detector: str | None = None
    """By its name in torchvision; None: none."""

    @property
    def is_new(self) -> bool:
        """Whether nothing of it was trained before."""
        return self.network is None and self.detector is None

    def describe(self) -> str:
        """In a line."""
        what = "new" if self.is_new else f"of {self.detector or self.network}"
        return f"{what}{f', in {self.file}' if self.file else ''}, {self.reason}"


def gpu_memory() -> int | None:
    """Bytes of the first CUDA device; None where there is none."""
    return torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else None


def choose_start(asked: str, gpu: int | None) -> Start:
    """What `--weights` means: `auto`, `none`, the name of a detector in torchvision or a network in timm, or a file of
    its weights.

    `gpu` are the bytes of the GPU that trains, None where there is none. Raises RecipeError for a file of other
    weights, and for a network that timm does not have or that gives no pyramid.
    """
    if asked == NONE:
        return Start(None, "as --weights says", gpu=gpu)
    if asked == AUTO:
        return _automatic(gpu)
    try:
        if plain_name(asked) in DETECTORS:
            kept = "keeps" if kept_file(plain_name(asked)) else "fetches"
            return Start(None, f"as --weights says; torch {kept} them", gpu=gpu, detector=plain_name(asked))
        if (detector := _detector_of(Path(asked))) is not None:
            return Start(None, "as --weights says", Path(asked), gpu, detector)
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


def _detector_of(path: Path) -> str | None:
    """The detector of torchvision whose weights a file has; None for what is no such file. Raises RecipeError for a
    detector of another architecture."""
    if path.suffix not in (*SAVED, SUFFIX) or not path.is_file():
        return None
    state, _ = read_weights(path)
    if path.suffix == SUFFIX and not is_torchvisions(state):
        return None
    kind = kind_of(state) if is_torchvisions(state) else "no detector that is known"
    if kind not in DETECTORS:
        raise RecipeError(
            f"it holds the weights of {kind}, and what is written here is one of {' and '.join(DETECTORS)}"
        )
    return kind


def _automatic(gpu: int | None) -> Start:
    """Pre-trained weights where they are on this machine, and a GPU that makes use of them."""
    if gpu is None:
        why = f"as there is no GPU; --weights {DEFAULT_NETWORK} takes a larger network with ImageNet's"
        return Start(None, why)
    detector = next((name for name in DETECTORS if kept_file(name) is not None), None)
    if detector is not None:
        why = f"trained on COCO, as there is a GPU and torch keeps them; --weights {NONE} takes new ones"
        return Start(None, why, gpu=gpu, detector=detector)
    if kept_weights(DEFAULT_NETWORK) is None:
        why = f"as timm keeps none of {DEFAULT_NETWORK}; --weights {DEFAULT_NETWORK} fetches them, or name a file"
        return Start(None, why, gpu=gpu)
    return Start(DEFAULT_NETWORK, f"as there is a GPU and timm keeps them; --weights {NONE} takes new ones", gpu=gpu)

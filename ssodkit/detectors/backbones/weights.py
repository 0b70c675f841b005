"""Weights of timm's networks: where they lie, and whether a file has those of a network."""

import difflib
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import torch

from ssodkit.errors import RecipeError

SUFFIX = ".safetensors"
"""Of the files that are read; other kinds may run code when they are."""
HUB_PATIENCE = 5.0
"""Seconds until a host of weights counts as out of reach."""
CACHE_PREFIX = "models--timm--"
"""Before the network's name, of its folder in the cache."""


def kept_weights(name: str) -> Path | None:
    """The file of a network's weights in timm's cache, if it was fetched before."""
    from huggingface_hub import try_to_load_from_cache

    kept = try_to_load_from_cache(f"timm/{name}", f"model{SUFFIX}")
    return Path(kept) if isinstance(kept, str) else None


def is_hub_within_reach() -> bool:
    """Whether the host that keeps timm's weights answers within seconds: asking for them itself takes a minute to
    fail."""
    from huggingface_hub import constants

    return not constants.HF_HUB_OFFLINE and is_within_reach(constants.ENDPOINT)


def is_within_reach(url: str) -> bool:
    """Whether a host answers within seconds; nothing is fetched."""
    try:
        urllib.request.urlopen(url, timeout=HUB_PATIENCE).close()
    except urllib.error.HTTPError:
        return True  # it answered
    except OSError:
        return False
    return True


def whole_name(name: str) -> str:
    """A network of timm that comes with weights, with the tag that says which: `resnet18` is `resnet18.a1_in1k`.

    Raises RecipeError, with the nearest name, where timm has none.
    """
    import timm

    known = timm.list_pretrained()
    if name in known:
        return name
    config: Any = timm.get_pretrained_cfg(name) if name in timm.list_models() else None
    if config is None or not config.tag:
        raise RecipeError(f"timm has no weights of a network '{name}'; {_nearest(name, known)}")
    return f"{config.architecture}.{config.tag}"


def network_of(path: Path, default: str) -> str:
    """The network of timm whose weights a file has: the one that it or its folder is called after, else `default`.

    Raises RecipeError where it is no safetensors file, or has other weights.
    """
    if path.suffix != SUFFIX:
        raise RecipeError(f"{path} is no {SUFFIX} file; other kinds may run code when they are read")
    if not path.is_file():
        raise RecipeError(f"there is no file {path}")
    name = next(filter(_is_network, (path.stem, *_folders(path))), None)
    try:
        check_weights(name or default, path)
    except ValueError as error:
        how = "" if name else f" Call the file after its network, such as resnet18{SUFFIX}."
        raise RecipeError(f"{error}: it does not hold the weights of {name or default}.{how}") from error
    return name or default


def check_weights(name: str, path: Path) -> None:
    """Raise ValueError unless a file has all weights of the network, in its shapes: timm would leave others random."""
    import timm
    from safetensors import SafetensorError, safe_open

    with torch.device("meta"):
        network = timm.create_model(name, num_classes=0)
    try:
        with safe_open(path, framework="pt") as file:
            keys = list(file.keys())
            has = {key: tuple(file.get_slice(key).get_shape()) for key in keys}
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read ({error})") from error
    wanted = {
        key: tuple(value.shape)
        for key, value in network.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    missing = [key for key in wanted if key not in has]
    if missing:
        raise ValueError(f"{path} lacks {missing[0]} and {len(missing) - 1} more")
    other = [key for key, shape in wanted.items() if has[key] != shape]
    if other:
        raise ValueError(f"{path} has other shapes: {other[0]} is {has[other[0]]}, not {wanted[other[0]]}")


def _folders(path: Path) -> list[str]:
    """Names of the folders around a file, the nearest first, as timm would call their networks."""
    return [folder.name.removeprefix(CACHE_PREFIX) for folder in path.absolute().parents]


def _is_network(name: str) -> bool:
    import timm

    return name in timm.list_models() or name in timm.list_pretrained()


def _nearest(name: str, known: list[str]) -> str:
    """The nearest known name, else where all of them are listed: they are too many for a sentence."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean '{near[0]}'?" if near else "timm.list_pretrained() lists those that it has"

"""With what a result was made."""

import importlib.metadata
import platform

import torch

DISTRIBUTIONS = ("ssodkit", "torch", "torchvision", "timm", "numpy", "pycocotools")


def versions() -> dict[str, str]:
    """Distribution -> version, and Python's; `unknown` for what runs from a checkout."""
    found = {"python": platform.python_version()}
    for name in DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "unknown"
    return found


def device_name(device: torch.device) -> str:
    """For a reader: the GPU's name, or the threads on the CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"cpu, {threads} thread{'s' if threads > 1 else ''}"

"""With what a result was made."""

import importlib.metadata
import platform
import subprocess
from pathlib import Path

import torch

PROJECT = Path(__file__).parents[2]
"""The checkout, where the package runs from one."""

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


def source() -> dict[str, str | bool | None]:
    """The checkout's `commit`, and whether package and recipes were `clean`, as committed; None if installed."""
    if not (PROJECT / ".git").exists():
        return {"commit": None, "clean": None}
    try:
        commit, changes = (
            subprocess.run(["git", "-C", str(PROJECT), *words], capture_output=True, text=True, check=True).stdout
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--", "ssodkit", "recipes"])
        )
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "clean": None}
    return {"commit": commit.strip(), "clean": not changes.strip()}


def device_name(device: torch.device) -> str:
    """For a reader: the GPU's name, or the threads on the CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"cpu, {threads} thread{'s' if threads > 1 else ''}"

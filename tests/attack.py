"""What the property tests share: how many examples they draw, and how a file comes to harm."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from hypothesis import settings
from hypothesis import strategies as st

Kind = Literal["cut", "flip", "swap", "empty", "gone", "folder", "loop", "dangling"]

times = 1
"""How many times as many examples are drawn as in an ordinary run of the tests: `pytest --attacks N` sets it."""


def budget(examples: int) -> settings:
    """So many examples in an ordinary run, always the same ones; `--attacks N` draws N times as many, and others."""
    return settings(max_examples=examples * times, derandomize=times == 1)


@dataclass(frozen=True)
class Harm:
    """What befalls a file."""

    kind: Kind
    place: float
    """Where in the file, as a share of its length."""
    bit: int

    def befall(self, file: Path) -> None:
        """Harm this file; an empty one has no byte to cut, flip or swap and stays as it is."""
        content = file.read_bytes()
        at = int(self.place * len(content))
        match self.kind:
            case "cut":
                file.write_bytes(content[:at])
            case "flip" if content:
                file.write_bytes(content[:at] + bytes([content[at] ^ (1 << self.bit)]) + content[at + 1 :])
            case "swap":
                file.write_bytes(content[at:] + content[:at])
            case "empty":
                file.write_bytes(b"")
            case "gone":
                file.unlink()
            case "folder":
                file.unlink()
                file.mkdir()
            case "loop" | "dangling":
                file.unlink()
                file.symlink_to(file.name if self.kind == "loop" else "nowhere")


def harms() -> st.SearchStrategy[Harm]:
    """Every kind of harm, anywhere in a file."""
    return st.builds(
        Harm,
        kind=st.sampled_from(get_args(Kind)),
        place=st.floats(0.0, 1.0, exclude_max=True),
        bit=st.integers(0, 7),
    )


def files_below(folder: Path) -> list[Path]:
    """All files below a folder, by name: what a strategy can choose from."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def copied(folder: Path, to: Path) -> Path:
    """A fresh copy of a folder at `to`, in place of whatever is there."""
    shutil.rmtree(to, ignore_errors=True)
    return Path(shutil.copytree(folder, to, symlinks=True))

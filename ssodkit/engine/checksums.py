"""Checksums of a folder's files, in a file that `sha256sum --check` reads too."""

import hashlib
import re
from collections.abc import Collection, Mapping
from pathlib import Path

CHECKSUMS = "checksums.sha256"
NOT_OURS = "it is not what ssodkit wrote there"
_LINE = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9_.-]+)\n")


def checksum(content: bytes | memoryview) -> str:
    """Of what a file shall hold."""
    return hashlib.sha256(content).hexdigest()


def list_checksums(checksums: Mapping[str, str]) -> str:
    """What the list says of files by their names."""
    return "".join(f"{digest}  {name}\n" for name, digest in checksums.items())


def find_damage(folder: Path, required: Collection[str], suffix: str = "") -> tuple[str, str] | None:
    """The first file of a folder that is not as its list says, and what is wrong with it; None where all are.

    The list must name the `required` ones, and those with this suffix are read. None as well where there is no list.
    """
    try:
        text = (folder / CHECKSUMS).read_text(encoding="ascii")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        return CHECKSUMS, _reason(error)
    listed = {name: digest for digest, name in _LINE.findall(text)}
    if _LINE.sub("", text) or not listed.keys() >= {*required}:
        return CHECKSUMS, NOT_OURS
    for name, digest in listed.items():
        if not name.endswith(suffix):
            continue
        try:
            with (folder / name).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                    return name, f"{NOT_OURS}, by {CHECKSUMS} beside it"
        except OSError as error:
            return name, _reason(error)
    return None


def listed_names(folder: Path) -> set[str]:
    """The files that a folder's list names; of one that is damaged, those that can be made out."""
    try:
        text = (folder / CHECKSUMS).read_text(encoding="ascii", errors="replace")
    except OSError:
        return set()
    return {name for _, name in _LINE.findall(text)}


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else NOT_OURS

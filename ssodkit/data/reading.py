"""Files that users and their tools wrote: read whole, or refused with one sentence that names the file."""

import errno
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ssodkit.data.mistakes import listed, shown
from ssodkit.errors import DataError


def read_file(file: Path) -> bytes:
    """The content of a file. Raises OSError, also for a pipe or device, which would be waited for."""
    if file.exists() and not (file.is_file() or file.is_dir()):
        raise OSError(errno.EINVAL, "It is a pipe or a device", str(file))
    return file.read_bytes()


def read_text(file: Path, cure: str) -> str:
    """The content of a file in UTF-8, with or without a byte order mark.

    Raises DataError that ends with `cure` for what is no such text, missing, may not be read, or is no file.
    """
    try:
        return read_file(file).decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{seen_from_here(file)} cannot be read: {error.strerror}. {cure}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is no UTF-8 text: {error.reason} at byte {error.start}. {cure}") from error
    except ValueError as error:  # its name holds a NUL
        raise DataError(f"{shown(str(file))} cannot be read: {error}. {cure}") from error


def read_json(file: Path, cure: str, shorten: Callable[[dict[str, Any]], None] = lambda entry: None) -> Any:
    """What a JSON file says; `shorten` may take from each object, as soon as it is read, what would fill the memory.

    Raises DataError as `read_text` does, and for what is no JSON, nests too deeply, has whole numbers of thousands of
    digits, or gives a key of an object twice: JSON's readers take the last one then, and say nothing.
    """
    twice: list[str] = []

    def as_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        entry = dict(pairs)
        if len(entry) < len(pairs):
            keys = [key for key, _ in pairs]
            again = next(key for key in keys if keys.count(key) > 1)
            twice.append(f"{shown(again)} in {shown(entry)}")
        shorten(entry)
        return entry

    try:
        document = json.loads(read_text(file, cure), object_pairs_hook=as_object)
    except json.JSONDecodeError as error:
        raise DataError(f"{file} is no JSON: {error}. {cure}") from error
    except RecursionError as error:
        raise DataError(f"{file} cannot be read: its lists or objects are nested too deeply. {cure}") from error
    except ValueError as error:
        digits = f"{sys.get_int_max_str_digits():,}"
        raise DataError(f"{file} has a whole number of more than {digits} digits. {cure}") from error
    if twice:
        raise DataError(
            f"{file}: the same key stands twice in one object: {listed(twice, at_most=3)}. Remove one of each."
        )
    return document


def seen_from_here(path: Path) -> str:
    """A path as the user wrote it; where it is relative, with the folder that it is relative to."""
    return str(path) if path.is_absolute() else f"{path} (seen from {Path.cwd()})"

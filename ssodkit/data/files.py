"""Text files that appear whole or not at all."""

import os
from collections.abc import Iterable
from pathlib import Path


def write_whole(file: Path, text: str | Iterable[str]) -> None:
    """Write a text, or its pieces, beside its place and move it there; what was there before stays until then.

    Raises OSError that names the file, also where the disk is full.
    """
    draft = file.with_name(file.name + ".partial")
    try:
        with draft.open("w", encoding="utf-8") as stream:
            stream.writelines([text] if isinstance(text, str) else text)
        os.replace(draft, file)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(file)) from error

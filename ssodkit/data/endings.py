"""Whether an image file was cut off, told by its end: decoding every file before a run starts would take minutes."""

import os
from pathlib import Path

LAST_BYTES = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"\x00\x00\x00\x00IEND\xaeB`\x82"}
"""What a file ends with: the marker EOI, the chunk IEND. MPO is a JPEG file with several images."""
TAIL = 64
"""Bytes looked at: some writers add a few zeros."""


def reaches_its_end(path: Path, kind: str | None) -> bool:
    """Whether an image file of a kind, as Pillow names it, goes on to where that kind ends.

    False also where that cannot be told, as of TIFF, whose parts lie in any order; then only decoding knows.
    """
    size = os.path.getsize(path)
    with path.open("rb") as file:
        if kind in LAST_BYTES:
            file.seek(max(0, size - TAIL))
            return file.read().rstrip(b"\0").endswith(LAST_BYTES[kind])
        head = file.read(8)
    if kind == "BMP":
        return 0 < int.from_bytes(head[2:6], "little") <= size
    return kind == "WEBP" and int.from_bytes(head[4:8], "little") + 8 <= size

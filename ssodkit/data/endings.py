"""What an image file says without being decoded, which would take minutes for every file before a run starts.

Whether it was cut off is told by its end; whether a PNG file may say that it is to be turned, by its chunks' names.
"""

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


def has_text_or_exif(path: Path) -> bool:
    """Whether a PNG file has a chunk anywhere that can hold EXIF data; of its pixels nothing is read.

    Source: PNG specification, third edition, section 5.3 (chunk layout) and 11.3.
    """
    with path.open("rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            if head[4:] in (b"eXIf", b"tEXt", b"zTXt", b"iTXt"):
                return True
            file.seek(int.from_bytes(head[:4], "big") + 4, os.SEEK_CUR)  # its content and checksum
    return False

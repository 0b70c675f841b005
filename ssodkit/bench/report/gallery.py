"""The galleries of a report: their images copied beside the page, and what is drawn upon them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from ssodkit.bench.report.read import Record, RunRecord
from ssodkit.data.files import written_whole

LONGEST = 640
"""Pixels: larger images are made smaller; the boxes are drawn to scale."""


def gallery_data(records: Sequence[RunRecord], out: Path) -> list[dict[str, Any]]:
    """One entry for each run that has moments; its images are written below `out`."""
    galleries = []
    for place, record in enumerate(records):
        if not record.moments:
            continue
        steps = [moment["step"] for moment in record.moments]
        at = [{image["id"]: image for image in moment["images"]} for moment in record.moments]
        images = []
        for number in dict.fromkeys(number for seen in at for number in seen):
            first = next(seen[number] for seen in at if number in seen)
            images.append(
                {
                    "id": number,
                    "source": _copy(record, number, out, f"images/{place}"),
                    "size": first["size"],
                    "moments": [_moment(seen.get(number)) for seen in at],
                }
            )
        names = record.classes or tuple(map(str, range(_labels(record))))
        galleries.append({"name": record.name, "classes": names, "steps": steps, "images": images})
    return galleries


def _moment(image: Record | None) -> dict[str, Any] | None:
    return None if image is None else {name: image[name] for name in ("truth", "found", "detections")}


def _copy(record: RunRecord, number: int, out: Path, folder: str) -> str | None:
    """Where the image lies, relative to the page; None where the run has lost it, or is just writing it."""
    assert record.gallery is not None
    source = record.gallery / f"{number}.png"
    try:
        with Image.open(source) as image:
            image.load()
            is_large = max(image.size) > LONGEST
            image.thumbnail((LONGEST, LONGEST))
    except OSError:
        return None
    path = out / folder / f"{number}.{'jpg' if is_large else 'png'}"
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as stream:
        image.save(stream, format="JPEG" if is_large else "PNG")
    return f"{folder}/{path.name}"


def _labels(record: RunRecord) -> int:
    """How many labels there are at least."""
    boxes = [
        boxes
        for moment in record.moments
        for image in moment["images"]
        for boxes in (image["truth"], image["found"], *image["detections"].values())
        if boxes is not None
    ]
    return 1 + max((label for each in boxes for label in each["labels"]), default=-1)

"""Parts of a page that are generated: what stands between the lines `<!-- table NAME -->` and `<!-- end -->`."""

import re
from pathlib import Path

from ssodkit.data.files import write_whole
from ssodkit.errors import TrainingError

MARKER = re.compile(r"^<!-- (?:table (?P<name>\S+)|end) -->$", re.MULTILINE)


def tables_in(page: str) -> dict[str, str]:
    """Name of each table in a page -> what stands between its markers. Raises TrainingError where these are broken."""
    return {name: page[start:end] for name, (start, end) in _places(page).items()}


def renew(file: Path, name: str, text: str) -> None:
    """Replace the table of this name in a file, which changes as a whole or not at all.

    Raises TrainingError that names the file where the markers are missing or broken.
    """
    page = file.read_text(encoding="utf-8")
    try:
        places = _places(page)
        if name not in places:
            raise TrainingError(f"it has no place for this table. Write the lines {_lines(name)} where it belongs.")
    except TrainingError as error:
        raise TrainingError(f"{file}: {error}") from error
    start, end = places[name]
    write_whole(file, f"{page[:start]}\n\n{text}\n{page[end:]}")


def _places(page: str) -> dict[str, tuple[int, int]]:
    """Name of each table -> where its part of the page starts and ends."""
    places: dict[str, tuple[int, int]] = {}
    markers = list(MARKER.finditer(page))
    for place, marker in enumerate(markers):
        name, after = marker["name"], next(iter(markers[place + 1 :]), None)
        if name is None:
            continue
        if after is None or after["name"] is not None:
            raise TrainingError(f"after the line `{marker[0]}` comes no line `<!-- end -->`. Write one.")
        if name in places:
            raise TrainingError(f"the line `{marker[0]}` stands there twice. Delete one of them.")
        places[name] = marker.end(), after.start()
    return places


def _lines(name: str) -> str:
    return f"`<!-- table {name} -->` and `<!-- end -->`"

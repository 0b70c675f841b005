"""Parts of a page that are generated: what stands between `<!-- table NAME -->` and `<!-- end -->`."""

import re
from pathlib import Path

from ssodkit.data.files import write_whole
from ssodkit.errors import TrainingError

END = "<!-- end -->"
BEGIN = re.compile(r"<!-- table (\S+) -->")


def begin(name: str) -> str:
    """The marker before a table."""
    return f"<!-- table {name} -->"


def tables_in(page: str) -> dict[str, str]:
    """Name of each table in a page -> what stands between its markers. Raises TrainingError where these are broken."""
    found: dict[str, str] = {}
    for marker in BEGIN.finditer(page):
        text, end, _ = page[marker.end() :].partition(END)
        if not end or BEGIN.search(text):
            raise TrainingError(f"after `{marker[0]}` there is no `{END}` before the next table. Write one.")
        if marker[1] in found:
            raise TrainingError(f"`{marker[0]}` stands there twice. Delete one of them.")
        found[marker[1]] = text
    return found


def renew(file: Path, name: str, text: str) -> None:
    """Replace the table of this name in a file, which changes as a whole or not at all.

    Raises TrainingError that names the file where the markers are missing or broken.
    """
    page = file.read_text(encoding="utf-8")
    try:
        if name not in tables_in(page):
            raise TrainingError(f"no place for this table. Write `{begin(name)}` and `{END}` where it belongs.")
    except TrainingError as error:
        raise TrainingError(f"{file}: {error}") from error
    before, marker, rest = page.partition(begin(name))
    write_whole(file, f"{before}{marker}\n\n{text}\n{END}{rest.partition(END)[2]}")

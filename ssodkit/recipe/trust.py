"""Plug-ins are code: before code runs that this user has never run here, it is asked for.

What was trained once, or trusted by `--trust-plugins`, is remembered: a line for each file, with the hash of its
content, in `~/.config/ssodkit/trusted_plugins`. A file that was changed or moved is asked about again.
"""

import hashlib
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from ssodkit.errors import RecipeError
from ssodkit.plugins import files_of_module, module_name


def refuse_unknown(locations: Iterable[str]) -> None:
    """Raise RecipeError where loading these plug-ins runs a file that is not known, before anything of it runs."""
    known = _remembered()
    files = dict.fromkeys(file for location in locations for file in _files(location))
    loaded = {getattr(module, "__file__", None) for module in tuple(sys.modules.values())}
    unknown = [str(file) for file in files if str(file) not in loaded and _line(file) not in known]
    if unknown:
        raise RecipeError(
            f"loading this recipe runs code that you have not run here before: {', '.join(unknown)}. "
            "Read it; if you trust it, say --trust-plugins (in Python trust_plugins=True)"
        )


def remember(locations: Iterable[str]) -> None:
    """From now on, this user knows the files of these plug-ins as they are."""
    known = _remembered()
    lines = dict.fromkeys(_line(file) for location in locations for file in _files(location))
    added = [line for line in lines if line not in known]
    if added:
        with suppress(OSError):  # of a home that cannot be written: it is asked again, which harms nobody
            _store().parent.mkdir(parents=True, exist_ok=True)
            with _store().open("a", encoding="utf-8", errors="surrogateescape") as store:
                store.writelines(f"{line}\n" for line in added)


def _store() -> Path:
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "ssodkit" / "trusted_plugins"


def _remembered() -> frozenset[str]:
    try:
        return frozenset(_store().read_text(encoding="utf-8", errors="surrogateescape").splitlines())
    except FileNotFoundError:
        return frozenset()


def _line(file: Path) -> str:
    return f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file}"


def _files(location: str) -> list[Path]:
    """What loading a plug-in runs of its own: its file, and those of the packages around it; nothing is run here."""
    if not location.endswith(".py"):
        return files_of_module(location)
    path = Path(location)
    name, root = module_name(path)
    packages = name.split(".")[:-1]
    around = [root.joinpath(*packages[: depth + 1], "__init__.py") for depth in range(len(packages))]
    return [file for file in (*around, path) if file.is_file()]

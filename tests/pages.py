"""Pages of docs/ that write plug-ins: their blocks as files, and plug-ins for as long as a test needs them."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ssodkit import plugins

DOCS = Path(__file__).parents[1] / "docs"
METHOD_PAGE, CONSISTENCY_PAGE, DETECTOR_PAGE = (
    DOCS / f"add_a_{name}.md" for name in ("method", "consistency", "detector")
)


def write_blocks(folder: Path, page: Path) -> list[str]:
    """Save every block of a page under the name in its first line; the names."""
    names = []
    for kind, name, text in re.findall(r"```(python|yaml)\n# (\S+)\n(.*?)```", page.read_text(), flags=re.DOTALL):
        assert name.endswith(".py" if kind == "python" else ".yaml")
        (folder / name).write_text(text)
        names.append(name)
    return names


@contextmanager
def forgetting(*modules: str) -> Iterator[None]:
    """What is registered inside does not reach other tests, and each imports these modules anew."""
    plugins.load_plugins()
    before = {slot: dict(known) for slot, known in plugins._registry.items()}
    path = list(sys.path)
    yield
    plugins._registry.clear()
    plugins._registry.update(before)
    sys.path[:] = path
    for name in modules:
        sys.modules.pop(name, None)

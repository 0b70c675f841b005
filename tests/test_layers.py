"""The order of the folders: imports point down only. The sources are read, nothing is imported."""

import ast
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[1] / "ssodkit"

LAYERS = (
    ("errors",),
    ("ops",),
    ("structures",),
    ("plugins",),
    ("schedules", "nn", "assigners.matchers", "assigners.selectors", "assigners.regions", "data.augment"),
    ("detectors.criteria", "detectors.backbones", "detectors.heads"),
    ("detectors",),
    ("teachers",),
    ("reliability", "consistency"),
    ("methods", "data"),
    ("recipe",),
    ("engine",),
    ("bench",),
    ("cli",),
    ("__main__",),
)
"""Lowest first; parts of one layer do not know each other. Scorers and consistencies ask teachers."""
HEIGHTS = {part: height for height, layer in enumerate(LAYERS) for part in layer}

RANDOM = {"torch": ("rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial"), "np": ("random",)}
"""Global generators, by the name of their module; names that begin so (`rand_like`) are meant as well."""
SEEDED = "from numpy.random import RandomState"
SEEDED_DATA = ("data/digits.py", "data/scenes.py", "data/splits.py")
"""Data that is made or drawn once, by a `RandomState` with a seed of its own."""


def sources() -> list[Path]:
    """Every file with content, except the face of the package, which imports from everywhere on first use."""
    files = (path for path in SOURCES.rglob("*.py") if path != SOURCES / "__init__.py")
    return sorted(path for path in files if path.stat().st_size)


def module_name(path: Path) -> str:
    """`ssodkit/ops/boxes.py` is `ops.boxes`; a package is called like its folder."""
    parts = path.relative_to(SOURCES).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def part_of(module: str) -> str | None:
    """The part of the order that a module belongs to: the longest name that it begins with."""
    fitting = [part for part in HEIGHTS if f"{module}.".startswith(f"{part}.")]
    return max(fitting, key=len, default=None)


def imported(path: Path) -> set[str]:
    """Modules of ours that a file imports anywhere, without `ssodkit.`; the package itself is an empty name."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides its layer"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.removeprefix("ssodkit").removeprefix(".") for name in found if name.split(".")[0] == "ssodkit"}


def forbidden_imports(path: Path) -> list[str]:
    own = part_of(module_name(path))
    assert own is not None, f"{path} has no place in the order of layers"
    found = []
    for name in sorted(imported(path)):
        other = part_of(name)
        if own == "cli" and name == "__version__":
            continue
        if other is None or (other != own and HEIGHTS[other] >= HEIGHTS[own]):
            found.append(f"{own} imports {name}")
    return found


def global_draws(code: str) -> list[str]:
    """Uses of global random generators in a source text."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = {"numpy": "np"}.get(node.value.id, node.value.id)
            if any(node.attr == name or node.attr.startswith(f"{name}_") for name in RANDOM.get(module, ())):
                found.append(f"{node.value.id}.{node.attr}")
        elif isinstance(node, ast.Import) and any(alias.name == "random" for alias in node.names):
            found.append("import random")
        elif isinstance(node, ast.ImportFrom) and node.module in ("random", "numpy.random", "torch.random"):
            found.append(f"from {node.module} import {', '.join(alias.name for alias in node.names)}")
    return found


def checks_shapes(module: str, packages: list[str]) -> bool:
    """Whether a module is one of these packages, or lies in one."""
    return any(f"ssodkit.{module}.".startswith(f"{package}.") for package in packages)


def test_layers__every_file_that_says_shapes_has_them_checked_while_tests_run(pytestconfig: pytest.Config):
    packages = pytestconfig.getoption("--jaxtyping-packages").split(",")
    saying = [path for path in sources() if "from jaxtyping import" in path.read_text(encoding="utf-8")]
    assert len(saying) >= 50
    assert [module_name(path) for path in saying if not checks_shapes(module_name(path), packages)] == []


def test_layers__the_sources_are_found():
    names = {module_name(path) for path in sources()}
    assert len(names) >= 50
    assert all((SOURCES / name).is_file() for name in SEEDED_DATA)
    assert {"errors", "plugins", "ops.boxes", "structures.views", "recipe.check", "cli"} <= names


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.relative_to(SOURCES).as_posix())
def test_layers__imports_point_down(path: Path):
    assert forbidden_imports(path) == []


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.relative_to(SOURCES).as_posix())
def test_layers__no_draw_comes_from_a_global_generator(path: Path):
    allowed = {SEEDED} if path.relative_to(SOURCES).as_posix() in SEEDED_DATA else set()
    assert set(global_draws(path.read_text(encoding="utf-8"))) <= allowed


def test_forbidden_imports__an_upward_import_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(globals(), "SOURCES", tmp_path)
    for folder in ("ops", "assigners/selectors"):
        (tmp_path / folder).mkdir(parents=True)
    low = tmp_path / "ops" / "boxes.py"
    low.write_text("def f():\n    from ssodkit.structures import views\nimport torch\nimport ssodkit.plugins\n")
    assert forbidden_imports(low) == ["ops imports plugins", "ops imports structures.views"]
    side = tmp_path / "assigners" / "selectors" / "one.py"
    side.write_text("from ssodkit.assigners.matchers.base import Matcher\nfrom ssodkit import load_recipe\n")
    assert forbidden_imports(side) == [
        "assigners.selectors imports assigners.matchers.base.Matcher",
        "assigners.selectors imports load_recipe",
    ]
    side.write_text("from ssodkit.assigners.selectors.base import Selector\nfrom ssodkit.ops import boxes\n")
    assert forbidden_imports(side) == []


def test_global_draws__are_found_in_every_spelling():
    code = "import random\nimport numpy as np\nfrom numpy.random import rand\ntorch.rand_like(x)\nnp.random.rand()\n"
    assert global_draws(code) == [
        "import random",
        "from numpy.random import rand",
        "torch.rand_like",
        "np.random",
    ]
    assert global_draws("from ssodkit.ops.random import normal\nnormal(keys, (), 'x')\nnn.init.normal_(w)\n") == []

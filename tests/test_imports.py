"""What is imported when: heavy packages only where they are used. Each test looks at a process of its own."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import ssodkit
from ssodkit.recipe.read import shipped_recipes

SHOW_HELP = "import ssodkit.cli\ntry: ssodkit.cli.app([{}])\nexcept SystemExit: pass"
HEAVY = ("torchvision", "timm", "sklearn", "pycocotools", "wandb", "PIL", "scipy")


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(Path(ssodkit.__file__).parents[1])}


def modules_after(code: str) -> set[str]:
    """The top-level modules that a process has imported when `code` is done."""
    code += "\nimport json, sys\nprint(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment(), capture_output=True, check=True, text=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_imports__the_package_alone_imports_neither_torch_nor_pydantic():
    assert not {"torch", "numpy", "pydantic", "yaml", *HEAVY} & modules_after("import ssodkit")


def test_imports__help_imports_neither_torch_nor_pydantic():
    assert not {"torch", "numpy", "pydantic", "yaml", *HEAVY} & modules_after(SHOW_HELP.format("'--help'"))


def test_imports__help_on_a_verb_does_not_import_torch():
    for verb in ("'run'", "'predict'", "'recipe', 'check'"):
        assert not {"torch", "numpy", "yaml", *HEAVY} & modules_after(SHOW_HELP.format(f"{verb}, '--help'"))


def test_imports__help_shows_at_once():
    command = [sys.executable, "-m", "ssodkit", "--help"]
    took = []
    for _ in range(5):
        start = time.perf_counter()
        shown = subprocess.run(command, env=environment(), capture_output=True, check=True, text=True).stdout
        took.append(time.perf_counter() - start)
        assert "run" in shown
    assert min(took) < 0.4


def test_imports__checking_recipes_needs_torch_and_nothing_heavier():
    names = shipped_recipes()
    assert names
    found = modules_after(f"from ssodkit import load_recipe\nfor name in {names}: load_recipe(name)")
    assert "torch" in found
    assert not set(HEAVY) & found


def test_imports__loading_every_plugin_and_its_schema_needs_nothing_heavier():
    code = "from ssodkit.plugins import load_plugins\nload_plugins()\nfrom ssodkit.recipe.schema import recipe_schema\n"
    assert not set(HEAVY) & modules_after(code + "recipe_schema()")


def test_package__names_are_loaded_on_first_use():
    from ssodkit.plugins import register
    from ssodkit.recipe.check import load_recipe

    assert ssodkit.register is register
    assert ssodkit.load_recipe is load_recipe
    assert {"load_recipe", "train", "evaluate", "predict", "label", "register"} <= set(dir(ssodkit))

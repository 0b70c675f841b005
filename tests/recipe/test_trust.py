"""What of a plug-in runs, and when: the modules of these tests leave a file behind when they do."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from ssodkit.errors import RecipeError
from ssodkit.recipe.check import load_recipe

MARK = "import pathlib\npathlib.Path(__file__ + '.ran').touch()\n"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where nothing is trusted yet."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def write(tmp_path: Path, home: Path):
    """File, its text, what the recipe says of plug-ins -> the recipe."""

    def make(name: str, text: str = MARK, plugins: str | None = None) -> Path:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        recipe = tmp_path / "mine.yaml"
        recipe.write_text(f"extends: supervised\nplugins: [{plugins or name}]\n")
        return recipe

    return make


def ran(recipe: Path) -> list[str]:
    return sorted(path.name for path in recipe.parent.rglob("*.ran"))


def test_load_recipe__a_plugin_that_is_new_here_is_named_and_not_run(write):
    recipe = write("plug_new.py")
    with pytest.raises(
        RecipeError, match=r"mine\.yaml:2:10 plugins: .*not run here before: /.*plug_new\.py\..*--trust-plug"
    ):
        load_recipe(recipe)
    assert ran(recipe) == []


@pytest.mark.parametrize("plugins", ["plug_pack.plug", "plug_pack/plug.py"])
def test_load_recipe__packages_around_a_plugin_are_new_as_well(write, plugins):
    recipe = write("plug_pack/plug.py", plugins=plugins)
    (recipe.parent / "plug_pack" / "__init__.py").write_text(MARK)
    with pytest.raises(RecipeError, match=r"plug_pack/__init__\.py, .*plug_pack/plug\.py\. Read it"):
        load_recipe(recipe)
    assert ran(recipe) == []


@pytest.mark.parametrize("plugins", ["plug_path.plug", "plug_space.plug"])
def test_load_recipe__an_installed_module_is_new_as_well(write, monkeypatch, tmp_path, plugins):
    recipe = write("site/plug_path/__init__.py", plugins=plugins)
    (tmp_path / "site" / "plug_path" / "plug.py").write_text(MARK)
    (tmp_path / "site" / "plug_space").mkdir()
    (tmp_path / "site" / "plug_space" / "plug.py").write_text(MARK)
    monkeypatch.syspath_prepend(tmp_path / "site")
    with pytest.raises(RecipeError, match=rf"{plugins.replace('.', '/')}\.py\. Read it"):
        load_recipe(recipe)
    assert ran(recipe) == []


def test_load_recipe__what_is_trusted_is_remembered_until_it_changes_or_moves(write, monkeypatch, tmp_path):
    recipe = write("plug_kept.py")
    load_recipe(recipe, trust_plugins=True)
    assert ran(recipe) == ["plug_kept.py.ran"]
    forget_modules(monkeypatch, "plug_kept")
    load_recipe(recipe)
    (tmp_path / "elsewhere").mkdir()
    for name in ("mine.yaml", "plug_kept.py"):
        shutil.copy(tmp_path / name, tmp_path / "elsewhere")
    forget_modules(monkeypatch, "plug_kept")
    with pytest.raises(RecipeError, match="have not run here before"):
        load_recipe(tmp_path / "elsewhere" / "mine.yaml")
    with recipe.with_name("plug_kept.py").open("a") as file:
        file.write("changed = True\n")
    with pytest.raises(RecipeError, match="have not run here before"):
        load_recipe(recipe)


def test_load_recipe__another_module_of_the_name_is_not_run_instead(write, monkeypatch, tmp_path):
    recipe = write("plug_twice.py")
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "plug_twice.py").write_text(MARK)
    monkeypatch.syspath_prepend(tmp_path / "first")
    with pytest.raises(RecipeError, match=r"'plug_twice' is taken by .*first/plug_twice\.py; rename the file"):
        load_recipe(recipe, trust_plugins=True)
    assert ran(recipe) == []


def forget_modules(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """As in another process."""
    monkeypatch.delitem(sys.modules, name, raising=False)


def test_load_recipe__what_this_process_has_run_already_is_not_asked_about(write, home):
    recipe = write("plug_loaded.py")
    load_recipe(recipe, trust_plugins=True)
    shutil.rmtree(home)
    assert load_recipe(recipe).plugins == (str(recipe.with_name("plug_loaded.py")),)


def test_load_recipe__a_plugin_of_the_first_stage_is_new_as_well(write, tmp_path):
    recipe = write("plug_stage.py", plugins="plug_stage.py")
    (tmp_path / "second.yaml").write_text("extends: stac\ndata: {unlabeled: {made_by: mine.yaml}}\n")
    with pytest.raises(RecipeError, match=r"second\.yaml.*plug_stage\.py"):
        load_recipe(tmp_path / "second.yaml")
    assert ran(recipe) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_load_recipe__a_home_that_cannot_be_written_is_no_reason_not_to_train(write, home):
    recipe = write("plug_homeless.py")
    home.mkdir(mode=0o500)
    load_recipe(recipe, trust_plugins=True)
    assert ran(recipe) == ["plug_homeless.py.ran"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("plug_exits", "import sys\nsys.exit(3)\n", r"SystemExit: 3 \(.*plug_exits\.py, line 2\)"),
        ("plug_raises", "raise BaseException('no')\n", r"BaseException: no \(.*plug_raises\.py, line 1\)"),
        ("plug_closes", "raise GeneratorExit\n", r"GeneratorExit \("),
    ],
)
def test_load_recipe__a_plugin_that_ends_the_program_is_a_mistake(write, name, text, said):
    recipe = write(f"{name}.py", text)
    with pytest.raises(RecipeError, match=rf"mine\.yaml:2:11 plugins\.0: the module .* cannot be imported: {said}"):
        load_recipe(recipe, trust_plugins=True)


@pytest.mark.parametrize("name", ["''", "'...'", "a..b", "/", "a b", "1", "null", "{a: b}", '"a\\0.py"'])
def test_load_recipe__a_plugin_that_names_no_module_is_a_mistake_at_its_place(write, name):
    recipe = write("unused.py", plugins=name)
    with pytest.raises(RecipeError, match=r"mine\.yaml:2:11 plugins\.0: "):
        load_recipe(recipe)

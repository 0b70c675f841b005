"""Suites: mistakes are named at their place, cells are what the suite says, and `--only` chooses among them."""

from pathlib import Path

import pytest

from ssodkit.bench.suite import cells_of, choose
from ssodkit.errors import RecipeError

HEAD = "name: mine\nabout: Mine.\n"


def write(folder: Path, text: str) -> Path:
    file = folder / "mine.yaml"
    file.write_text(HEAD + text, encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        (
            "methods: [{recipe: supervised}]\npercent: [1]\n",
            "mine.yaml:4:1 percent: unknown key; did you mean 'percents'?",
        ),
        (
            "methods: [{recipe: supervised, sett: {}}]\n",
            "mine.yaml:3:32 methods.0.sett: unknown key; did you mean 'set'?",
        ),
        ("methods: []\n", "mine.yaml:3:10 methods: must have 1 or more items, not 0"),
        ("folds: [0]\nmethods: [{recipe: supervised}]\n", "mine.yaml:3:9 folds.0: must be at least 1, not 0"),
        (
            "methods: [{recipe: soft_teacher, baseline: supervisd}, {recipe: supervised}]\n",
            "mine.yaml:3:10 methods: the baseline of 'soft_teacher' is no row; did you mean 'supervised'?",
        ),
        (
            "methods: [{recipe: supervised}, {recipe: supervised, set: {engine.steps: 5}}]\n",
            "mine.yaml:3:10 methods: two rows are called 'supervised'; give one of them another `name`",
        ),
        (
            "methods: [{recipe: supervised, baseline: supervised}]\n",
            "mine.yaml:3:10 methods: 'supervised' is its own baseline; name another row, or leave `baseline` out",
        ),
        (
            "percents: [2.5, 5, 2.5]\nmethods: [{recipe: supervised}]\n",
            "mine.yaml:3:11 percents: 2.5 stands twice; leave one of them out",
        ),
        (
            "folds: [1, 1]\nmethods: [{recipe: supervised}]\n",
            "mine.yaml:3:8 folds: 1 stands twice; leave one of them out",
        ),
        (
            "seeds: [7, 7]\nmethods: [{recipe: supervised}]\n",
            "mine.yaml:3:8 seeds: 7 stands twice; leave one of them out",
        ),
        (
            "percents: [5]\nset: {data.percent: 10}\nmethods: [{recipe: supervised}]\n",
            "mine.yaml:4:21 set.data.percent: the suite's own `percents` sets this; leave one of them out",
        ),
        (
            "percents: [5]\nset: {data: {percent: 10}}\nmethods: [{recipe: supervised}]\n",
            "mine.yaml:4:23 set.data.percent: the suite's own `percents` sets this; leave one of them out",
        ),
        (
            "shots: [5]\nset: {data: {percent: 10}}\nmethods: [{recipe: supervised}]\n",
            "mine.yaml:4:23 set.data.percent: the suite's own `shots` sets this; leave one of them out",
        ),
        (
            "folds: [1]\nmethods: [{recipe: supervised, set: {data.fold: 2, seed: 3}}]\n",
            "mine.yaml:4:49 methods.0.set.data.fold: the suite's own `folds` sets this; leave one of them out\n"
            "mine.yaml:4:58 methods.0.set.seed: the suite's own `folds` sets this; leave one of them out",
        ),
    ],
)
def test_cells_of__a_mistake_is_named_at_its_place(
    text: str, mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, text)
    with pytest.raises(RecipeError) as error:
        cells_of("mine.yaml")
    assert str(error.value) == mistake


def test_cells_of__an_unknown_name_is_told_the_nearest():
    with pytest.raises(RecipeError, match=r"there is no suite 'digits_tinny': .* did you mean 'digits_tiny'"):
        cells_of("digits_tinny")


@pytest.mark.parametrize(
    ("row", "mistake"),
    [
        ("{recipe: superwised}", "mine.yaml:5:14 methods.1 (superwised): there is no recipe 'superwised'"),
        (
            "{recipe: stac, set: {engine.step: 5}}",
            "mine.yaml:5:14 methods.1 (stac): --set engine.step=5: engine.step: unknown key; did you mean 'steps'?",
        ),
    ],
)
def test_cells_of__a_row_with_a_broken_recipe_is_named_at_its_place(
    row: str, mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, f"methods:\n  - {{recipe: supervised}}\n  - {row}\n")
    with pytest.raises(RecipeError) as error:
        cells_of("mine.yaml")
    assert str(error.value).startswith(mistake)


def test_cells_of__two_rows_that_are_one_training_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "methods: [{recipe: supervised}, {recipe: supervised, name: again}]\n")
    with pytest.raises(RecipeError, match=r"mine.yaml:3:10 methods: the rows 'supervised' and 'again' are the same"):
        cells_of("mine.yaml")


def test_cells_of__a_fold_has_a_seed_of_its_own_or_every_seed_of_a_list(tmp_path: Path):
    rows = "folds: [1, 3]\nmethods: [{recipe: supervised}]\n"
    _, per_fold = cells_of(write(tmp_path, rows))
    assert [(cell.fold, cell.seed, cell.recipe.data.fold, cell.recipe.seed) for cell in per_fold] == [
        (1, 0, 1, 0),
        (3, 2, 3, 2),
    ]
    _, listed = cells_of(write(tmp_path, "seeds: [5, 6]\n" + rows))
    assert [(cell.fold, cell.recipe.seed) for cell in listed] == [(1, 5), (1, 6), (3, 5), (3, 6)]


def test_cells_of__values_of_a_row_come_after_those_of_the_suite(tmp_path: Path):
    text = "set: {engine.steps: 7}\nmethods: [{recipe: supervised}, {recipe: stac, set: {engine.steps: 9}}]\n"
    _, cells = cells_of(write(tmp_path, text))
    assert {cell.method: cell.recipe.engine.steps for cell in cells} == {"supervised": 7, "stac": 9}


def test_cells_of__values_join_and_replace_each_other_in_the_order_in_which_they_stand(tmp_path: Path):
    text = (
        "set: {watch.gallery: {images: 4}, watch.gallery.moments: 3}\n"
        "methods: [{recipe: supervised, set: {watch.gallery: {moments: 9}}}]\n"
    )
    (cell,) = cells_of(write(tmp_path, text))[1]
    assert (cell.recipe.watch.gallery.images, cell.recipe.watch.gallery.moments) == (4, 9)


def test_cells_of__names_tell_cells_apart_and_are_those_of_any_suite(tmp_path: Path):
    short = "{recipe: supervised, name: short, set: {engine.steps: 9}}"
    _, cells = cells_of(write(tmp_path, f"percents: [2.5, 10]\nmethods: [{{recipe: supervised}}, {short}]\n"))
    assert len({cell.name for cell in cells}) == 4
    _, alone = cells_of(write(tmp_path, "percents: [10.0]\nmethods: [{recipe: supervised}]\n"))
    assert alone[0].name in {cell.name for cell in cells}
    assert alone[0].name == f"supervised-10pct-fold1-seed0-{alone[0].hash}"


@pytest.mark.parametrize(
    ("only", "expected"),
    [
        ([], 12),
        (["method=stac"], 6),
        (["method=stac,percent=2.5"], 3),
        (["percent=2.5", "percent=10", "fold=1"], 4),
        (["method=stac,fold=1", "fold=2"], 4),
        (["seed=2", "method=stac", "percent=10"], 1),
    ],
)
def test_choose__any_value_of_a_key_and_all_keys(tmp_path: Path, only: list[str], expected: int):
    rows = "percents: [2.5, 10]\nfolds: [1, 2, 3]\nmethods: [{recipe: supervised}, {recipe: stac}]\n"
    assert len(choose(cells_of(write(tmp_path, rows))[1], only)) == expected


KEYS = "a choice is key=value, its key one of: method, percent, shots, fold, seed"


@pytest.mark.parametrize(
    ("only", "mistake"),
    [
        (
            ["methd=stac"],
            f"--only methd=stac: {KEYS}",
        ),
        (["stac"], f"--only stac: {KEYS}"),
        (["method=sta"], "--only method=sta: no cell has this method; method is one of: supervised, stac"),
        (["percent=5"], "--only percent=5: no cell has this percent; percent is one of: 2.5, 10"),
        (["fold=1,seed=1"], "--only fold=1,seed=1: cells have each of these, but no cell has all of them"),
    ],
)
def test_choose__what_no_cell_has_is_refused_with_what_there_is(tmp_path: Path, only: list[str], mistake: str):
    rows = "percents: [2.5, 10]\nfolds: [1, 2]\nmethods: [{recipe: supervised}, {recipe: stac}]\n"
    with pytest.raises(RecipeError) as error:
        choose(cells_of(write(tmp_path, rows))[1], only)
    assert str(error.value) == mistake

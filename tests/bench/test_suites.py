"""Every suite that comes with the project: read whole, with all of its recipes."""

import pytest

from ssodkit.bench.published import Published, read_published, shipped_benchmarks
from ssodkit.bench.suite import cells_of

SUITES = sorted(path.stem for path in shipped_benchmarks().glob("*.yaml") if path.stem != "published")


def test_suites__are_all_that_are_promised():
    assert {"digits_small", "digits", "coco_partial", "coco_additional", "voc"} <= set(SUITES)
    assert (
        len([name for name in SUITES if name.startswith(("soft_teacher", "consistent_teacher", "unbiased_teacher"))])
        == 9
    )


@pytest.mark.parametrize("name", SUITES)
def test_suite__every_recipe_is_valid_and_published_rows_exist(name):
    suite, cells = cells_of(name)
    assert len({cell.hash for cell in cells}) == len(cells)
    assert {cell.method for cell in cells} == {row.name for row in suite.methods}
    assert [row.name for row in suite.methods if row.baseline == row.name] == []
    if suite.published is None:
        return
    keys = {published_key(entry) for entry in read_published()}
    setting, metric, same = suite.published.setting, suite.published.metric, suite.published.percent == "same"
    percents = (suite.percents or (None,)) if same else (suite.published.percent,)
    for row in suite.methods:
        if row.published is not None:
            method, detector, variant = row.published.method, row.published.detector, row.published.variant
            assert any((method, detector, setting, percent, metric, variant) in keys for percent in percents), row.name


def published_key(entry: Published) -> tuple[str | float | None, ...]:
    return (entry.method, entry.detector, entry.setting, entry.percent, entry.metric, entry.variant)


def test_coco_partial__is_one_draw_of_labels_for_all_methods():
    _, cells = cells_of("coco_partial")
    assert len(cells) == 8 * 4 * 5
    assert {cell.recipe.data.folds for cell in cells} == {"stac"}
    draws = {(cell.percent, cell.fold): cell.seed for cell in cells}
    assert all(seed == fold - 1 for (_, fold), seed in draws.items())


def test_digits_small__holds_what_the_recipes_train_by_themselves():
    """The first fold is `ssodkit run recipes/NAME.yaml`, but for the evaluations on the way."""
    _, cells = cells_of("digits_small")
    first = [cell.recipe for cell in cells if cell.fold == 1]
    assert [(recipe.data.percent, recipe.seed, recipe.engine.steps) for recipe in first] == [(2.5, 0, 1500)] * 8

"""Every suite that comes with the project: read whole, with all of its recipes."""

from typing import Any

import pytest

from ssodkit.bench.published import Published, read_published, shipped_benchmarks

SUITES = sorted(path.stem for path in shipped_benchmarks().glob("*.yaml") if path.stem != "published")


def test_suites__are_all_that_are_promised():
    assert {"digits_small", "digits", "coco_partial", "coco_additional", "voc"} <= set(SUITES)
    assert (
        len([name for name in SUITES if name.startswith(("soft_teacher", "consistent_teacher", "unbiased_teacher"))])
        == 11
    )


@pytest.mark.parametrize("name", SUITES)
def test_suite__every_recipe_is_valid_and_published_rows_exist(name: str, shipped_cells: Any):
    suite, cells = shipped_cells(name)
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


SOFT, STAC, UNBIASED, CONSISTENT = "2106.09018", "2005.04757", "2102.09480", "2209.01589"
SEMI_DETR = "2307.08095"


@pytest.mark.parametrize(
    ("name", "row", "values", "source"),
    [
        ("digits_small", "supervised", [26.94], SOFT),
        ("digits_small", "supervised_retinanet", [24.1], CONSISTENT),
        ("digits", "supervised", [10.0, None, 20.92], SOFT),
        ("digits", "supervised_retinanet", [10.22, 13.8, 19.4], CONSISTENT),
        ("coco_partial", "supervised", [10.0, None, 20.92, 26.94], SOFT),
        ("coco_partial", "supervised_stac", [9.05, 12.7, 18.47, 23.86], STAC),
        ("coco_partial", "supervised_retinanet", [10.22, 13.8, 19.4, 24.1], CONSISTENT),
        ("coco_partial", "supervised_dino", [18.0, None, 29.5, 35.0], SEMI_DETR),
        ("semi_detr_parts", "supervised_dino", [35.0], SEMI_DETR),
        ("coco_additional", "supervised_additional", [40.9], SOFT),
        ("voc", "supervised", [42.13], UNBIASED),
        ("voc", "supervised_stac", [42.6], STAC),
        ("soft_teacher_components", "supervised", [27.1], SOFT),
        ("consistent_teacher_full", "supervised_retinanet", [38.4], CONSISTENT),
        ("consistent_teacher_full", "fam3d", [40.7], CONSISTENT),
    ],
)
def test_suite__a_supervised_row_has_the_number_of_the_paper_whose_baseline_it_is(
    name: str, row: str, values: list[float | None], source: str, shipped_table: Any
):
    entries = next(entries for entries in shipped_table(name)[0].rows if entries[0].row.name == row)
    assert [entry.published and entry.published.value for entry in entries] == values
    assert all(source in entry.published.source for entry in entries if entry.published)


@pytest.mark.parametrize("name", SUITES)
def test_suite__no_other_number_of_the_same_origin_could_stand_beside_a_row(name: str, shipped_table: Any):
    entries = read_published()
    for entry in shipped_table(name)[0].entries:
        if entry.published is not None:
            assert entry.row.published is not None
            source = entry.row.published.source
            same = [one for one in entries if one.key[:-1] == entry.published.key[:-1]]
            same = [one for one in same if one.unconfirmed == entry.published.unconfirmed]
            assert [one for one in same if source is None or one.is_of(source)] == [entry.published]


def test_coco_partial__is_one_draw_of_labels_for_all_methods(shipped_cells: Any):
    _, cells = shipped_cells("coco_partial")
    assert len(cells) == 16 * 4 * 5
    assert {cell.recipe.data.folds for cell in cells} == {"stac"}
    draws = {(cell.share, cell.fold): cell.seed for cell in cells}
    assert all(seed == fold - 1 for (_, fold), seed in draws.items())


def test_digits_small__holds_what_the_recipes_train_by_themselves(shipped_cells: Any):
    """The first fold is `ssodkit run recipes/NAME.yaml`, but for the evaluations on the way."""
    _, cells = shipped_cells("digits_small")
    first = [cell.recipe for cell in cells if cell.fold == 1]
    assert [(recipe.data.percent, recipe.seed, recipe.engine.steps) for recipe in first] == [(2.5, 0, 1500)] * 8

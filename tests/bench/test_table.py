"""The arithmetic of tables and the protocol that they enforce, on results that are made by hand."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from ssodkit.bench.formats import to_csv
from ssodkit.bench.layout import lay_out
from ssodkit.bench.published import Published, shipped_benchmarks
from ssodkit.bench.results import CellResult, write_result
from ssodkit.bench.suite import cells_of
from ssodkit.bench.table import Entry, Table, load_table, make_table
from ssodkit.errors import RecipeError, TrainingError

MakeTable = Callable[..., Table]
SUPERVISED = [40.1, 42.4, 38.1, 41.0, 39.3]
TAUGHT = [55.4, 54.8, 52.2, 51.7, 55.0]
PAIR = [{"recipe": "supervised"}, {"recipe": "soft_teacher", "baseline": "supervised"}]
FASTER = "faster_rcnn_r50"
ROWS = [
    {**PAIR[0], "published": {"method": "supervised", "detector": FASTER}},
    {**PAIR[1], "published": {"method": "soft_teacher", "detector": FASTER}},
]


def entry_of(table: Table, method: str, column: int = 0) -> Entry:
    return next(row[column] for row in table.rows if row[column].row.name == method)


def number(value: float, percent: float | None, **changes: Any) -> Published:
    plain = {"method": "soft_teacher", "detector": FASTER, "setting": "coco_standard", "metric": "AP", "source": "a"}
    return Published.model_validate({**plain, "value": value, "percent": percent, **changes})


def test_table__where_nothing_is_done_every_number_is_missing(make_tables: MakeTable):
    table = make_tables({})
    for entry in table.entries:
        assert (entry.mean, entry.deviation, entry.gain, entry.points, entry.folds) == (None, None, None, {}, 2)
    assert table.results == ()
    assert (table.scored.network, table.scored.threshold) == ("teacher", "0.05")


def test_table__one_fold_has_a_mean_and_a_gain_but_no_spread(make_tables: MakeTable):
    table = make_tables({"supervised": [40.0, None], "soft_teacher": [55.0, None]})
    entry = entry_of(table, "soft_teacher")
    assert entry.mean == pytest.approx(55.0)
    assert entry.deviation is None
    assert entry.gain is not None
    assert entry.gain.mean == pytest.approx(15.0)
    assert entry.gain.interval is None
    assert (len(entry.points), entry.folds) == (1, 2)


@pytest.mark.parametrize("folds", [2, 5])
def test_table__spreads_and_intervals_equal_scipys(make_tables: MakeTable, folds: int):
    base, ours = SUPERVISED[:folds], TAUGHT[:folds]
    table = make_tables({"supervised": base, "soft_teacher": ours}, folds=list(range(1, folds + 1)))
    entry = entry_of(table, "soft_teacher")
    assert entry.mean == pytest.approx(sum(ours) / folds)
    assert entry.deviation == pytest.approx(stats.tstd(ours))
    expected = stats.ttest_rel(ours, base).confidence_interval(0.95)
    assert entry.gain is not None
    assert entry.gain.interval == pytest.approx((expected.low, expected.high))
    assert entry.gain.is_wide == (folds < 5)
    assert entry_of(table, "supervised").gain is None


def test_table__a_gain_is_over_the_folds_that_both_have(make_tables: MakeTable):
    table = make_tables({"supervised": [40.0, None, 30.0], "soft_teacher": [50.0, 60.0, None]}, folds=[1, 2, 3])
    entry = entry_of(table, "soft_teacher")
    assert entry.mean == pytest.approx(55.0)
    assert entry.gain is not None
    assert (entry.gain.mean, entry.gain.pairs) == (pytest.approx(10.0), 1)


def test_table__without_a_baselines_result_there_is_no_gain(make_tables: MakeTable):
    entry = entry_of(make_tables({"soft_teacher": [50.0, 52.0]}), "soft_teacher")
    assert entry.baseline is not None
    assert entry.gain is None
    assert entry.mean == pytest.approx(51.0)


def test_table__seeds_of_a_fold_are_averaged_first(make_tables: MakeTable):
    table = make_tables({"supervised": [40.0, 44.0, 30.0, 38.0], "soft_teacher": [None] * 4}, seeds=[0, 1])
    entry = entry_of(table, "supervised")
    assert entry.points == {1: pytest.approx(42.0), 2: pytest.approx(34.0)}
    assert entry.deviation == pytest.approx(32**0.5)


def test_table__a_fold_that_lacks_a_seed_is_not_done(make_tables: MakeTable):
    entry = entry_of(make_tables({"supervised": [40.0, 44.0, 30.0, None]}, seeds=[0, 1]), "supervised")
    assert entry.points == {1: pytest.approx(42.0)}
    assert len(entry.results) == 3


def test_table__columns_are_shares_of_labels_and_pair_within_themselves(make_tables: MakeTable):
    points = {"supervised": [40.0, 42.0, 60.0, 62.0], "soft_teacher": [50.0, 52.0, 61.0, 63.0]}
    table = make_tables(points, percents=[5, 10])
    gains = [entry.gain for entry in table.rows[1]]
    assert [gain and pytest.approx(gain.mean) for gain in gains] == [10.0, 1.0]
    assert [entry.share.percent for entry in table.rows[1]] == [5.0, 10.0]


def test_table__a_column_may_be_called_by_how_many_images_it_has(make_tables: MakeTable):
    table = make_tables({}, percents=[10, 20], shots=[3], headings=["7 labels", "14 labels"])
    groups = list(dict.fromkeys(column.group for column in lay_out(table).columns if column.group))
    assert groups == ["7 labels", "14 labels", "3 shots a class"]


def test_table__fewer_headings_than_columns_are_refused(make_tables: MakeTable):
    with pytest.raises(RecipeError, match=r"`headings` holds 1, but there are 2 percents"):
        make_tables({}, percents=[10, 20], headings=["7 labels"])


def test_table__columns_may_be_shots_of_each_class(make_tables: MakeTable):
    points = {"supervised": [40.0, 42.0, 60.0, 62.0], "soft_teacher": [50.0, 52.0, 61.0, 63.0]}
    table = make_tables(points, percents=[5], shots=[10])
    assert [str(entry.share) for entry in table.rows[1]] == ["5 %", "10 shots"]
    assert [gain and pytest.approx(gain.mean) for gain in (entry.gain for entry in table.rows[1])] == [10.0, 1.0]
    assert {column.group for column in lay_out(table).columns} == {"", "5 % labels", "10 shots a class"}
    lines = [line.split(",")[4:6] for line in to_csv(table).splitlines()]
    assert lines == [["percent", "shots"], ["5.0", ""], ["", "10"], ["5.0", ""], ["", "10"]]


def test_table__without_shares_there_is_one_column_of_the_recipes_own(make_tables: MakeTable):
    table = make_tables({"supervised": [40.0, 42.0], "soft_teacher": [50.0, 52.0]}, percents=None)
    assert [len(row) for row in table.rows] == [1, 1]
    assert entry_of(table, "soft_teacher").share.percent == 2.5
    assert entry_of(table, "soft_teacher").gain is not None


@pytest.mark.parametrize(
    ("options", "mean"),
    [
        ({"network": "student"}, 39.0),
        ({"threshold": 0.001}, 41.0),
        ({"threshold": 0.001, "network": "student"}, 40.0),
        ({"metric": "AP50"}, 60.0),
    ],
)
def test_table__shows_the_network_threshold_and_metric_that_are_asked(
    make_tables: MakeTable, options: dict[str, Any], mean: float
):
    table = make_tables({"supervised": [40.0, 40.0]}, options=options)
    assert entry_of(table, "supervised").mean == pytest.approx(mean)


def test_table__a_metric_without_a_value_has_no_mean(make_tables: MakeTable):
    entry = entry_of(make_tables({"supervised": [40.0, 41.0]}, options={"metric": "AP_L"}), "supervised")
    assert entry.points == {1: None, 2: None}
    assert (entry.mean, entry.deviation, entry.gain) == (None, None, None)


@pytest.mark.parametrize("points", [{}, {"supervised": [40.0, 41.0]}])
def test_table__an_unknown_metric_is_refused_with_those_there_are(make_tables: MakeTable, points: dict[str, Any]):
    with pytest.raises(RecipeError, match=r"there is no metric 'AP51' here; one of: AP, AP50, AP"):
        make_tables(points, options={"metric": "AP51"})


def test_table__a_threshold_that_was_not_tested_is_refused(make_tables: MakeTable):
    with pytest.raises(RecipeError, match=r"not tested at the threshold 0\.5; its thresholds: 0\.05, 0\.001"):
        make_tables({}, options={"threshold": 0.5})


def test_table__recipes_with_different_results_are_refused_until_one_is_chosen(make_tables: MakeTable):
    rows = [*PAIR, {"recipe": "mean_teacher", "set": {"evaluation.result": "student"}}]
    with pytest.raises(RecipeError, match=r"is its teacher, that of 'mean_teacher' its student.*--network"):
        make_tables({}, methods=rows)
    assert make_tables({}, methods=rows, options={"network": "student"}).scored.network == "student"
    rows = [*PAIR, {"recipe": "mean_teacher", "set": {"evaluation.thresholds": [0.001, 0.05]}}]
    with pytest.raises(RecipeError, match=r"test threshold 0\.05, that of 'mean_teacher' at 0\.001.*--threshold"):
        make_tables({}, methods=rows)
    assert make_tables({}, methods=rows, options={"threshold": 0.001}).scored.threshold == "0.001"


def test_table__recipes_without_a_teacher_do_not_choose_the_network(make_tables: MakeTable):
    alone = {"method.teacher": None, "evaluation.result": "student"}
    table = make_tables({}, methods=[{"recipe": "supervised", "set": alone}, PAIR[1]])
    assert table.scored.network == "teacher"
    with pytest.raises(RecipeError, match="no method of this suite has a teacher"):
        make_tables({}, methods=[{"recipe": "supervised", "set": alone}], options={"network": "teacher"})
    assert make_tables({}, methods=[{"recipe": "supervised", "set": alone}]).scored.network == "student"


def test_table__other_test_images_are_refused(make_tables: MakeTable):
    with pytest.raises(RecipeError, match="'supervised' and 'soft_teacher' are tested on different images"):
        make_tables({}, methods=[PAIR[0], {**PAIR[1], "set": {"data.test.images": 50}}])


@pytest.mark.parametrize("values", [{"data.train.level": "hard"}, {"data.folds": "stac"}])
def test_table__other_labeled_images_are_refused(make_tables: MakeTable, values: dict[str, Any]):
    with pytest.raises(RecipeError, match="'supervised' and 'soft_teacher' learn from different labeled images"):
        make_tables({}, methods=[PAIR[0], {**PAIR[1], "set": values}])


def test_table__a_gain_over_a_baseline_with_other_labels_is_refused(make_tables: MakeTable):
    with pytest.raises(RecipeError, match=r"'soft_teacher' learns from 50 %, its baseline 'supervised' from 2\.5 %"):
        make_tables({}, methods=[PAIR[0], {**PAIR[1], "set": {"data.percent": 50}}], percents=None)
    with pytest.raises(RecipeError, match=r"'soft_teacher' learns from fold 2, its baseline 'supervised' from fold 1"):
        make_tables({}, methods=[PAIR[0], {**PAIR[1], "set": {"data.fold": 2}}], folds=None)


@pytest.fixture
def two_cells(write_suite: Callable[..., Path]) -> tuple[Any, Any]:
    return cells_of(write_suite(folds=[1]))


def refused(two_cells: tuple[Any, Any], results: list[CellResult]) -> str:
    suite, cells = two_cells
    with pytest.raises(TrainingError) as error:
        make_table(suite, cells, {result.recipe_hash: result for result in results}, ())
    return str(error.value)


def test_protocol__other_labeled_images_are_refused_and_both_cells_named(two_cells: Any, make_result: Any):
    base, taught = two_cells[1]
    other = make_result(taught, 50.0)
    other = other.model_copy(update={"fold": other.fold.model_copy(update={"hash": "another"})})
    sentence = refused(two_cells, [make_result(base, 40.0), other])
    assert sentence.startswith(f"{base.name} and {taught.name} were trained on different labeled images")
    assert "fold 1 of 5 % (hashes 5pct-1 and another)" in sentence


def test_protocol__a_result_that_is_not_of_the_last_step_is_refused(two_cells: Any, make_result: Any):
    result = make_result(two_cells[1][0], 40.0)
    early = result.evaluations[-1].model_copy(update={"step": 700})
    sentence = refused(two_cells, [result.model_copy(update={"evaluations": (early,)})])
    assert sentence.startswith(f"{two_cells[1][0].name} was scored after step 700 of 1500, and the last checkpoint")


def test_protocol__a_training_that_ran_out_of_patience_is_whole(two_cells: Any, make_result: Any):
    suite, (cell, *_) = two_cells
    engine = cell.recipe.engine.model_copy(update={"patience": 3})
    patient = replace(cell, recipe=cell.recipe.model_copy(update={"engine": engine}))
    result = make_result(patient, 40.0)
    early = result.evaluations[-1].model_copy(update={"step": 700})
    done = {patient.hash: result.model_copy(update={"evaluations": (early,)})}
    table = make_table(suite.model_copy(update={"methods": suite.methods[:1]}), [patient], done, ())
    assert table.rows[0][0].mean == 40.0


@pytest.mark.parametrize(
    ("thresholds", "reason"),
    [
        ({"0.1": {"teacher": {"AP": 0.4}}}, "has no scores at the test threshold 0.05"),
        ({"0.05": {"student": {"AP": 0.4}, "uncle": {"AP": 0.4}}}, "has no teacher; its networks: student, uncle"),
    ],
)
def test_protocol__a_result_that_lacks_what_is_shown_is_refused(
    two_cells: Any, make_result: Any, thresholds: dict[str, Any], reason: str
):
    result = make_result(two_cells[1][0], 40.0)
    other = result.evaluations[-1].model_copy(update={"thresholds": thresholds})
    sentence = refused(two_cells, [result.model_copy(update={"evaluations": (other,)})])
    assert sentence.startswith(two_cells[1][0].name)
    assert reason in sentence


def test_protocol__the_only_network_of_a_training_stands_for_it(two_cells: Any, make_result: Any):
    suite, cells = two_cells
    result = make_result(cells[0], 40.0)
    alone = result.evaluations[-1].model_copy(update={"thresholds": {"0.05": {"student": {"AP": 0.3}}}})
    results = {cells[0].hash: result.model_copy(update={"evaluations": (alone,)})}
    table = make_table(suite, cells, results, ())
    assert entry_of(table, "supervised").mean == pytest.approx(30.0)
    assert table.scored.network_of(results[cells[0].hash]) == "student"


@pytest.mark.parametrize(("percent", "values"), [("same", [30.0, 34.0]), (10, [34.0, 34.0])])
def test_published__is_of_the_columns_share_or_of_the_one_that_the_suite_names(
    make_tables: MakeTable, percent: Any, values: list[float]
):
    numbers = (number(30.0, 5), number(34.0, 10), number(60.0, 10, metric="AP50"))
    columns = {"setting": "coco_standard", "percent": percent}
    table = make_tables({}, numbers, methods=ROWS, published=columns, percents=[5, 10])
    assert [entry.published and entry.published.value for entry in table.rows[1]] == values
    assert [entry.published for entry in table.rows[0]] == [None, None]
    other = make_tables({}, numbers, {"metric": "AP50"}, methods=ROWS, published=columns, percents=[10])
    assert entry_of(other, "soft_teacher").published == numbers[2], "the paper's number is of the metric that is shown"


def test_published__of_a_setting_without_shares_has_none(make_tables: MakeTable):
    numbers = (number(44.5, None, setting="coco_additional"),)
    table = make_tables({}, numbers, methods=ROWS, published={"setting": "coco_additional"})
    assert entry_of(table, "soft_teacher").published == numbers[0]


def test_published__metric_of_the_suite_is_that_of_the_table(make_tables: MakeTable):
    columns = {"setting": "coco_additional", "metric": "AP50"}
    assert make_tables({}, methods=ROWS, published=columns).scored.metric == "AP50"
    assert make_tables({}).scored.metric == "AP"


def test_published__a_variant_is_found_and_one_that_nobody_published_is_refused(make_tables: MakeTable):
    numbers = (number(34.0, 10), number(33.6, 10, variant="no jitter"))
    columns = {"setting": "coco_standard", "percent": 10}

    def rows(variant: str) -> list[dict[str, Any]]:
        return [ROWS[0], {**ROWS[1], "published": {"method": "soft_teacher", "detector": FASTER, "variant": variant}}]

    table = make_tables({}, numbers, methods=rows("no jitter"), published=columns)
    assert entry_of(table, "soft_teacher").published == numbers[1]
    with pytest.raises(RecipeError, match=r"'no jiter' of 'soft_teacher', and there is none; did you mean 'no jitter'"):
        make_tables({}, numbers, methods=rows("no jiter"), published=columns)


def test_published__of_several_sources_is_the_one_that_the_row_names(make_tables: MakeTable):
    numbers = (number(34.0, 10, source="First, arXiv:1"), number(33.0, 10, source="Second", note="also in arXiv:2"))
    columns = {"setting": "coco_standard", "percent": 10}

    def rows(source: str) -> list[dict[str, Any]]:
        return [ROWS[0], {**ROWS[1], "published": {"method": "soft_teacher", "detector": FASTER, "source": source}}]

    for source, expected in (("arXiv:1", numbers[0]), ("Second", numbers[1]), ("arXiv:2", numbers[1])):
        table = make_tables({}, numbers, methods=rows(source), published=columns)
        assert entry_of(table, "soft_teacher").published == expected
    with pytest.raises(RecipeError, match=r"'soft_teacher' asks .* 'arXiv:3' has published, and there is none; "):
        make_tables({}, numbers, methods=rows("arXiv:3"), published=columns)


def test_load_table__reads_what_lies_beside_the_suite_and_says_what_it_left_out(
    write_suite: Callable[..., Path], make_results: Any
):
    path = write_suite()
    _, cells = cells_of(path)
    results = make_results(cells, {"supervised": [40.0, 42.0], "soft_teacher": [50.0, 54.0]})
    for cell in cells:
        write_result(results[cell.hash], path.parent / "results" / f"{cell.name}.json")
    broken = path.parent / "results" / f"{cells[0].name}.json"
    broken.write_text("{")
    table, left_out = load_table(path)
    assert entry_of(table, "soft_teacher").mean == pytest.approx(52.0)
    assert entry_of(table, "supervised").mean == pytest.approx(42.0)
    assert len(left_out) == 1
    assert left_out[0].startswith(str(broken))
    (path.parent / "nothing").mkdir()
    elsewhere, _ = load_table(path, path.parent / "nothing")
    assert elsewhere.results == ()


SUITES = sorted(path.stem for path in shipped_benchmarks().glob("*.yaml") if path.stem != "published")


@pytest.mark.parametrize("name", SUITES)
def test_suite__its_recipes_agree_on_what_a_table_shows(name: str, shipped_table: Any):
    table, left_out = shipped_table(name)
    assert len(SUITES) >= 14
    assert (table.results, left_out) == ((), ())
    assert all(len(row) == len(table.suite.shares) for row in table.rows)

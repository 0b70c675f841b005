"""`ssodkit table`: what it prints, what it changes, and how it refuses."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import Call

from ssodkit.bench.per_class import class_tables_html
from ssodkit.bench.results import CellResult, write_result
from ssodkit.bench.suite import cells_of
from ssodkit.bench.table import load_table


@pytest.fixture
def suite(write_suite: Callable[..., Path], make_results: Any) -> Path:
    """A suite with all of its results."""
    path = write_suite()
    _, cells = cells_of(path)
    results = make_results(cells, {"supervised": [40.0, 42.0], "soft_teacher": [55.0, 53.0]})
    for cell in cells:
        write_result(results[cell.hash], path.parent / "results" / f"{cell.name}.json")
    return path


@pytest.mark.parametrize(
    ("form", "part"),
    [
        ("markdown", "| Soft Teacher | 54.0 ± 1.4 | +13.0 "),
        ("latex", "Soft Teacher & 54.0 $\\pm$ 1.4 & +13.0 "),
        ("csv", "mine,,soft_teacher,Soft Teacher,5.0,,AP,teacher,0.05,1500,2,2,2,2,54.0,"),
        ("html", '<th scope="row">Soft Teacher</th><td>54.0 ± 1.4</td><td>+13.0 '),
    ],
)
def test_table__is_printed_in_the_format_that_is_asked(call: Call, suite: Path, form: str, part: str):
    ended = call("table", suite, "--format", form)
    assert (ended.code, ended.err) == (0, "")
    assert part in ended.out


def test_table__shows_another_network_threshold_metric_and_folder(call: Call, suite: Path, tmp_path: Path):
    ended = call("table", suite, "--network", "student", "--threshold", "0.001", "--metric", "AP50")
    assert "AP50 (student, 0.001)" in ended.out
    assert "| Soft Teacher | 74.0 ± 1.4 | +13.0 " in ended.out
    assert "0 of 4 trainings done" in call("table", suite, "--results", tmp_path).out


def test_table__a_broken_result_is_named_and_the_others_are_shown(call: Call, suite: Path):
    broken = min((suite.parent / "results").glob("soft_teacher-*.json"))
    broken.write_text("{")
    ended = call("table", suite)
    assert ended.code == 0
    assert ended.err.startswith(f"left out: {broken} cannot be read as JSON")
    assert "| Soft Teacher | 53.0 (1 of 2 folds) | +11.0 " in ended.out


def test_table__write_renews_the_page_beside_the_suite_and_prints_nothing(call: Call, suite: Path):
    page = suite.parent / "README.md"
    page.write_text("# Results\n\n<!-- table mine -->\n<!-- end -->\n")
    assert call("table", suite, "--write") == (0, "", "")
    shown = call("table", suite).out
    assert page.read_text() == f"# Results\n\n<!-- table mine -->\n\n{shown}\n<!-- end -->\n"


def test_table__write_takes_a_page_of_your_own(call: Call, suite: Path, tmp_path: Path):
    page = tmp_path / "mine.md"
    page.write_text("<!-- table mine -->\n<!-- end -->\n")
    assert call("table", suite, "--write", page).code == 0
    assert "+13.0" in page.read_text()
    assert not (suite.parent / "README.md").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["--metric", "AP51"], 2, "there is no metric 'AP51' here"),
        (["--threshold", "0.3"], 2, "is not tested at the threshold 0.3"),
        (["--network", "uncle"], 2, "'uncle' is not one of"),
        (["--write"], 2, "README.md cannot be read or written: No such file"),
        (["page.md"], 2, "a FILE is changed only with --write"),
        (["--results", "nowhere"], 2, "--results nowhere is no folder; leave it out for "),
        (["--write", "--format", "csv"], 2, "--write writes Markdown"),
    ],
)
def test_table__refuses_with_a_sentence(call: Call, suite: Path, arguments: list[str], code: int, reason: str):
    ended = call("table", suite, *arguments)
    assert ended.code == code
    assert reason in " ".join(ended.err.split())
    assert "Traceback" not in ended.err


def test_table__an_unknown_suite_is_refused_with_the_nearest(call: Call):
    ended = call("table", "digits_smal")
    assert ended.code == 2
    assert "there is no suite 'digits_smal'" in ended.err
    assert "digits_small" in ended.err


def test_table__per_class_has_means_over_the_files_that_keep_them(
    call: Call, write_suite: Callable[..., Path], make_results: Any
):
    path = write_suite()
    _, cells = cells_of(path)
    results = make_results(cells, {"supervised": [40.0, 42.0], "soft_teacher": [55.0, 53.0]})
    averages = iter([0.5, 0.6, 0.7])
    for cell in cells:
        result = results[cell.hash]
        if cell.method != "supervised" or cell.fold == 1:  # one was written by an earlier version
            classes = {
                "cat": {"boxes": 3, "AP": next(averages), "AP50": 0.9},
                "a|b": {"boxes": 0, "AP": None, "AP50": None},
            }
            result = CellResult.model_validate({**result.model_dump(), "per_class": {"teacher": classes}})
        write_result(result, path.parent / "results" / f"{cell.name}.json")
    shown = call("table", path, "--per-class").out.splitlines()
    assert shown[0] == "AP by class, teacher, 5 % labels; in brackets the trainings."
    assert shown[2:] == [
        "| class | Supervised (1) | Soft Teacher (2) |",
        "| --- | ---: | ---: |",
        "| cat | 50.0 | 65.0 |",
        "| a\\|b | - | - |",
    ]
    folded = class_tables_html(load_table(path)[0])
    assert folded.count("<details>") == 1
    assert "<summary>AP by class, teacher, 5 % labels; in brackets the trainings.</summary>" in folded
    assert '<th scope="row">cat</th><td>50.0</td><td>65.0</td>' in folded
    assert "--per-class prints AP in Markdown" in call("table", path, "--per-class", "--metric", "AP50").err


def test_table__per_class_says_so_where_no_file_keeps_them(call: Call, suite: Path):
    assert call("table", suite, "--per-class").out.endswith("those of earlier versions keep the mean alone.\n")
    assert class_tables_html(load_table(suite)[0]) == ""

"""Pages whose tables are made: markers, refusals, and the page of the project, which must not be stale."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from ssodkit.bench.formats import to_markdown
from ssodkit.bench.published import read_published
from ssodkit.bench.renew import renew, tables_in
from ssodkit.bench.suite import cells_of
from ssodkit.bench.table import load_table
from ssodkit.errors import TrainingError

PAGE = "# Mine\n\n<!-- table one -->\nold\n<!-- end -->\n\nBetween.\n\n<!-- table two -->\n<!-- end -->\n\nAfter.\n"
README = Path(__file__).parents[2] / "benchmarks" / "README.md"


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "README.md"
    path.write_text(PAGE)
    return path


def test_renew__replaces_one_table_and_nothing_else(page: Path):
    renew(page, "one", "| new |\n")
    assert page.read_text() == PAGE.replace("<!-- table one -->\nold\n", "<!-- table one -->\n\n| new |\n\n")
    renew(page, "two", "| second |\n")
    assert tables_in(page.read_text()) == {"one": "\n\n| new |\n\n", "two": "\n\n| second |\n\n"}


def test_renew__twice_changes_nothing_more(page: Path):
    renew(page, "one", "| new |\n")
    once = page.read_text()
    renew(page, "one", "| new |\n")
    assert page.read_text() == once


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it has no place for this table. Write the lines `<!-- table one -->` and `<!-- end -->`"),
        ("<!-- table other -->\n<!-- end -->\n", "it has no place for this table"),
        ("Write `<!-- table one -->` and `<!-- end -->`.\n", "it has no place for this table"),
        ("<!-- table one -->\n", "after the line `<!-- table one -->` comes no line `<!-- end -->`"),
        ("<!-- end -->\n<!-- table one -->\n", "after the line `<!-- table one -->` comes no line"),
        ("<!-- table one -->\n<!-- table two -->\n<!-- end -->\n", "after the line `<!-- table one -->` comes no"),
        (
            "<!-- table one -->\n<!-- end -->\n<!-- table one -->\n<!-- end -->",
            "stands there twice",
        ),
    ],
)
def test_renew__missing_and_broken_markers_are_refused_and_the_page_stays(page: Path, text: str, reason: str):
    page.write_text(text)
    with pytest.raises(TrainingError) as error:
        renew(page, "one", "| new |\n")
    assert str(error.value).startswith(f"{page}: ")
    assert reason in str(error.value)
    assert page.read_text() == text


def test_renew__a_full_disk_leaves_the_page_whole(page: Path, file_limit: Callable[..., object]):
    with file_limit(64), pytest.raises(OSError, match=r"README\.md"):  # type: ignore[attr-defined]
        renew(page, "one", "| new |\n" * 100)
    assert page.read_text() == PAGE
    assert [path.name for path in page.parent.iterdir()] == ["README.md"]


def test_readme__its_example_of_a_suite_has_cells(tmp_path: Path):
    (example,) = re.findall(r"```yaml\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    (tmp_path / "mine.yaml").write_text(example)
    (tmp_path / "my_recipe.yaml").write_text("extends: soft_teacher\nname: mine\n")
    suite, cells = cells_of(tmp_path / "mine.yaml")
    assert suite.name == "mine"
    assert [cell.method for cell in cells] == ["supervised", "soft_teacher", "my_recipe"] * 5


@pytest.mark.parametrize("page", [README, README.parents[1] / "README.md"], ids=["benchmarks", "project"])
def test_readme__its_tables_are_those_of_the_result_files(page: Path):
    """If this fails: `ssodkit table SUITE PAGE --write` for the suite that it names."""
    tables = tables_in(page.read_text(encoding="utf-8"))
    assert "digits_small" in tables
    for name, text in tables.items():
        table, left_out = load_table(README.parent / f"{name}.yaml")
        assert left_out == ()
        assert text == f"\n\n{to_markdown(table)}\n", f"run `ssodkit table {name} {page} --write`"


def test_readme__gains_and_published_numbers_beside_its_methods_are_those_of_the_tables():
    table, _ = load_table(README.parent / "digits_small.yaml")
    entries = {entry.row.recipe: entry for entry in table.entries}
    papers: dict[str, set[float]] = {}
    for one in read_published():
        if one.setting == "coco_standard" and one.percent == 10:
            papers.setdefault(one.method, set()).add(one.value)

    rows = re.findall(r"^\| `(\w+)` \|(.*)\|$", (README.parents[1] / "README.md").read_text(), flags=re.MULTILINE)
    assert {name for name, entry in entries.items() if entry.row.baseline is not None} <= {name for name, _ in rows}
    for name, cells in rows:
        over, gain, paper = (cell.strip() for cell in cells.split("|")[2:])
        if name in entries and (measured := entries[name].gain) is not None and measured.pairs >= 3:
            assert over == f"`{entries[name].row.baseline}`"
            assert gain == f"{measured.mean:+.1f}", name
        else:
            assert gain in (("not yet", "none so far") if over else ("",)), name
        if paper:
            assert float(paper.split()[0]) in papers[re.sub(r"_(fcos|objectness|dino)$", "", name)], name

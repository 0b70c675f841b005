"""How far a suite is, and estimates checked by hand."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_suite import write_suite

from ssodkit.bench.folders import CellFolder
from ssodkit.bench.news import print_list
from ssodkit.bench.progress import Position, Status, Watch, position, seconds_left, time_left
from ssodkit.bench.results import CellResult, write_result
from ssodkit.bench.suite import Cell, cells_of


@pytest.fixture
def cells(tmp_path: Path) -> tuple[Cell, ...]:
    """Two folds of supervised and stac, 100 steps each; stac's first stage has 100 as well."""
    return cells_of(write_suite(tmp_path, 100, "[1, 2]", "[{recipe: supervised}, {recipe: stac}]"))[1]


def taking(seconds: float) -> CellResult:
    return CellResult.model_construct(seconds=seconds)


def status(cell: Cell, state: str, step: int = 0, step_seconds: float | None = None, seconds: float | None = None):
    result = None if seconds is None else taking(seconds)
    return Status(cell, state, Position(step, 100, step_seconds), result)  # type: ignore[arg-type]


def write_metrics(run: Path, *steps: int) -> None:
    run.mkdir(parents=True)
    lines = [json.dumps({"kind": "step", "step": step, "step_seconds": 0.5}) for step in steps]
    lines.append(json.dumps({"kind": "evaluation", "step": steps[-1], "thresholds": {}}))
    (run / "metrics.jsonl").write_text("\n".join(lines) + '\n{"kind": "st', encoding="utf-8")


def test_position__is_the_last_whole_line_of_a_step(cells: tuple[Cell, ...], tmp_path: Path):
    steps = cells[0].steps
    assert position(steps, tmp_path / "run") == Position(0, 100, None)
    write_metrics(tmp_path / "run", *range(1, 2001))
    assert position(steps, tmp_path / "run") == Position(2000, 100, 0.5)
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('\n[]\n{}\n{"kind": "step"}\n')
    assert position(steps, tmp_path / "run") == Position(2000, 100, 0.5)
    (tmp_path / "run" / "metrics.jsonl").write_text("")
    assert position(steps, tmp_path / "run") == Position(0, 100, None)


def test_watch__a_folder_where_the_error_would_be_is_told_of_its_cell_alone(cells: tuple[Cell, ...], tmp_path: Path):
    error = CellFolder(tmp_path / "runs" / cells[1].name).error
    error.mkdir(parents=True)
    first, second, *_ = Watch(cells, tmp_path / "runs", tmp_path / "results").look()
    assert (first.state, second.state) == ("missing", "failed")
    assert second.error == f"{error} cannot be read or written: Is a directory. Delete it, and the cell runs again."


def test_position__counts_the_steps_of_both_stages(cells: tuple[Cell, ...], tmp_path: Path):
    stac = next(cell for cell in cells if cell.method == "stac").steps
    write_metrics(tmp_path / "run" / "stage1", 100)
    assert position(stac, tmp_path / "run") == Position(100, 200, 0.5)
    write_metrics(tmp_path / "other" / "stage1", 100)
    (tmp_path / "other" / "metrics.jsonl").write_text('{"kind": "step", "step": 20, "step_seconds": 1.0}\n')
    assert position(stac, tmp_path / "other") == Position(120, 200, 1.0)


def test_look__tells_running_failed_and_missing_cells_apart(cells: tuple[Cell, ...], tmp_path: Path):
    folders = [CellFolder(tmp_path / "runs" / cell.name) for cell in cells]
    write_metrics(folders[0].run, 40)
    claim = folders[0].claim()
    assert claim is not None
    folders[1].path.mkdir(parents=True)
    folders[1].error.write_text("no data\n")
    broken = tmp_path / "results" / f"{cells[2].name}.json"
    broken.parent.mkdir()
    broken.touch()
    watch = Watch(cells, tmp_path / "runs", broken.parent)
    seen = watch.look()
    assert [one.state for one in seen] == ["running", "failed", "failed", "missing"]
    assert [one.error for one in seen] == [None, "no data", *watch.refused, None]
    assert watch.running() == [seen[0]]
    assert seen[0].position.step == 40
    os.close(claim)
    assert watch.look()[0].state == "missing"
    assert watch.running() == []


def test_watch__reads_what_is_new_or_changed_and_nothing_twice(
    cells: tuple[Cell, ...], tmp_path: Path, make_result: Callable[..., CellResult], monkeypatch: pytest.MonkeyPatch
):
    def write(index: int) -> None:
        write_result(make_result(cells[index], 30.0), tmp_path / f"{cells[index].name}.json")

    def look() -> list[str]:
        read.clear()
        return [one.state for one in watch.look()]

    read: list[Path] = []
    read_bytes = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: (read.append(path), read_bytes(path))[1])
    write(0)
    (tmp_path / f"{cells[1].name}.json").write_text("{")
    watch = Watch(cells, tmp_path / "runs", tmp_path)
    write(2)
    assert (look(), len(read)) == (["done", "failed", "done", "missing"], 2)
    assert (look(), len(read)) == (["done", "failed", "done", "missing"], 0)
    write(1)
    assert (look(), len(read)) == (["done", "done", "done", "missing"], 1)
    read.clear()
    write(3)
    assert (watch.running(), len(read)) == ([], 0)


def test_seconds_left__follows_finished_cells_of_the_method_else_all(cells: tuple[Cell, ...]):
    supervised, stac, again, other = cells
    left = seconds_left(
        [
            status(supervised, "done", 100, 9.0, 60.0),
            status(stac, "done", 100, 9.0, 100.0),
            status(again, "running", 25, 9.0),
        ]
    )
    assert left == {supervised.name: 0.0, stac.name: 0.0, again.name: 45.0}
    left = seconds_left([status(supervised, "done", 100, None, 60.0), status(other, "missing")])
    assert left[other.name] == 60.0


def test_seconds_left__a_result_tells_of_the_second_stage_alone(cells: tuple[Cell, ...]):
    _, done, supervised, stac = cells
    left = seconds_left(
        [
            Status(done, "done", Position(200, 200, None), taking(60.0)),
            Status(stac, "running", Position(50, 200, 9.0)),
            Status(supervised, "missing", Position(0, 100, None)),
        ]
    )
    assert left == {done.name: 0.0, stac.name: 90.0, supervised.name: 120.0}


def test_seconds_left__follows_the_steps_where_nothing_is_finished(cells: tuple[Cell, ...]):
    first, second, third, _ = cells
    left = seconds_left(
        [status(first, "running", 50, 2.0), status(second, "running", 10, 4.0), status(third, "missing")]
    )
    assert left == {first.name: 100.0, second.name: 360.0, third.name: 300.0}
    assert seconds_left([status(first, "missing")]) == {first.name: None}


def test_time_left__is_shared_by_parallel_cells_and_no_shorter_than_the_longest(cells: tuple[Cell, ...]):
    one = [status(cells[0], "done", 100, None, 60.0), status(cells[1], "missing"), status(cells[2], "running", 50)]
    assert time_left(one, 1) == 90.0
    assert time_left(one, 2) == 60.0
    assert time_left([status(cells[0], "missing")], 1) is None
    assert time_left([], 1) == 0.0


def test_print_list__shows_state_score_and_time(
    cells: tuple[Cell, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    suite, _ = cells_of(tmp_path / "tiny.yaml")
    seen = [status(cells[0], "running", 25, 2.0), status(cells[1], "missing"), status(cells[2], "missing", 50)]
    print_list(
        suite, [*seen, Status(cells[3], "failed", Position(0, 100, None), error="no data")], ["one is broken"], 1
    )
    out = capsys.readouterr().out
    rows = [[part.strip() for part in line.split("│")[1:-1]] for line in out.splitlines() if "│" in line]
    assert rows == [
        ["supervised", "25 %", "1", "0", "-", "about 0:02:30 left", "running, step 25/100"],
        ["stac", "25 %", "1", "0", "-", "about 0:03:20 left", "missing"],
        ["supervised", "25 %", "2", "1", "-", "about 0:01:40 left", "missing, step 50/100"],
        ["stac", "25 %", "2", "1", "-", "about 0:03:20 left", "failed: no data"],
    ]
    assert out.splitlines()[-2:] == [
        "warning: one is broken",
        "4 cells, 1 running, 1 failed, 2 missing; 0:00:00 taken, about 0:10:50 left",
    ]

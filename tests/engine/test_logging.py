import io
import itertools
import json
import os
import re
import subprocess
import sys

import pytest
import torch

from ssodkit.engine.distributed import Processes
from ssodkit.engine.logging import MetricsFile, RunLog
from ssodkit.engine.pace import Pace
from ssodkit.engine.readback import Readback
from ssodkit.engine.update import Numbers, Outcome

ALONE = Processes(torch.device("cpu"))


def test_metrics_file__every_line_is_json_even_where_a_number_is_not_finite(tmp_path):
    file = MetricsFile(tmp_path / "metrics.jsonl", 0)
    file.append({"kind": "step", "step": 1, "loss": float("nan"), "losses": {"a": float("inf")}, "list": [1.5]})
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line) == {"kind": "step", "step": 1, "loss": None, "losses": {"a": None}, "list": [1.5]}


def test_metrics_file__keeps_what_came_before_and_forgets_what_lies_beyond(tmp_path):
    path = tmp_path / "metrics.jsonl"
    file = MetricsFile(path, 0)
    for kind, step in (("step", 1), ("evaluation", 1), ("step", 2), ("result", 1)):
        file.append({"kind": kind, "step": step})
    with path.open("a") as cut:
        cut.write('{"kind": "st')
    MetricsFile(path, 1).append({"kind": "step", "step": 2})
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(record["kind"], record["step"]) for record in records] == [("step", 1), ("evaluation", 1), ("step", 2)]


def test_metrics_file__what_others_wrote_stays_and_does_not_count(tmp_path):
    path = tmp_path / "metrics.jsonl"
    others = [b"", b"note", b'"kind"', b"[1]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"kind": "step"}']
    others += [b'{"kind": 1, "step": 1}', b'{"kind": "step", "step": true}', b'{"kind": "step", "step": "1"}', b"a\rb"]
    ours = b'{"kind": "health", "step": 0}'
    path.write_bytes(b"\n".join((*others, ours, *others)))  # the last line has no end
    file = MetricsFile(path, 0)
    assert path.read_bytes().split(b"\n") == [*others, ours, *others, b""]
    assert file.foreign == [*range(2, 13), *range(15, 26)]
    assert file.has("health", 0)
    assert not file.has("step", 1)


def test_metrics_file__a_line_is_on_the_disk_before_anything_follows_it(tmp_path, monkeypatch):
    file = MetricsFile(tmp_path / "metrics.jsonl", 0)
    sizes = []
    monkeypatch.setattr(os, "fsync", lambda handle: sizes.append(os.fstat(handle).st_size))
    for step in (1, 2):
        file.append({"kind": "step", "step": step})
    assert sizes == [28, 56]


def test_metrics_file__a_full_disk_is_named(tmp_path, file_limit):
    file = MetricsFile(tmp_path / "metrics.jsonl", 0)
    with file_limit(10), pytest.raises(OSError, match=rf"File too large: '{tmp_path}/metrics.jsonl'"):
        file.append({"kind": "step", "step": 1})


def test_run_log__only_the_first_process_speaks_and_writes(tmp_path, tiny_recipe, capsys):
    with RunLog(tmp_path, tiny_recipe(), Pace(Processes(torch.device("cpu"), rank=1, count=2)), 0) as log:
        log.say("hello")
        log.record("step", 1, {"loss": 1.0})
    assert capsys.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []


def test_run_log__wandb_is_offline_without_a_key_and_only_where_the_recipe_says_so(tmp_path, tiny_recipe, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    (tmp_path / "run").mkdir()
    with RunLog(tmp_path / "run", tiny_recipe("watch.wandb={project: test}"), Pace(ALONE), 0) as log:
        log.record("step", 1, {"loss": 1.0})
    assert len(list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))) == 1


def test_run_log__the_progress_bar_fits_a_terminal_of_80_columns(tmp_path, tiny_recipe, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    said = io.StringIO()
    monkeypatch.setattr(sys, "stdout", said)
    terms = {"labeled/roi/class": 12.3456, "unlabeled/roi/class": 23.4567}
    numbers = Numbers(terms, (), 1.0, True, False, 1.0, 12.34, False)
    ticks = itertools.count()
    pace = Pace(ALONE, lambda: float(next(ticks)))  # a second between any two questions for the time
    log = RunLog(tmp_path, tiny_recipe("engine.steps=180000"), pace, 0)
    with log.progress():
        pace.lap()
        log.step(Outcome(123456, 0.1, (), (), (), Readback(torch.zeros(0))), numbers)
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", said.getvalue()).splitlines()
    (line,) = {line.rstrip() for line in lines if line.startswith("loss")}
    assert line == "loss 35.802 (labeled 12.346, unlabeled 23.457)  12.34 pseudo-boxes/image"
    (bar,) = {line.rstrip() for line in lines if line.startswith("step 123456/180000")}
    assert bar.endswith(" left")
    assert max(map(len, lines)) <= 80


def test_engine__its_import_takes_no_wandb_and_no_evaluator():
    program = (
        "import sys, ssodkit.engine.train, ssodkit.engine.predict\n"
        "print(*{'wandb', 'pycocotools', 'sklearn', 'timm'} & {name.split('.')[0] for name in sys.modules})"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, env=os.environ)
    assert (run.returncode, run.stdout.strip()) == (0, "")


def test_run_log__lines_end_between_words_on_a_terminal_and_nowhere_in_a_file(tmp_path, tiny_recipe, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    text = "note     10 boxes of labeled images are not used, as their images have none of the classes"
    for is_terminal in (True, False):
        said = io.StringIO()
        said.isatty = lambda is_terminal=is_terminal: is_terminal
        monkeypatch.setattr(sys, "stdout", said)
        with RunLog(tmp_path, tiny_recipe(), Pace(ALONE), 0) as log:
            log.say(text)
        lines = said.getvalue().splitlines()
        assert len(lines) == (3 if is_terminal else 1)
        assert " ".join(lines).split() == text.split()

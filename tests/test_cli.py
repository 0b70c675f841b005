"""The command line: what each verb prints, what it leaves behind, and with which code it ends."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from command import Call

import ssodkit
from ssodkit import cli
from ssodkit.cli import runs
from ssodkit.engine.folders import is_held
from ssodkit.errors import RecipeError

TINY = (
    "data.train.images=24",
    "data.test.images=4",
    "data.percent=25",
    "data.batch.labeled=2",
    "engine.workers=0",
    "watch.pictures=0",
    "watch.log_every=1",
)
"""Makes the embedded baseline a matter of seconds."""


CURE = "Give the folder that `ssodkit run` made."


def settings(*overrides: str) -> list[str]:
    return [word for override in overrides for word in ("--set", override)]


def command(*arguments: object) -> list[str]:
    """A command for a process of its own."""
    return [sys.executable, "-m", "ssodkit", *map(str, arguments)]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """For processes of their own: one cache for all of them, and this package."""
    cache = str(tmp_path_factory.mktemp("cache"))
    return os.environ | {
        "PYTHONPATH": str(Path(ssodkit.__file__).parents[1]),
        "SSODKIT_CACHE": cache,
        "OMP_NUM_THREADS": "1",
    }


def test_main__help_names_every_verb(call: Call):
    ended = call("--help")
    assert ended.code == 0
    assert {"run", "eval", "predict", "label", "recipe", "list"} <= set(
        re.findall(r"^  (\w+) ", ended.out, re.MULTILINE)
    )
    assert call("--version").out.strip() == ssodkit.__version__


@pytest.mark.parametrize("verb", [(), ("recipe",)])
def test_main__help_says_each_verb_in_full(call: Call, verb: tuple[str, ...]):
    assert "..." not in call(*verb, "--help").out.replace("[ARGS]...", "")


def test_main__a_mistake_of_the_user_ends_as_a_sentence_with_code_2(call: Call):
    ended = call("recipe", "check", "soft_techer")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.splitlines() == [
        "there is no recipe 'soft_techer': no such file, and none of this name is shipped; did you mean 'soft_teacher'?"
    ]


@pytest.mark.parametrize("out", ["nowhere/schema.json", "file/schema.json"])
def test_main__what_the_machine_refuses_ends_as_a_sentence_with_code_2(call: Call, tmp_path: Path, out: str):
    (tmp_path / "file").write_text("")
    ended = call("recipe", "schema", "--out", out)
    assert (ended.code, ended.out) == (2, "")
    assert re.fullmatch(rf"{out} cannot be read or written: .*\.\n", ended.err)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_main__a_signal_before_anything_is_written_ends_with_its_code(
    call: Call, tmp_path: Path, number: signal.Signals
):
    (tmp_path / f"plug_{number.name}.py").write_text(f"import os\nos.kill(os.getpid(), {int(number)})\n")
    (tmp_path / "mine.yaml").write_text(f"extends: supervised\nplugins: [plug_{number.name}.py]\n")
    assert call("recipe", "check", "mine.yaml", "--trust-plugins") == (128 + number, "", f"stopped by {number.name}\n")


@pytest.mark.parametrize("place", [0, 2, 3])
def test_main__debug_anywhere_shows_where_an_error_comes_from(monkeypatch: pytest.MonkeyPatch, place: int):
    arguments = ["recipe", "check", "soft_techer"]
    arguments.insert(place, "--debug")
    monkeypatch.setattr(sys, "argv", ["ssodkit", *arguments])
    with pytest.raises(RecipeError, match="there is no recipe 'soft_techer'"):
        cli.main()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["run"], "give either a RECIPE or --resume DIR"),
        (["run", "supervised", "--resume", "there"], "give either a RECIPE or --resume DIR"),
        (["run", "--resume", "there", "--set", "seed=1"], "leave out --out, --set and --compare"),
        (["run", "supervised", "--processes", "0"], "'--processes'"),
        (["predict", "there", "image.png"], "Missing option '--out'"),
        (["predict", "there", "image.png", "--out", "x", "--network", "both"], "'both'"),
        (["label", "there"], "Missing option '--out'"),
        (["label", "there", "--out", "x", "--size", "small"], "'small'"),
        (["report", "there"], "Missing option '--out'"),
        (["report", "there", "--out", "x"], "there is no folder of a run, and there is no suite 'there'"),
        (["fly"], "No such command 'fly'"),
    ],
)
def test_main__a_wrong_use_is_refused_with_code_2(call: Call, arguments: list[str], complaint: str):
    ended = call(*arguments)
    assert ended.code == 2
    assert complaint in ended.err
    assert "Traceback" not in ended.err


def test_main__a_reader_that_leaves_early_is_no_error(tmp_path: Path, environment: dict[str, str]):
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as nobody:
        ended = subprocess.run(command("list"), stdout=nobody, stderr=subprocess.PIPE, env=environment, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_main__what_a_terminal_cannot_show_is_escaped(call: Call, monkeypatch: pytest.MonkeyPatch):
    with open(os.dup(1), "w", encoding="ascii") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        ended = call("table", "digits_small")
    assert ended.code == 0
    assert "\\xb1" in ended.out


def test_recipe_check__says_that_a_recipe_is_right(call: Call):
    assert call("recipe", "check", "supervised") == (0, "supervised: no mistake found in supervised\n", "")


def test_recipe_check__warns_of_every_path_that_does_not_exist(call: Call, tmp_path: Path):
    (tmp_path / "there").mkdir()
    (tmp_path / "mine.yaml").write_text(
        "extends: [supervised]\nname: mine\ndata:\n"
        "  train: [{type: coco, annotations: a.json, images: there}, {type: voc, root: there, split: /no/list.txt}]\n"
        "  test: {type: yolo, root: data.yaml}\n"
    )
    ended = call("recipe", "check", "mine.yaml")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines() == [
        "mine: no mistake found in mine.yaml",
        "warning: data.train.0.annotations: 'a.json' does not exist from this folder",
        "warning: data.train.1.split: '/no/list.txt' does not exist",
        "warning: data.test.root: 'data.yaml' does not exist from this folder",
    ]


def test_recipe_check__shows_all_mistakes_with_their_places(call: Call, tmp_path: Path):
    (tmp_path / "mine.yaml").write_text("extends: supervised\nseeed: 1\nengine: {steps: none}\n")
    ended = call("recipe", "check", "mine.yaml", "--set", "data.percent=0")
    assert ended.code == 2
    assert ended.err.splitlines() == [
        "--set data.percent=0: data.percent: must be above 0.0, not 0",
        "mine.yaml:2:1 seeed: unknown key; did you mean 'seed'?",
        "mine.yaml:3:17 engine.steps: must be a whole number, not 'none'",
    ]


def test_recipe_show__says_where_values_come_from(call: Call):
    ended = call("recipe", "show", "supervised", "--set", "engine.steps=7")
    assert ended.code == 0
    assert re.search(r"^  steps: 7 +# --set engine.steps=7$", ended.out, re.MULTILINE)
    assert re.search(r"^name: supervised +# .*supervised.yaml:\d+:7$", ended.out, re.MULTILINE)


@pytest.mark.parametrize(
    "words",
    [
        ("eval", "theirs"),
        ("predict", "theirs", "image.png", "--out", "x"),
        ("label", "theirs", "--out", "x.json"),
        ("run", "--resume", "theirs"),
        ("recipe", "check", "theirs/recipe.yaml"),
        ("recipe", "show", "theirs/recipe.yaml"),
        ("recipe", "schema", "theirs/recipe.yaml"),
        ("bench", "suite.yaml", "--list"),
        ("table", "suite.yaml"),
        ("report", "suite.yaml", "--out", "x"),
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_main__plugins_of_somebody_else_are_not_run_unless_they_are_trusted(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
):
    monkeypatch.setattr(sys, "path", list(sys.path))  # loading a plug-in adds its folder
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "plug_theirs.py").write_text("import os\nos.mkdir('stolen')\nraise ValueError('it runs')\n")
    (tmp_path / "theirs" / "recipe.yaml").write_text("extends: supervised\nplugins: [plug_theirs.py]\n")
    (tmp_path / "suite.yaml").write_text("name: s\nabout: S.\nmethods: [{recipe: theirs/recipe.yaml}]\n")
    refused = call(*words)
    assert (refused.code, refused.out) == (2, "")
    assert "theirs/recipe.yaml:2:10 plugins: loading this recipe runs code that you have not run here" in refused.err
    assert not (tmp_path / "stolen").exists()
    assert "ValueError: it runs" in call(*words, "--trust-plugins").err
    assert (tmp_path / "stolen").exists()


def test_recipe_schema__is_printed_or_written_and_knows_the_plugins_of_a_recipe(call: Call, tmp_path: Path):
    (tmp_path / "plug_cli.py").write_text(
        "from typing import Literal\n"
        "from ssodkit.plugins import register\n"
        "from ssodkit.schedules.base import ScheduleConfig\n"
        "@register\n"
        "class PlugConfig(ScheduleConfig):\n"
        "    type: Literal['plug_cli'] = 'plug_cli'\n"
        "    span = property(lambda self: (0.0, 0.0))\n"
        "    def at(self, progress):\n"
        "        return 0.0\n"
    )
    (tmp_path / "mine.yaml").write_text("plugins: [plug_cli.py]")
    printed = subprocess.run(
        command("recipe", "schema", "mine.yaml", "--trust-plugins"),
        env=os.environ | {"PYTHONPATH": str(Path(ssodkit.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert any(one.get("properties", {}).get("type", {}).get("const") == "plug_cli" for one in definitions(printed))
    assert call("recipe", "schema", "--out", "schema.json") == (0, "", "")
    written = (tmp_path / "schema.json").read_text(encoding="utf-8")
    assert not any(one.get("properties", {}).get("type", {}).get("const") == "plug_cli" for one in definitions(written))


def definitions(schema: str) -> list[dict]:
    return list(json.loads(schema)["$defs"].values())


def test_list__shows_a_line_per_plugin_or_the_fields_of_a_slot(call: Call):
    assert re.search(r"^selector +soft_teacher +\S", call("list").out, re.MULTILINE)
    assert re.search(r"^    at_most: 100 +# Detections per image", call("list", "selector").out, re.MULTILINE)
    assert call("list", "selectr").err == "there is no kind of plug-in 'selectr'; did you mean 'selector'?\n"


def test_launch__the_same_command_line_without_the_number_of_processes():
    arguments = ["run", "a.yaml", "--processes", "2", "--set", "x=1"]
    assert runs._without_processes(arguments) == ["run", "a.yaml", "--set", "x=1"]
    assert runs._without_processes(["run", "--processes=2", "a.yaml"]) == ["run", "a.yaml"]
    assert runs._without_processes(["run", "a.yaml"]) == ["run", "a.yaml"]


def test_run__stopped_resumed_evaluated_and_used(
    call: Call, tmp_path: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SSODKIT_CACHE", environment["SSODKIT_CACHE"])
    words = ["run", "supervised", "--out", "r", "--device", "cpu", *settings(*TINY, "engine.steps=2")]

    assert call(*words, "--stop-after", 1).code == 0
    assert (tmp_path / "r" / "checkpoints" / "last" / "state.pt").is_file()
    assert not (tmp_path / "r" / "result.json").exists()

    again = call(*words)
    assert again.code == 2
    assert len(again.err.splitlines()) == 1

    assert call("run", "--resume", "r", "--device", "cpu").code == 0
    result = json.loads((tmp_path / "r" / "result.json").read_text())
    assert set(result["student"]) >= {"AP", "AP50", "AP75"}

    assert call("eval", "r", "--device", "cpu").code == 0

    image = next(Path(environment["SSODKIT_CACHE"]).rglob("*.png"))
    assert call("predict", "r", image, "--out", "p", "--score", 0.0, "--network", "student").code == 0
    assert list((tmp_path / "p").rglob("*.json"))

    words = [
        "label",
        "r",
        image.parent,
        "--out",
        "labels.json",
        "--score",
        0.0,
        "--size",
        "test",
        "--network",
        "student",
    ]
    assert call(*words).code == 0
    assert json.loads((tmp_path / "labels.json").read_text())["info"]["network"] == "student"
    again = call(*words)
    assert (again.code, again.err) == (
        2,
        "labels.json exists, and nothing is overwritten. Take another --out, or delete it.\n",
    )


def test_run__a_signal_ends_it_after_a_checkpoint_with_its_code(tmp_path: Path, environment: dict[str, str]):
    overrides = settings(*TINY, "engine.steps=100000")
    process = subprocess.Popen(
        command("run", "supervised", "--out", "r", *overrides),
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    metrics = tmp_path / "r" / "metrics.jsonl"
    wait_until(lambda: process.poll() is not None or (metrics.is_file() and metrics.stat().st_size > 0))
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in err
    assert (tmp_path / "r" / "checkpoints" / "last" / "state.pt").is_file()


def test_run__in_two_processes(tmp_path: Path, environment: dict[str, str]):
    words = ["run", "supervised", "--out", "r", "--processes", "2", "--device", "cpu", "--stop-after", "1"]
    ended = subprocess.run(
        command(*words, *settings(*TINY, "engine.steps=2")),
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "r" / "checkpoints" / "last" / "state.pt").is_file()


def test_run__where_their_launcher_is_killed_all_processes_stop_after_a_checkpoint(
    tmp_path: Path, environment: dict[str, str]
):
    words = ["run", "supervised", "--out", "r", "--processes", "2", "--device", "cpu"]
    process = subprocess.Popen(
        command(*words, *settings(*TINY, "engine.steps=100000")),
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.DEVNULL,
    )
    metrics = tmp_path / "r" / "metrics.jsonl"
    wait_until(lambda: metrics.is_file() and metrics.stat().st_size > 0)
    assert is_held(tmp_path / "r")
    process.kill()
    process.wait()
    wait_until(lambda: not is_held(tmp_path / "r"))
    assert (tmp_path / "r" / "checkpoints" / "last" / "state.pt").is_file()


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_run__a_mistake_in_two_processes_has_the_same_code(tmp_path: Path, environment: dict[str, str]):
    words = ["run", "--resume", "nowhere", "--processes", "2", "--device", "cpu"]
    ended = subprocess.run(command(*words), cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ended.returncode == 2
    lines = set(ended.stderr.splitlines())
    assert lines
    assert lines <= {f"process {rank}: nowhere holds no run: there is no recipe.yaml in it. {CURE}" for rank in (0, 1)}


def test_run__a_killed_process_is_named_and_ends_the_others(tmp_path: Path, environment: dict[str, str]):
    (tmp_path / "plug_killed.py").write_text(
        "import os\nif os.environ.get('RANK') == '1':\n    os.kill(os.getpid(), 9)\n"
    )
    (tmp_path / "mine.yaml").write_text("extends: supervised\nplugins: [plug_killed.py]\n")
    words = ["run", "mine.yaml", "--processes", "2", "--device", "cpu", "--out", "r"]
    ended = subprocess.run(command(*words), cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ended.returncode == 128 + signal.SIGKILL
    assert "process 1 was ended by SIGKILL; mostly the machine's memory is full then\n" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "r").exists()

"""A run folder comes to harm: whoever reads it says so in one sentence, or does what it would have done without."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from attack import Harm, budget, copied, files_below, harms
from command import Call, Ended
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from ssodkit.bench.results import collect
from ssodkit.engine.checkpoint import load_state
from ssodkit.engine.train import resume, train
from ssodkit.errors import SsodkitError
from ssodkit.recipe.check import load_recipe

TINY = (
    "data.train.images=20",
    "data.test.images=2",
    "data.percent=20",
    "data.batch={labeled: 2, unlabeled: 2}",
    "engine.steps=3",
    "engine.workers=0",
    "engine.checkpoint={every: 1, keep: 2}",
    "watch={log_every: 1, health_every: 1, pictures: 1, gallery: {images: 1, moments: 3}}",
    "method.selector.classes.above=0.08",
    "method.unlabeled_weight=2.0",
)
READERS = ("eval", "predict", "label", "report")
NAMES = ("step_00000000", "step_00000001", "step_00000002", "step_backup", "best", "last.old", ".writing", "-rf", "~")
NAMES += ("metrics.jsonl.partial", "1.partial", "state.pt.partial", "student.pt", "notes.txt", "recipe.yml")


@dataclass(frozen=True)
class Runs:
    """The same run at two moments."""

    stopped: Path
    """After 2 of 3 steps."""
    finished: Path
    images: Path
    """A folder of an image to look at."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("SSODKIT_CACHE", str(folder / "cache"))
        stopped = train(load_recipe("soft_teacher", TINY), folder / "stopped", stop_after=2).run
        finished = resume(copied(stopped, folder / "finished")).run
        (folder / "images").mkdir()
        Image.linear_gradient("L").resize((96, 96)).save(folder / "images" / "a.png")
        yield Runs(stopped, finished, folder / "images")


def weights(run):
    """What a run has learned; all files of its last checkpoint are as their checksums say."""
    state = load_state(run / "checkpoints" / "last")
    return {name: tensor.numpy().tobytes() for name, tensor in state["method"].items()} | {"step": state["step"]}


def is_sentence(ended: Ended, run: Path) -> bool:
    """Whether a command that failed said one thing, and about which file; a recipe's mistakes are shown all at once."""
    lines = ended.err.strip().splitlines()
    mistakes = [line for line in lines if line.startswith(f"{run.name}/recipe.yaml:")]
    return ended.code == 2 and (mistakes == lines or (len(lines) == 1 and str(run) in lines[0]))


def read(call: Call, verb: str, run: Path, images: Path) -> tuple[Ended, object]:
    """How a command ended, and what it came to."""
    out = copied(images, run.with_name("out")) / "new"
    words = {
        "eval": ("eval", run),
        "predict": ("predict", run, images, "--out", out, "--score", 0.01),
        "label": ("label", run, images, "--out", out),
        "report": ("report", run, "--out", out),
    }
    ended = call(*words[verb])
    match verb if ended.code == 0 else "nothing":
        case "eval":
            return ended, ended.out
        case "predict":
            return ended, (out / "results.json").read_bytes()
        case "label":
            return ended, out.read_bytes()
        case "report":
            return ended, (out / "index.html").is_file()
    return ended, None


@budget(6)
@given(data=st.data(), harm=harms())
def test_resume__of_a_run_that_came_to_harm_ends_alike_or_in_a_sentence(runs, call, tmp_path, data, harm: Harm):
    file = data.draw(st.sampled_from([path.relative_to(runs.stopped) for path in files_below(runs.stopped)]))
    run = copied(runs.stopped, tmp_path / "run")
    harm.befall(run / file)
    before = {path: path.read_bytes() for path in files_below(run / "checkpoints")}
    ended = call("run", "--resume", run)
    if ended.code:
        assert is_sentence(ended, run), ended
        assert {path: path.read_bytes() for path in files_below(run / "checkpoints")} == before
    else:
        assert weights(run) == weights(runs.finished)


@pytest.fixture
def expected(runs, call, tmp_path):
    """What each reader comes to where no harm is done."""
    run = copied(runs.finished, tmp_path / "run")
    return {verb: read(call, verb, run, runs.images) for verb in READERS}


@budget(10)
@given(data=st.data(), verb=st.sampled_from(READERS), harm=harms())
def test_readers__of_a_run_that_came_to_harm_say_the_same_or_a_sentence(
    runs, call, tmp_path, expected, data, verb, harm: Harm
):
    file = data.draw(st.sampled_from([path.relative_to(runs.finished) for path in files_below(runs.finished)]))
    run = copied(runs.finished, tmp_path / "run")
    harm.befall(run / file)
    ended, came_to = read(call, verb, run, runs.images)
    if ended.code:
        assert is_sentence(ended, run), ended
    elif file.name != "recipe.yaml":  # which may be changed, such as the place of the test images
        assert came_to == expected[verb][1]


@budget(10)
@given(file=st.sampled_from(("recipe.yaml", "metrics.jsonl", "result.json")), harm=harms())
def test_collect__of_a_run_that_came_to_harm_is_a_result_or_a_sentence(runs, tmp_path, file, harm: Harm):
    run = copied(runs.finished, tmp_path / "run")
    harm.befall(run / file)
    with suppress(SsodkitError):
        assert collect(run).recipe_hash


@budget(6)
@given(data=st.data(), name=st.sampled_from(NAMES) | st.text(min_size=1, max_size=20), is_folder=st.booleans())
def test_resume__what_else_is_in_a_run_folder_is_left_alone(runs, call, tmp_path, data, name, is_folder):
    run = copied(runs.stopped, tmp_path / "run")
    folder = data.draw(st.sampled_from(sorted({file.parent for file in files_below(run)})))
    stray = folder / name
    assume("/" not in name and name.isprintable() and not stray.exists())
    if is_folder:
        stray.mkdir()
        stray /= "mine"
    stray.write_text(f"mine: {name}")
    ended = call("run", "--resume", run)
    assert ended.code == 0, ended
    assert weights(run) == weights(runs.finished)
    assert f"mine: {name}".encode() in [path.read_bytes() for path in files_below(run)]

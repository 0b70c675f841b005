import json
import multiprocessing
import os
import re
import shutil
import signal
import threading
import time
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ssodkit.data.config import BrokenRule
from ssodkit.data.sampler import StepSampler
from ssodkit.engine.checkpoint import load_state, read_step
from ssodkit.engine.evaluate import evaluate
from ssodkit.engine.predict import predict
from ssodkit.engine.replay import replay, streams_of
from ssodkit.engine.train import resume, train
from ssodkit.errors import DataError, Interrupted, TrainingError


@pytest.fixture(scope="module")
def finished(tiny_recipe, tmp_path_factory):
    """Ten steps without a stop."""
    return train(tiny_recipe(), tmp_path_factory.mktemp("finished") / "run")


def metrics(run, kind="step"):
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == kind]


def differing(one, other, key=""):
    """Dotted keys of leaves that are not equal, bit for bit."""
    if isinstance(one, dict):
        return [name for part in {*one, *other} for name in differing(one[part], other[part], f"{key}.{part}")]
    if isinstance(one, list | tuple):
        pairs = zip(one, other, strict=True)
        return [name for place, pair in enumerate(pairs) for name in differing(*pair, f"{key}.{place}")]
    same = torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
    return [] if same else [key]


def differing_state(here, there, *further):
    """Keys at which the last checkpoints of two runs differ: of the step, the method, the optimizer, and `further`."""
    parts = ("step", "method", "optimizer", *further)
    one, other = ({part: load_state(end.checkpoint)[part] for part in parts} for end in (here, there))
    return differing(one, other)


def test_train__leaves_a_run_folder_with_everything_in_it(finished):
    files = sorted(str(path.relative_to(finished.run)) for path in finished.run.rglob("*") if path.is_file())
    gallery = sorted(path.name for path in (finished.run / "gallery").iterdir())
    assert len(gallery) > 1
    assert gallery[-1] == "moments.jsonl"
    assert files == [
        "checkpoints/last/checksums.sha256",
        "checkpoints/last/state.pt",
        "checkpoints/last/student.safetensors",
        "checkpoints/last/teacher.safetensors",
        "fold.json",
        *(f"gallery/{name}" for name in gallery),
        "metrics.jsonl",
        "pictures/sheet.png",
        "recipe.yaml",
        "result.json",
    ]
    assert (finished.checkpoint, finished.pictures) == (
        finished.run / "checkpoints" / "last",
        finished.run / "pictures" / "sheet.png",
    )


def test_train__the_result_names_networks_thresholds_and_what_it_was_made_with(finished):
    result = json.loads((finished.run / "result.json").read_text())
    assert result["teacher"] == finished.scores["teacher"] == result["thresholds"]["0.05"]["teacher"]
    assert set(result["thresholds"]) == {"0.05", "0.001"}
    assert {"AP", "AP50", "AP75"} <= set(result["student"])
    assert (result["result"], result["step"], finished.step) == ("teacher", 10, 10)
    assert result["fold"]["images"] == 4
    assert result["versions"]["torch"] == torch.__version__.split("+")[0]
    assert 0.0 <= result["pseudo_labels"]["precision"] <= 1.0


def test_train__a_line_of_metrics_for_every_step_and_health_every_third(finished):
    steps = metrics(finished.run)
    assert [record["step"] for record in steps] == list(range(1, 11))
    assert {"loss", "losses", "lr", "gradient_norm", "images_per_second", "data_seconds", "memory_gb"} <= set(steps[0])
    assert "unlabeled/roi/class" in steps[0]["losses"]
    assert [record["step"] for record in metrics(finished.run, "health")] == [3, 6, 9]


def test_train__networks_learn_and_the_teacher_follows(finished, tiny_recipe, tmp_path):
    begin = load_state(train(tiny_recipe(), tmp_path / "run", stop_after=0).checkpoint)["method"]
    end = load_state(finished.checkpoint)["method"]
    moved = [name for name in begin if not torch.equal(begin[name], end[name])]
    parts = {name.split(".")[0] for name in moved}
    assert parts == {"student", "teacher"}
    assert any(
        not torch.equal(end[name], end[name.replace("student", "teacher.network", 1)])
        for name in moved
        if name.startswith("student")
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_resume__5_and_5_steps_equal_10_bit_for_bit(finished, tiny_recipe, tmp_path, workers):
    run = tmp_path / "run"
    first = train(tiny_recipe(f"engine.workers={workers}"), run, stop_after=5)
    assert (first.step, read_step(first.checkpoint), first.scores) == (5, 5, {})
    assert not (run / "result.json").exists()
    second = resume(run)
    assert differing_state(second, finished, "scale", "health", "best") == []
    assert second.scores == finished.scores
    assert [record["losses"] for record in metrics(run)] == [record["losses"] for record in metrics(finished.run)]
    assert metrics(run, "health")[-1] == metrics(finished.run, "health")[-1]


def test_resume__across_the_end_of_a_burn_in_1_and_1_steps_equal_2_bit_for_bit(tiny_recipe, tmp_path):
    """Whose last step copies the student, and from which on labeled terms count less."""
    changes = (
        "engine.steps=6",
        "data.batch.unlabeled=2",
        "watch.gallery.images=0",
        "method.selector.classes.above=0.0",
    )
    recipe = tiny_recipe(*changes, name="unbiased_teacher_v2")
    whole = train(recipe, tmp_path / "whole", stop_after=2)
    train(recipe, tmp_path / "run", stop_after=1)
    second = resume(tmp_path / "run", stop_after=2)
    assert differing_state(second, whole, "health") == []
    taught = [any(name.startswith("unlabeled") for name in record["losses"]) for record in metrics(tmp_path / "run")]
    assert taught == [False, True]


def test_resume__with_a_half_filled_queue_2_and_2_steps_equal_4_bit_for_bit(tiny_recipe, tmp_path):
    recipe = tiny_recipe(
        "method.selector={type: gmm}",
        "method.background_factor={}",
        "method.unlabeled_weight={type: step, before: 0.0, after: 2.0, at: 30 %}",  # the queue fills from step 1 on
        "watch.health_every=2",
        "watch.log_every=4",
        "engine.lr=0.0001",  # a larger one, and the teacher soon finds nothing
    )
    run = tmp_path / "run"
    whole = train(recipe, tmp_path / "whole", stop_after=4)
    state = load_state(train(recipe, run, stop_after=2).checkpoint)["method"]
    assert state["selector.queue"].shape == (10, 25 * recipe.data.batch.unlabeled)
    filled = (state["selector.queue"] > 0.0).sum(dim=1)
    assert (filled > 0).any()
    assert (filled < state["selector.queue"].shape[1]).all()
    assert not any("pending" in name for name in state)

    second = resume(run, stop_after=4)
    assert differing_state(second, whole, "health") == []
    (line,), (expected,) = metrics(run), metrics(tmp_path / "whole")  # over all four steps
    taken = ("images_per_second", "step_seconds", "data_seconds", "memory_gb")
    assert {name: line[name] for name in line if name not in taken} == {
        name: expected[name] for name in expected if name not in taken
    }
    for record in metrics(run, "health"):
        threshold = record["numbers"]["threshold"]
        assert 0.0 <= threshold["mean"] < 1.0
        assert any(value is not None for value in threshold["per_class"].values())


def test_resume__across_the_burn_in_of_humble_teacher_1_and_2_steps_equal_3_bit_for_bit(tiny_recipe, tmp_path):
    recipe = tiny_recipe(
        "data.batch.unlabeled=2",
        "method.flip_average=true",
        "method.unlabeled_weight={type: step, before: 0.0, after: 0.5, at: 2}",
        "method.teacher.momentum={type: step, before: 0.0, after: 0.9, at: 3}",
        name="humble_teacher",
    )
    run = tmp_path / "run"
    whole = train(recipe, tmp_path / "whole", stop_after=3)
    train(recipe, run, stop_after=1)
    assert differing_state(resume(run, stop_after=3), whole) == []


def test_resume__where_mirrors_begin_to_count_1_and_2_steps_equal_3_bit_for_bit(tiny_recipe, tmp_path):
    recipe = tiny_recipe(
        "data.batch.unlabeled=2",
        "method.consistencies=[{type: flip, foreground: none, weight: {type: rise_and_fall, up: 3}}]",
        "watch.gallery.images=0",
        name="csd",
    )
    run = tmp_path / "run"
    whole = train(recipe, tmp_path / "whole", stop_after=3)
    train(recipe, run, stop_after=1)
    assert differing_state(resume(run, stop_after=3), whole) == []
    weighed = [record["losses"].get("consistency/flip/box", 0.0) > 0.0 for record in metrics(run)]
    assert weighed == [False, True, True]


def test_resume__across_the_step_at_which_matching_changes_equals_a_whole_run_bit_for_bit(tiny_recipe, tmp_path):
    small = "{heads: 2, points: 1, encoder_layers: 1, decoder_layers: 2, width: 16}"
    recipe = tiny_recipe(
        f"detector.transformer={small}",
        "detector.prior=0.2",
        "method.selector.above=0.1",
        "method.unlabeled_weight=1.0",
        "data.batch.unlabeled=2",
        "engine.steps=4",
        "watch.pictures=0",
        "watch.gallery.images=0",
        name="semi_detr",
    )
    whole, run = train(recipe, tmp_path / "whole", stop_after=4), tmp_path / "run"
    for stop in (1, 2, 3):
        last = (resume if run.exists() else train)(*(() if run.exists() else (recipe,)), run, stop_after=stop)
        assert last.step == stop
    assert differing_state(resume(run, stop_after=4), whole, "health") == []
    assert any("projector" in name for name in load_state(whole.checkpoint)["method"])
    asked = ["consistency/queries/states" in record["losses"] for record in metrics(run)]
    noised = [record["losses"]["unlabeled/denoising.1/class"] > 0.0 for record in metrics(run)]
    assert (asked, noised) == ([True, True, False, False], [False, False, True, True])


def test_resume__forgets_what_the_metrics_say_beyond_the_checkpoint(tiny_recipe, tmp_path, capsys):
    run = tmp_path / "run"
    train(tiny_recipe(), run, stop_after=2)
    log = run / "metrics.jsonl"
    lines = ["", "a note of mine", *log.read_text().splitlines(), '{"kind": "step", "step": 3}']
    log.write_text("\n".join(lines) + '\n{"kind": "st')  # as if step 3 was made, and the line after it cut by a crash
    resume(run, stop_after=4)
    lines = log.read_text().splitlines()
    assert lines[:2] == ["", "a note of mine"]
    assert [json.loads(line)["step"] for line in lines[2:] if '"step"' in line] == [1, 2, 3, 3, 4]  # health at 3
    assert "metrics.jsonl: line 2 is not what ssodkit writes; kept, and not counted" in capsys.readouterr().out


def test_resume__a_finished_run_is_evaluated_again(finished):
    again = resume(finished.run)
    assert again.scores == finished.scores
    assert len(metrics(finished.run, "result")) == 1


def test_library__takes_paths_as_text(tiny_recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = tiny_recipe("engine.steps=2", "watch.pictures=0")
    assert train(recipe, "run", stop_after=1).run == Path("run")
    assert resume("run").step == 2
    assert evaluate("run")["step"] == 2
    Image.new("RGB", (64, 64)).save("a.png")
    assert predict("run", ["a.png"], "out") == Path("out") / "results.json"


def test_evaluate__repeats_the_numbers_of_the_run_exactly(finished, capsys):
    scores = evaluate(finished.run)
    result = json.loads((finished.run / "result.json").read_text())
    assert scores == {name: result[name] for name in scores}
    assert {"student", "teacher", "thresholds", "per_class", "step", "result"} == set(scores)
    printed = capsys.readouterr().out
    assert "teacher (the result)" in printed
    assert f"{100 * scores['teacher']['AP']:.1f}" in printed


def test_train__goes_on_when_nobody_reads_what_it_says(tiny_recipe, tmp_path, capsys):
    reads, writes = os.pipe()
    os.close(reads)
    with open(writes, "w") as stream, redirect_stdout(stream):
        result = train(tiny_recipe("engine.steps=2", name="supervised"), tmp_path / "run")
    assert result.step == 2
    assert (result.run / "result.json").is_file()
    assert capsys.readouterr().err == (
        "nobody reads what the training says any more; it goes on, and writes to metrics.jsonl in its folder\n"
    )


def test_train__a_folder_that_holds_anything_is_refused(tiny_recipe, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(TrainingError, match="is not empty, and nothing in it is overwritten"):
        train(tiny_recipe(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_train__folders_that_nobody_named_are_numbered(tiny_recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = [train(tiny_recipe(), stop_after=0).run for _ in range(2)]
    assert [str(run) for run in runs] == ["runs/soft_teacher-1", "runs/soft_teacher-2"]


def test_train__the_last_few_checkpoints_are_kept(tiny_recipe, tmp_path):
    recipe = tiny_recipe("engine.checkpoint.every=2", "engine.checkpoint.keep=3")
    run = train(recipe, tmp_path / "run", stop_after=7).run
    kept = {path.name: read_step(path) for path in (run / "checkpoints").iterdir()}
    assert kept == {"last": 7, "step_00000006": 6, "step_00000004": 4}


def send_once_it_trains(run, number):
    while not (run / "metrics.jsonl").exists() or len(metrics(run)) < 2:
        time.sleep(0.02)
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_train__a_signal_ends_it_after_a_checkpoint(tiny_recipe, tmp_path, number):
    run = tmp_path / "run"
    sender = threading.Thread(target=send_once_it_trains, args=(run, number), daemon=True)
    sender.start()
    with pytest.raises(Interrupted) as caught:
        train(tiny_recipe("engine.steps=100000", "engine.workers=1"), run)
    sender.join()
    assert multiprocessing.active_children() == []  # though the error and all that it passed are still there
    assert caught.value.signal == number
    step = read_step(run / "checkpoints" / "last")
    assert 2 <= step < 1000
    assert [record["step"] for record in metrics(run)] == list(range(1, step + 1))
    assert resume(run, stop_after=step + 1).step == step + 1


@pytest.mark.parametrize(
    ("terms", "streams"),
    [
        (["labeled/roi/box", "labeled/roi/class"], {"labeled"}),
        (["unlabeled/dense/box"], {"unlabeled"}),
        (["unlabeled/dense/box", "consistency/mirror"], {"labeled", "unlabeled"}),
        ([], {"labeled", "unlabeled"}),
    ],
)
def test_streams_of__a_loss_of_no_stream_is_about_both(terms, streams):
    assert streams_of(terms) == streams


def test_train__learns_from_mosaics(tiny_recipe, tmp_path):
    run = train(
        tiny_recipe(
            "engine.steps=3",
            "data.percent=20",
            "views.labeled_mosaic={side: 96}",
            "views.labeled.labeled=[{type: scale_jitter, side: 96, factor: [0.5, 1.5]}, {type: hsv}]",
            name="supervised_objectness",
        ),
        tmp_path / "run",
    ).run
    losses = [value for record in metrics(run) for value in record["losses"].values()]
    assert len(losses) == 9
    assert np.isfinite(losses).all()
    assert min(losses) > 0.0


def test_train__what_is_not_finite_stops_it_and_can_be_replayed(tiny_recipe, tmp_path):
    recipe = tiny_recipe(
        "engine.lr={type: step, before: 0.01, after: 100.0, at: 2}",
        "engine.clip_norm=null",
        "engine.checkpoint.every=2",
        "views.labeled_mosaic={side: 48}",
    )
    with pytest.raises(TrainingError, match=r"step \d+: (the losses )?`.*` w(as|ere) not finite") as caught:
        train(recipe, tmp_path / "run")
    (kept,) = (tmp_path / "run" / "replay").iterdir()
    assert str(kept) in str(caught.value)
    assert ".png and three beside it" in str(caught.value)
    step = int(kept.stem.split("_")[1])
    assert step > 2
    assert read_step(tmp_path / "run" / "checkpoints" / "last") == 2 * ((step - 1) // 2)
    numbers = replay(kept)
    assert numbers.is_halted
    assert all(f"`{term}`" in str(caught.value) for term in numbers.not_finite)


def test_resume__another_number_of_workers_is_the_same_run(tiny_recipe, tmp_path):
    run = train(tiny_recipe(), tmp_path / "run", stop_after=1).run
    text = (run / "recipe.yaml").read_text()
    assert "workers: 0" in text
    (run / "recipe.yaml").write_text(text.replace("workers: 0", "workers: 1"))
    assert resume(run, stop_after=2).step == 2


@pytest.fixture
def pictures(tmp_path):
    """A folder of eight images of noise."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(8):
        pixels = np.random.RandomState(number).randint(0, 255, (96, 96, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def test_resume__other_unlabeled_images_are_noticed(tiny_recipe, tmp_path, pictures, capsys):
    recipe = tiny_recipe(f"data.unlabeled={{type: folder, images: {pictures}}}")
    run = train(recipe, tmp_path / "run", stop_after=1).run
    resume(run, stop_after=2)
    assert "warning" not in capsys.readouterr().out
    (pictures / "3.png").unlink()
    resume(run, stop_after=3)
    assert re.search(r"unlabeled images are others than before the stop: 8 \(.*\) then, 7 \(", capsys.readouterr().out)


def test_resume__makes_up_for_an_evaluation_that_was_cut_off(tiny_recipe, tmp_path):
    """Killed after the checkpoint of step 2, while it scored: the curve has no hole."""
    recipe = tiny_recipe("engine.steps=4", "engine.evaluate_every=2", "watch.pictures=0", "watch.gallery.images=0")
    train(recipe, tmp_path / "whole")
    train(recipe, tmp_path / "run", stop_after=2)
    log = tmp_path / "run" / "metrics.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join(line for line in lines if '"evaluation"' not in line))
    resume(tmp_path / "run")
    assert metrics(tmp_path / "run", "evaluation") == metrics(tmp_path / "whole", "evaluation")
    assert [record["step"] for record in metrics(tmp_path / "run", "evaluation")] == [2]


def test_train__a_broken_image_is_skipped_as_the_recipe_says(tiny_recipe, tmp_path, pictures, monkeypatch, capsys):
    """One is found before step 1, one when a step draws it; mended or not, a resumed run sees what it would have."""
    monkeypatch.setattr("ssodkit.data.pictures.KEPT", 0)
    recipe = tiny_recipe(
        f"data.unlabeled={{type: folder, images: {pictures}}}",
        "data.batch.unlabeled=2",
        "data.broken={skip: true, at_most: 2}",
        "engine.steps=4",
        "watch.gallery.moments=1",
    )
    first, *others = sorted(pictures.iterdir())
    labeled, unlabeled = (np.zeros((count, 2), np.int32) for count in (4, 7))
    last = others[StepSampler(recipe.seed, recipe.data.batch, labeled, unlabeled).rows(1).unlabeled[0]]
    whole_first, whole_last = first.read_bytes(), last.read_bytes()
    first.write_bytes(b"")
    last.write_bytes(whole_last[:1000] + bytes(1000) + whole_last[2000:])
    straight = train(recipe, tmp_path / "whole")
    out = capsys.readouterr().out
    assert "data.unlabeled: 1 of 8 images cannot be used and are left out" in out
    assert out.count("warning: data.unlabeled: the image") == 1
    assert "Others take its place in the steps that draw it" in out.replace("\n", " ")

    train(recipe, tmp_path / "run", stop_after=2)
    state = load_state(tmp_path / "run" / "checkpoints" / "last")["broken"]
    assert [list(state[name]) for name in ("left_out", "later")] == [["unlabeled"], ["unlabeled"]]
    first.write_bytes(whole_first)
    again = resume(tmp_path / "run")
    assert differing(load_state(again.checkpoint)["method"], load_state(straight.checkpoint)["method"]) == []

    first.write_bytes(b"")
    few = recipe.model_copy(
        update={"data": recipe.data.model_copy(update={"broken": BrokenRule(skip=True, at_most=1)})}
    )
    with pytest.raises(
        DataError, match=r"These are 2 of 22 images.*allows to skip 1\. When that is mended, go on with"
    ):
        train(few, tmp_path / "few")
    assert load_state(tmp_path / "few" / "checkpoints" / "last")["broken"]["later"].keys() == {"unlabeled"}


@pytest.mark.parametrize("step", [0, 3])
def test_train__an_image_that_cannot_be_read_ends_it_after_a_checkpoint(
    tiny_recipe, tmp_path, pictures, step, monkeypatch
):
    monkeypatch.setattr(
        "ssodkit.data.pictures.KEPT", 0
    )  # as in a large set, only the ends of files are looked at before
    run = tmp_path / "run"
    recipe = tiny_recipe(
        f"data.unlabeled={{type: folder, images: {pictures}}}",
        "data.batch.unlabeled=1",
        "engine.steps=4",
        "watch.gallery.moments=1",  # the end: nobody looks at the broken image before its step
    )
    whole = train(recipe, tmp_path / "whole")
    labeled, unlabeled = (np.zeros((count, 2), np.int32) for count in (4, 8))
    (number,) = StepSampler(recipe.seed, recipe.data.batch, labeled, unlabeled).rows(step).unlabeled
    content = (pictures / f"{number}.png").read_bytes()
    (pictures / f"{number}.png").write_bytes(content[:1000] + bytes(1000) + content[2000:])
    with pytest.raises(DataError, match=rf"{number}\.png cannot be read.* go on with `ssodkit run --resume {run}`"):
        train(recipe, run)
    assert read_step(run / "checkpoints" / "last") == step
    (pictures / f"{number}.png").write_bytes(content)
    again = resume(run)
    assert differing(load_state(again.checkpoint)["method"], load_state(whole.checkpoint)["method"]) == []


def test_train__where_the_disk_is_full_nothing_is_written_half(tiny_recipe, tmp_path, file_limit):
    with file_limit(50), pytest.raises(TrainingError, match=r"recipe\.yaml cannot be read or written: File too large"):
        train(tiny_recipe(), tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []


def test_resume__a_changed_recipe_is_refused(tiny_recipe, tmp_path):
    run = train(tiny_recipe(), tmp_path / "run", stop_after=1).run
    text = (run / "recipe.yaml").read_text()
    (run / "recipe.yaml").write_text(text.replace("clip_norm: 5.0", "clip_norm: 6.0"))
    with pytest.raises(TrainingError, match=r"another recipe \(engine\.clip_norm: 5\.0 there, 6\.0 here\)"):
        resume(run)


def test_resume__what_is_no_checkpoint_of_this_run_is_refused(tiny_recipe, tmp_path):
    run = train(tiny_recipe(), tmp_path / "run", stop_after=1).run
    last = run / "checkpoints" / "last"
    content = (last / "student.safetensors").read_bytes()
    (last / "student.safetensors").write_bytes(content[:1000])
    with pytest.raises(TrainingError, match=r"student\.safetensors is damaged"):
        resume(run)
    (last / "student.safetensors").write_bytes(content)

    whole = load_state(last)
    (last / "checksums.sha256").unlink()  # an earlier version wrote none
    name = next(iter(whole["method"]))
    torch.save({**whole, "method": {**whole["method"], name: whole["method"][name][:1]}}, last / "state.pt")
    with pytest.raises(TrainingError, match=rf"other networks than this recipe builds \(size mismatch for {name}"):
        resume(run)
    for lacks in ("health", "seconds", "best"):
        torch.save({key: value for key, value in whole.items() if key != lacks}, last / "state.pt")
        if lacks == "best":
            shutil.copytree(last, last.with_name("best"))
            torch.save(whole, last / "state.pt")
        with pytest.raises(TrainingError, match=rf"state\.pt has no '{lacks}': it was written by another version"):
            resume(run)


def test_resume__a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(TrainingError, match="holds no run"):
        resume(tmp_path)


def test_resume__the_best_is_that_of_all_evaluations_and_the_last_step_counts(tiny_recipe, tmp_path):
    """Stopped after step 2: its checkpoint was saved before it was scored, and does not know that it is the best."""
    validation = "data.validation={type: digits, part: val, images: 6, seed: 1}"
    recipe = tiny_recipe(validation, "engine.steps=4", "engine.evaluate_every=2", "watch.pictures=0")
    run = train(recipe, tmp_path / "run", stop_after=2).run
    checkpoints, log = run / "checkpoints", run / "metrics.jsonl"
    assert read_step(checkpoints / "best") == 2
    resume(run)
    evaluations = metrics(run, "evaluation")
    assert [(record["step"], record["set"]) for record in evaluations] == [(2, "validation"), (4, "validation")]
    scores = [record["teacher"]["AP"] for record in evaluations]
    best = 2 if scores[0] >= scores[1] else 4
    assert {path.name: read_step(path) for path in checkpoints.iterdir()} == {
        "best": best,
        "last": 4,
        "step_00000002": 2,  # before the networks are scored, so that a signal may end that at once
    }
    assert load_state(checkpoints / "best")["best"] == max(scores)

    # Killed while it scored the last step: the line comes with the next resume, and without a best one it is the best.
    log.write_text("".join(line for line in log.read_text().splitlines(keepends=True) if '"evaluation"' not in line))
    shutil.rmtree(checkpoints / "best")
    resume(run)
    assert metrics(run, "evaluation") == evaluations[1:]
    assert read_step(checkpoints / "best") == 4


PEAK = (
    "data.validation={type: digits, part: val, images: 6, seed: 1}",
    "engine.steps=6",
    "engine.evaluate_every=1",
    "engine.patience=2",
    "evaluation.checkpoint=best",
    "evaluation.thresholds=[0.0]",
    "watch.pictures=0",
    "watch.gallery.images=1",
    "watch.gallery.moments=6",
)


def test_train__ends_when_its_patience_does_and_the_best_checkpoint_is_the_result(tiny_recipe, tmp_path, capsys):
    """After so few steps no score is above 0, so that the first evaluation stays the best."""
    recipe = tiny_recipe(*PEAK)
    whole = train(recipe, tmp_path / "whole")
    said = " ".join(capsys.readouterr().out.split())
    assert whole.step == 3
    assert "ends after step 3: the last 2 evaluations were no better than the best, AP 0.0 after step 1 on the" in said
    assert "of step 1, the best on the validation images, on 10 test images" in said
    assert "test scores after step 1" in said
    result = json.loads((whole.run / "result.json").read_text())
    assert (result["step"], result["checkpoint"], result["scored_step"]) == (3, "best", 1)
    assert whole.checkpoint == whole.run / "checkpoints" / "best"
    assert read_step(whole.checkpoint) == 1
    moments = [json.loads(line)["step"] for line in (whole.run / "gallery" / "moments.jsonl").read_text().splitlines()]
    assert moments == [1, 2, 3]

    # Stopped within its patience, and again when it was over but nothing was scored on the test images yet.
    train(recipe, tmp_path / "run", stop_after=2)
    again = resume(tmp_path / "run")
    assert again.scores == whole.scores
    (again.run / "result.json").unlink()
    assert resume(again.run).step == 3
    for line in ("evaluation", "result"):
        assert metrics(again.run, line) == metrics(whole.run, line)
    assert (again.run / "gallery" / "moments.jsonl").read_text() == (
        whole.run / "gallery" / "moments.jsonl"
    ).read_text()
    assert differing(load_state(again.checkpoint)["method"], load_state(whole.checkpoint)["method"]) == []
    assert evaluate(whole.run)["student"] == result["student"]


def test_train__no_best_without_a_validation_set(tiny_recipe, tmp_path):
    run = train(tiny_recipe("engine.steps=4", "engine.evaluate_every=2"), tmp_path / "run").run
    assert not (run / "checkpoints" / "best").exists()
    assert [(record["step"], record["set"]) for record in metrics(run, "evaluation")] == [(2, "test")]


def test_train__supervised_has_pictures_too(tiny_recipe, tmp_path):
    result = train(tiny_recipe("engine.steps=2", name="supervised"), tmp_path / "run")
    assert result.pictures.exists()
    assert "student" in result.scores
    assert metrics(result.run, "health") == []


def test_train__says_what_it_does(finished, tiny_recipe, tmp_path, capsys):
    train(tiny_recipe("engine.steps=2"), tmp_path / "run")
    printed = capsys.readouterr().out
    for said in (
        "4 labeled images",
        "2 labeled and 2 unlabeled images",
        "cpu",
        "step 2/2",
        "images/s",
        "pseudo-boxes/image",
    ):
        assert said in printed
    for said in ("AP75", "teacher", "student", "precision", "recall", "sheet.png", "checkpoints/last"):
        assert said in printed


def test_train__without_any_labeled_box_and_with_one_class_it_trains_on(tiny_recipe, tmp_path):
    (tmp_path / "images").mkdir()
    for number in range(4):
        pixels = np.random.RandomState(number).randint(0, 255, (64, 64, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
    images = [{"id": n, "file_name": f"{n}.png", "height": 64, "width": 64} for n in range(4)]
    annotations = {"images": images, "categories": [{"id": 3, "name": "cat"}], "annotations": []}
    (tmp_path / "empty.json").write_text(json.dumps(annotations))
    source = f"{{type: coco, annotations: {tmp_path / 'empty.json'}, images: {tmp_path / 'images'}}}"
    recipe = tiny_recipe(
        f"data.train={source}",
        f"data.test={source}",
        "data.percent=50",
        f"data.unlabeled={{type: folder, images: {tmp_path / 'images'}}}",
        "engine.steps=3",
    )
    result = train(recipe, tmp_path / "run")
    assert result.scores["teacher"]["AP"] is None
    assert json.loads((result.run / "result.json").read_text())["student"]["AP"] is None
    assert "precision" not in metrics(result.run, "health")[0]
    assert metrics(result.run)[-1]["losses"]["labeled/roi/box"] == 0.0

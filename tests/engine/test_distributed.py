import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import TINY_DINO, TINY_FASTER_RCNN, TINY_FCOS, TINY_UNSURE_FCOS

import ssodkit
from ssodkit.data.batch_plan import derive_batch
from ssodkit.data.loader import training_batches
from ssodkit.data.sampler import StepSampler
from ssodkit.data.sets import open_data
from ssodkit.data.stored import read_stored
from ssodkit.engine.build import build_method
from ssodkit.engine.checkpoint import load_state, read_step
from ssodkit.engine.distributed import Processes, open_processes
from ssodkit.engine.label import label
from ssodkit.engine.train import train
from ssodkit.engine.update import Updater
from ssodkit.errors import TrainingError
from ssodkit.recipe.show import dump_recipe
from ssodkit.structures.progress import Progress
from ssodkit.structures.records import map_tensors

ALONE = Processes(torch.device("cpu"))
CLASSES = 10
ADAPTIVE = (
    "detector.stages.rpn.matcher={type: adaptive}",
    "detector.stages.rpn.sampler=null",
    "detector.stages.rpn.terms.class.normalizer=quality",
    "detector.stages.rpn.terms.box.normalizer=quality",
    "detector.stages.rpn.terms.box.quality=weight",
)


def without_labels_of_the_second(batch):
    """The batch, its second image without a labeled box."""
    keep = torch.tensor([[True], [False]])
    targets = {name: each.where(keep) for name, each in batch.labeled.targets.items()}
    return replace(batch, labeled=replace(batch.labeled, targets=targets))


def exchanged(view):
    """The view with its two images in the other order."""
    return map_tensors(view, lambda tensor: tensor.flip(0))


@pytest.fixture(scope="module")
def cases(tiny_recipe):
    """Name -> recipe, global batch and weights. In `uneven`, the second process has no labeled box, the first no
    pseudo-box; `adaptive` is the same with a matcher that reads answers, whose terms are divided by the positives' IoU;
    `rare` is the same with a background factor, which acts only if one process decides for itself; in `gmm` the
    processes share a queue; `dino` is a transformer, in `imitation` a teacher's answers teach, in `flipped` those about
    regions and their mirror images, in `listening` its uncertainty; in `mining` boxes are mined by the costs of both
    processes, of which one has no pseudo-box; in `csd` images are compared with their mirrors. The second has no
    labeled box in any; in `bad`, the features of the second are no numbers."""
    recipe = tiny_recipe()
    (batch,) = next(
        training_batches(open_data(recipe.data), recipe.views, derive_batch(recipe.data.batch), 0, range(1))
    )
    method = build_method(recipe, CLASSES)
    weak = batch.unlabeled.views["weak"]
    best = method.teacher.look(weak).found.confidence.amax(dim=1)
    if best[0] > best[1]:
        batch = replace(
            batch, unlabeled=replace(batch.unlabeled, views={n: exchanged(v) for n, v in batch.unlabeled.views.items()})
        )
        best = best.flip(0)
    between = best.mean().item()
    thresholds = (
        *(f"method.selector.{name}.above={between}" for name in ("objectness", "classes")),
        f"method.scorers.0.asks.above={between}",
    )
    uneven, adaptive = tiny_recipe(*thresholds), tiny_recipe(*thresholds, *ADAPTIVE)
    rare = tiny_recipe(*thresholds, "method.background_factor={below: 0.5, factor: 0.01}")
    gmm = tiny_recipe("method.selector={type: gmm}", "method.background_factor={}")
    dino = tiny_recipe(
        f"detector={json.dumps({**TINY_DINO, 'prior': 0.2})}",
        "method.selector={type: fixed, above: 0.05, ignore_from: null}",
        "method.background_factor=null",
        name="mean_teacher",
    )
    imitation = tiny_recipe(
        f"detector={json.dumps(TINY_FCOS)}",
        "method.region={type: top_share, share: 0.1, scope: image}",
        "method.unlabeled_weight=1.0",
        name="dense_teacher",
    )
    flipped = tiny_recipe(
        "method.flip_average=true",
        "method.teacher.proposals=40",
        "method.unlabeled_weight=1.0",
        name="humble_teacher",
    )
    # What the class term teaches by an image and by its mirror nearly cancels in the stem, which leaves rounding.
    csd = tiny_recipe(
        f"detector={json.dumps(TINY_FASTER_RCNN)}",
        "method.consistencies=[{type: flip, foreground: none, class_weight: 0.1}]",
        name="csd",
    )
    shared = {"method": method.state_dict()}
    return {
        "plain": {"recipe": recipe, "batch": batch, **shared},
        "uneven": {"recipe": uneven, "batch": without_labels_of_the_second(batch), **shared},
        "adaptive": {"recipe": adaptive, "batch": without_labels_of_the_second(batch), **shared},
        "rare": {"recipe": rare, "batch": without_labels_of_the_second(batch), **shared},
        "gmm": {"recipe": gmm, "batch": batch, "method": with_a_queue(gmm, method, batch.unlabeled.views["weak"])},
        "dino": {
            "recipe": dino,
            "batch": without_labels_of_the_second(batch),
            "method": build_method(dino, CLASSES).state_dict(),
        },
        "imitation": {
            "recipe": imitation,
            "batch": without_labels_of_the_second(batch),
            "method": build_method(imitation, CLASSES).state_dict(),
        },
        "flipped": {
            "recipe": flipped,
            "batch": without_labels_of_the_second(batch),
            "method": with_another_teacher(flipped),
        },
        "listening": listening_case(tiny_recipe, without_labels_of_the_second(batch)),
        "mining": mining_case(tiny_recipe, without_labels_of_the_second(batch)),
        "csd": {
            "recipe": csd,
            "batch": without_labels_of_the_second(batch),
            "method": build_method(csd, CLASSES).state_dict(),
        },
        "bad": {"recipe": recipe, "batch": batch, "poisoned": 1, **shared},
    }


def listening_case(tiny_recipe, batch):
    """Sides of boxes are learned from a sure teacher, which finds nothing in one of the images."""
    detector = f"detector={json.dumps(TINY_UNSURE_FCOS)}"
    changes = (detector, "data.batch.unlabeled=2", "method.unlabeled_weight=1.0")
    method = build_method(tiny_recipe(*changes, name="unbiased_teacher_v2"), CLASSES)
    torch.nn.init.constant_(method.teacher.network.head.towers.doubt.bias, -3.0)
    for network in (method.student, method.teacher.network):
        torch.nn.init.constant_(network.head.towers.classify.bias, -1.5)
    scores = method.teacher.look(batch.unlabeled.views["weak"]).found.scores
    between = {name: scores[name].amax(dim=1).mean().item() for name in ("plain", "certain")}
    rules = {"objectness": "plain", "classes": "plain", "boxes": "certain"}
    thresholds = [f"method.selector.{name}.above={between[score]}" for name, score in rules.items()]
    recipe = tiny_recipe(*changes, *thresholds, name="unbiased_teacher_v2")
    return {"recipe": recipe, "batch": batch, "method": method.state_dict()}


def mining_case(tiny_recipe, batch):
    """Boxes beside those that teach are mined by costs; the teacher teaches none in one of the images."""
    # AdamW takes a step as long for a gradient of nearly 0, whose sign is rounding.
    optimizer = "engine.optimizer.type=sgd"
    changes = ("data.batch.unlabeled=2", "detector.prior=0.2", "method.unlabeled_weight=1.0", optimizer)
    method = build_method(tiny_recipe(*changes, name="semi_detr"), CLASSES)
    between = method.teacher.look(batch.unlabeled.views["weak"]).found.confidence.amax(dim=1).mean().item()
    recipe = tiny_recipe(*changes, f"method.selector.above={between}", name="semi_detr")
    return {"recipe": recipe, "batch": batch, "method": method.state_dict()}


def with_a_queue(recipe, method, weak):
    """The state of a method with these networks, in each of its queues one score like those of the teacher."""
    other = build_method(recipe, CLASSES)
    other.load_state_dict(method.state_dict(), strict=False)
    other.selector.queue[:, 0] = method.teacher.look(weak).found.confidence.mean()
    return other.state_dict()


def with_another_teacher(recipe):
    """The state of a method whose teacher says something else than its student, so that no loss is all rounding."""
    state, other = (build_method(recipe.model_copy(update={"seed": seed}), CLASSES).state_dict() for seed in (0, 1))
    return {name: other[name] if name.startswith("teacher.") else value for name, value in state.items()}


def update(case):
    """What one process makes of the whole batch."""
    method = build_method(case["recipe"], CLASSES, load_weights=False)
    method.load_state_dict(case["method"])
    numbers = Updater(method, case["recipe"].engine, ALONE)((case["batch"],), Progress(0, 10)).read()
    gradients = {name: weight.grad for name, weight in method.named_parameters() if weight.grad is not None}
    return {"numbers": numbers, "gradients": gradients, "method": method.state_dict()}


@pytest.fixture(scope="module")
def answers(cases, tiny_recipe, tmp_path_factory):
    """What two processes answered, by rank, and the folder that they worked in."""
    folder = tmp_path_factory.mktemp("two")
    files = {}
    for name, case in cases.items():
        (folder / f"{name}.yaml").write_text(dump_recipe(case["recipe"]))
        files[name] = {**case, "recipe": str(folder / f"{name}.yaml"), "num_classes": CLASSES}
    torch.save(files, folder / "cases.pt")
    (folder / "short.yaml").write_text(dump_recipe(tiny_recipe("engine.steps=3")))
    (folder / "long.yaml").write_text(dump_recipe(tiny_recipe("engine.steps=100000")))
    write_a_case_with_an_image_to_break(tiny_recipe, folder)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(ssodkit.__file__).parents[1])}
    script = Path(__file__).with_name("two_processes.py")
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        str(script),
        str(folder),
    ]
    run = subprocess.run(launch, capture_output=True, text=True, timeout=280, env=environment)
    assert run.returncode == 0, run.stderr[-4000:]
    return [torch.load(folder / f"answers_{rank}.pt", weights_only=False) for rank in range(2)], folder


def write_a_case_with_an_image_to_break(tiny_recipe, folder):
    """`broken.yaml`, and in `broken.txt` the unlabeled image that only the second process takes for the fourth step."""
    (folder / "pictures").mkdir()
    for number in range(8):
        pixels = np.random.RandomState(number).randint(0, 255, (96, 96, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "pictures" / f"{number}.png")
    recipe = tiny_recipe(f"data.unlabeled={{type: folder, images: {folder / 'pictures'}}}", "watch.gallery.moments=1")
    (folder / "broken.yaml").write_text(dump_recipe(recipe))
    labeled, unlabeled = (np.zeros((count, 2), np.int32) for count in (4, 8))
    number = StepSampler(recipe.seed, recipe.data.batch, labeled, unlabeled).rows(3).unlabeled[1]
    (folder / "broken.txt").write_text(str(folder / "pictures" / f"{number}.png"))


TAUGHT = ["plain", "uneven", "adaptive", "rare", "gmm", "dino", "imitation", "flipped", "listening", "mining", "csd"]


@pytest.mark.parametrize("name", TAUGHT)
def test_two_processes__have_the_gradients_of_one(cases, answers, name):
    one, two = update(cases[name]), answers[0][0][name]
    assert one["gradients"].keys() == two["gradients"].keys()
    norm = torch.stack([gradient.norm() for gradient in one["gradients"].values()]).norm()
    for weight, gradient in one["gradients"].items():
        difference = (two["gradients"][weight] - gradient).norm()
        assert difference <= 1e-5 * gradient.norm() + 1e-8 * norm, weight
    assert two["numbers"].losses == pytest.approx(one["numbers"].losses, rel=1e-5)
    assert two["numbers"].gradient_norm == pytest.approx(one["numbers"].gradient_norm, rel=1e-5)
    assert two["numbers"].pseudo_boxes == one["numbers"].pseudo_boxes
    for key, value in one["method"].items():
        torch.testing.assert_close(two["method"][key], value, rtol=0, atol=1e-6)


def test_two_processes__one_had_no_labeled_box_and_the_other_no_pseudo_box(cases):
    recipe, batch = cases["uneven"]["recipe"], cases["uneven"]["batch"]
    method = build_method(recipe, CLASSES)
    for rank, has_box in ((0, False), (1, True)):
        half = batch[rank : rank + 1]
        assert bool(half.labeled.joined()[1].valid.any()) == (rank == 0)
        classes = method.step(half, Progress(0, 10)).report.selection.supervision.classes
        assert bool(classes.valid.any()) == has_box


def test_two_processes__listen_to_sides_that_one_of_them_has_alone(cases):
    method = build_method(cases["listening"]["recipe"], CLASSES)
    method.load_state_dict(cases["listening"]["method"])
    halves = [cases["listening"]["batch"][rank : rank + 1] for rank in range(2)]
    sides = [method.step(half, Progress(9, 10)).losses.terms["unlabeled/dense/box"].denominator for half in halves]
    assert min(sides) == 0.0
    assert max(sides) > 16.0  # above the floor


def test_two_processes__their_sums_of_quality_differ(cases):
    method = build_method(cases["adaptive"]["recipe"], CLASSES)
    halves = [cases["adaptive"]["batch"][rank : rank + 1] for rank in range(2)]
    labeled, unlabeled = (
        [method.step(half, Progress(0, 10)).losses.terms[f"{kind}/rpn/box"].denominator.item() for half in halves]
        for kind in ("labeled", "unlabeled")
    )
    assert labeled[0] > 1.0  # above the floor, so that what divides is the sum
    assert labeled[1] == unlabeled[0] == 0.0
    assert unlabeled[1] > 1.0


def test_two_processes__share_one_queue_in_the_order_of_the_global_batch(cases, answers):
    queue = update(cases["gmm"])["method"]["selector.queue"]
    assert (queue > 0.0).sum() > (cases["gmm"]["method"]["selector.queue"] > 0.0).sum()
    for answer in answers[0]:
        torch.testing.assert_close(answer["gmm"]["method"]["selector.queue"], queue, rtol=0, atol=1e-6)


def test_two_processes__with_queues_of_their_own_would_select_others(cases):
    def select(rows):
        method = build_method(cases["gmm"]["recipe"], CLASSES)
        method.load_state_dict(cases["gmm"]["method"])
        return method.step(cases["gmm"]["batch"][rows], Progress(0, 10)).report.selection.passed["mixture"]

    assert not torch.equal(torch.cat([select(slice(0, 1)), select(slice(1, 2))]), select(slice(0, 2)))


def test_two_processes__end_with_the_same_weights(answers):
    first, second = answers[0]
    for name in ("plain", "uneven", "adaptive", "rare", "gmm"):
        for key, value in first[name]["method"].items():
            assert torch.equal(second[name]["method"][key], value), key


def test_two_processes__what_is_not_finite_in_one_changes_nothing_in_either(cases, answers):
    for answer in answers[0]:
        assert answer["bad"]["numbers"].is_halted
        assert "labeled/roi/box" in answer["bad"]["numbers"].not_finite
        for key, value in cases["bad"]["method"].items():
            assert torch.equal(answer["bad"]["method"][key], value), key


def test_two_processes__sum_and_gather(answers):
    for answer in answers[0]:
        assert answer["sum"] == [2.0, 1.0]
        assert answer["each"] == [[[1.0, 0.0]], [[1.0, 1.0]]]
        assert answer["gathered"] == ["process 0", "process 1"]


def test_two_processes__both_learn_what_the_first_met_alone(answers):
    first, second = (answer["alone"] for answer in answers[0])
    assert first == ["made by 0", "not made by 0"]
    assert second == [None, "not made by 0"]


def test_two_processes__say_where_they_disagree(answers):
    for answer in answers[0]:
        assert "do not have the same labeled fold" in answer["disagreement"]
        assert "process 1: fold of 1" in answer["disagreement"]


def test_two_processes__train_evaluate_and_write_once(answers, tiny_recipe, tmp_path):
    run = answers[1] / "short"
    result = json.loads((run / "result.json").read_text())
    assert (result["processes"], result["step"]) == (2, 3)
    alone = train(tiny_recipe("engine.steps=3"), tmp_path / "run").run
    lines = [[json.loads(line) for line in (each / "metrics.jsonl").read_text().splitlines()] for each in (run, alone)]
    assert [(line["kind"], line["step"]) for line in lines[0]] == [(line["kind"], line["step"]) for line in lines[1]]
    assert lines[0][0]["losses"] == pytest.approx(lines[1][0]["losses"], rel=1e-5)
    assert (run / "pictures" / "sheet.png").exists()


def test_two_processes__all_stop_after_the_step_when_one_gets_a_signal(answers):
    first, second = (answer["stopped"] for answer in answers[0])
    assert first[0] == second[0]
    assert (first[1], second[1]) == (signal.SIGTERM, signal.SIGINT)
    step = read_step(answers[1] / "long" / "checkpoints" / "last")
    assert 0 < step < 1000
    assert f"stopped after step {step};" in first[0]


def test_two_processes__stop_with_a_checkpoint_where_one_meets_a_broken_image(answers):
    first, second = (answer["broken"] for answer in answers[0])
    assert first == second
    assert re.search(
        rf"\.png cannot be read.* go on with `ssodkit run --resume {re.escape(str(answers[1] / 'broken'))}`", first[0]
    )
    assert first[1] == 3  # the broken image is of the fourth step


def test_two_processes__go_on_after_a_broken_image_as_if_nothing_had_been(answers):
    here, there = (load_state(answers[1] / name / "checkpoints" / "last") for name in ("broken", "whole"))
    assert here["step"] == there["step"] == 4
    for name, tensor in there["method"].items():
        assert torch.equal(here["method"][name], tensor), name


def test_two_processes__all_know_of_an_image_that_one_has_skipped(answers):
    state = load_state(answers[1] / "skipped" / "checkpoints" / "last")
    assert state["step"] == 4
    (why,) = state["broken"]["later"]["unlabeled"].values()
    assert why.startswith(f"the image {(answers[1] / 'broken.txt').read_text()} cannot be read")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"WORLD_SIZE": ""}, "WORLD_SIZE is '', which is no number from 1 on"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE is '0'"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two'"),
        ({"WORLD_SIZE": "2", "LOCAL_RANK": "-1"}, "LOCAL_RANK is '-1', which is no number from 0 on"),
        ({"WORLD_SIZE": "2"}, "RANK is ''"),
        ({"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "x"}, "MASTER_PORT is 'x'"),
        ({"WORLD_SIZE": "2", "RANK": "2", "MASTER_PORT": "1"}, "do not meet at .*RANK is 2, and WORLD_SIZE 2"),
        ({"WORLD_SIZE": "2", "RANK": "1", "MASTER_PORT": "1"}, "do not meet at None:1 .*MASTER_ADDR"),
    ],
)
def test_open_processes__nonsense_in_the_environment_is_a_sentence(monkeypatch, changes, complaint):
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in changes.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(TrainingError, match=complaint), open_processes("cpu"):
        pass


def test_open_processes__alone_is_the_first_of_one():
    with open_processes("cpu") as processes:
        assert (processes.rank, processes.count, processes.is_first) == (0, 1, True)
        assert processes.gather("me") == ["me"]
        processes.agree({"recipe": "any"})


@pytest.mark.parametrize("device", ["abacus", "cuda:99", "meta", "mps"])
def test_open_processes__a_device_that_is_not_there_is_named(device):
    with pytest.raises(TrainingError, match=device), open_processes(device):
        pass


def test_label__two_processes_store_what_one_stores(answers, tmp_path):
    _, folder = answers
    two, _ = read_stored(folder / "labels.json")
    one, _ = read_stored(label(folder / "short", tmp_path / "labels.json", device="cpu"))
    assert (two.ids.tolist(), two.offsets.tolist()) == (one.ids.tolist(), one.offsets.tolist())
    assert len(one.boxes) > 0
    np.testing.assert_allclose(two.boxes, one.boxes, atol=1e-2)
    np.testing.assert_allclose(two.scores, one.scores, atol=1e-4)

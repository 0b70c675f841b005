"""Export: what a file finds is what its run finds."""

import json
import shutil

import jaxtyping
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yaml
from command import Call

from ssodkit.detectors.portable.parts import suppress_by_torch
from ssodkit.engine.agreement import Agreement
from ssodkit.engine.export import Shape, compare, export
from ssodkit.engine.found import Found
from ssodkit.engine.portable import Portable
from ssodkit.engine.train import train
from ssodkit.engine.trained import load
from ssodkit.errors import TrainingError

RECIPES = {
    "supervised": ["views.test=[{type: resize, short: 80, long: 120}]", "detector.test.at_most=300"],
    "supervised_retinanet": ["detector.anchors.inside=canvas", "detector.test.at_most=300"],
    "supervised_fam3d": ["views.size={type: resize, short: 130}"],
    "supervised_fcos": [],
    "supervised_objectness": ["evaluation.thresholds=[0.00001]", "detector.head.objects=3000.0"],
}
"""Enlarging, reducing, neither; few and hundreds of detections."""


@pytest.fixture(scope="module")
def runs(tiny_recipe, tmp_path_factory):
    """Recipe -> a run of one step, whose low threshold finds hundreds of boxes."""
    short = ["engine.steps=1", "watch.pictures=0", "watch.gallery.images=0", "evaluation.thresholds=[0.005]"]
    return {
        name: train(tiny_recipe(*short, *changes, name=name), tmp_path_factory.mktemp(name) / "run").run
        for name, changes in RECIPES.items()
    }


@pytest.fixture(scope="module")
def pictures():
    """Of several sizes: one almost gray (equal scores have no order), two of noise, and a tall one."""
    random = np.random.RandomState(1)
    noise = [random.randint(0, 256, (*size, 3)).astype(np.uint8) for size in ((96, 96), (96, 96), (200, 64))]
    return [random.randint(112, 116, (75, 140, 3)).astype(np.uint8), *noise]


@pytest.fixture(autouse=True)
def unchecked_shapes():
    """While torch traces, sizes are tensors, which annotations do not allow."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def agreement_of(run_file, detector, pictures):
    """What a function of batches finds in single pictures, beside what a detector finds in them."""
    agreement = Agreement()
    for picture in pictures:
        boxes, scores, labels, counts = (
            np.asarray(output) for output in run_file(np.ascontiguousarray(picture.transpose(2, 0, 1)[None]))
        )
        count = int(counts[0])
        got = Found(boxes[0][:count], scores[0][:count], labels[0][:count], detector.categories, picture)
        assert (scores[0][count:] == 0).all()
        agreement.add(detector(picture), got, detector.score, detector.at_most)
    return agreement


@pytest.mark.parametrize("recipe", RECIPES)
def test_export__an_onnx_file_finds_in_onnxruntime_what_the_run_finds(runs, recipe, pictures, tmp_path, capsys):
    file = tmp_path / "mine.onnx"
    told = export(runs[recipe], file, "onnx")
    assert told.is_whole
    assert f"{told.agreeing} of {told.detections} detections in 10 pictures" in capsys.readouterr().out
    detector = load(runs[recipe], device="cpu")
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    agreement = agreement_of(lambda batch: session.run(None, {"images": batch}), detector, pictures)
    assert agreement.is_whole, agreement
    assert agreement.detections > 50
    assert agreement.boxes < 0.01
    names = json.loads({prop.key: prop.value for prop in onnx.load(file).metadata_props}["names"])
    assert names == {str(label): category.name for label, category in enumerate(detector.categories)}
    together = session.run(None, {"images": np.stack(pictures[1:3]).transpose(0, 3, 1, 2)})
    alone = session.run(None, {"images": pictures[2].transpose(2, 0, 1)[None]})
    np.testing.assert_allclose(together[0][1], alone[0][0], atol=1e-3)


@pytest.mark.filterwarnings("ignore:.*torch.jit.load.* is deprecated:FutureWarning")
@pytest.mark.parametrize("recipe", ["supervised", "supervised_fam3d"])
def test_export__a_torchscript_file_finds_what_the_run_finds(runs, recipe, pictures, tmp_path):
    file = tmp_path / "mine.pt"
    assert export(runs[recipe], file, "torchscript").is_whole
    about = {"ssodkit.json": ""}
    module = torch.jit.load(file, _extra_files=about)
    assert "names" in json.loads(about["ssodkit.json"])
    agreement = agreement_of(lambda batch: module(torch.from_numpy(batch)), load(runs[recipe], device="cpu"), pictures)
    assert agreement.is_whole, agreement
    assert agreement.boxes < 1e-3


def test_export__a_safetensors_file_is_loaded_without_its_run(runs, pictures, tmp_path):
    run, file = runs["supervised"], tmp_path / "mine.safetensors"
    assert export(run, file, "safetensors", network="student").is_whole
    loaded, expected = load(file), load(run, network="student")
    assert (loaded.name, loaded.categories, loaded.score) == ("student", expected.categories, expected.score)
    for mine, theirs in zip(loaded(pictures), expected(pictures), strict=True):
        assert (mine.boxes == theirs.boxes).all()
        assert len(mine) == len(theirs) > 0
    with pytest.raises(TrainingError, match=r"mine.safetensors has no teacher; it holds the student alone"):
        load(file, network="teacher")


def test_export__a_fixed_batch_and_size_are_those_of_the_file(runs, tmp_path, capsys):
    file = tmp_path / "fixed.onnx"
    assert export(runs["supervised"], file, "onnx", batch=3, size=(60, 90)).is_whole
    assert "3 pictures of 60 x 90 pixels (height x width)" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == [3, 3, 60, 90]


def test_export__without_its_test_images_made_ones_are_compared(runs, tmp_path, capsys):
    run, recipe = tmp_path / "run", tmp_path / "run" / "recipe.yaml"
    shutil.copytree(runs["supervised"], run)
    tree = yaml.safe_load(recipe.read_text())
    tree["data"]["test"] = {"type": "coco", "annotations": "gone.json", "images": "gone"}
    recipe.write_text(yaml.safe_dump(tree))
    assert export(run, tmp_path / "mine.safetensors", "safetensors").pictures == 2
    assert "note        made pictures are compared alone, as the run's test images cannot" in capsys.readouterr().out


def test_compare__another_network_is_noticed(runs, pictures):
    detector, other = (load(runs["supervised"], network=name, device="cpu") for name in ("teacher", "student"))
    module = Portable(other.network, other.recipe.views, suppress_by_torch, other.score).eval()
    with torch.no_grad():
        agreement = compare(
            lambda batch: [part.numpy() for part in module(torch.from_numpy(batch))], detector, pictures, Shape()
        )
    assert not agreement.is_whole
    assert agreement.detections > 0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--format", "torchscript", "--size", "60x60"], "takes pictures of any number and size: leave out"),
        (["--format", "onnx", "--size", "60"], "write --size as HEIGHTxWIDTH in pixels, such as 480x640, not '60'"),
        (
            ["--format", "onnx"],
            "the test view is made of flip, and a file can hold one `resize` to one length or nothing",
        ),
    ],
)
def test_export__what_cannot_be_done_is_a_sentence_and_leaves_no_file(call: Call, runs, tmp_path, arguments, complaint):
    run = tmp_path / "run"
    shutil.copytree(runs["supervised"], run)
    recipe = run / "recipe.yaml"
    tree = yaml.safe_load(recipe.read_text())
    tree["views"]["test"]["transforms"] = [{"type": "flip"}]
    recipe.write_text(yaml.safe_dump(tree))
    ended = call("export", run, "--out", "mine", *arguments)
    assert ended.code == 2
    assert complaint in ended.err
    assert not (tmp_path / "mine").exists()


def test_load__other_files_are_refused_in_a_sentence(runs, tmp_path):
    (tmp_path / "mine.safetensors").write_bytes(b"no tensors")
    with pytest.raises(TrainingError, match="is no file that can be loaded"):
        load(tmp_path / "mine.safetensors")
    with pytest.raises(TrainingError, match="holds weights alone, not what they belong to"):
        load(runs["supervised"] / "checkpoints" / "last" / "teacher.safetensors")


def test_portable__a_detector_that_no_such_file_can_hold_names_the_file_that_can(tiny_context, tiny_recipe):
    context = tiny_context(type="dino")
    with pytest.raises(TrainingError, match=r"Dino cannot be written as ONNX or TorchScript.*`--format safetensors`"):
        Portable(context.detector.build(context), tiny_recipe().views, suppress_by_torch, 0.5)
